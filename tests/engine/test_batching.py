import pytest

from vfm_ss.engine.batching import accumulation_steps, per_rank_batch


@pytest.mark.parametrize(
    ("world", "micro", "expected"),
    [(1, 16, 1), (1, 4, 4), (1, 1, 16), (2, 4, 2), (4, 16, 1), (16, 8, 1)],
)
def test_micro_batches_fill_the_effective_batch(world, micro, expected):
    share = per_rank_batch(16, world)
    assert accumulation_steps(16, micro, world, share) == expected


def test_wrong_products_say_which_numbers_to_use():
    with pytest.raises(ValueError, match=r"shared by 3 processes; use one of \[1, 2, 4, 8, 16\]"):
        per_rank_batch(16, 3)
    with pytest.raises(ValueError, match=r"makes 32 images .* use train_dataloader.batch_size=8"):
        accumulation_steps(16, 4, 2, 16)
    with pytest.raises(ValueError, match=r"micro_batch=3 does not divide .* \[1, 2, 4, 8, 16\]"):
        accumulation_steps(16, 3, 1, 16)
    with pytest.raises(ValueError, match=r"micro_batch='4' must be 'auto' or a number of images"):
        accumulation_steps(16, "4", 1, 16)
    with pytest.raises(ValueError, match="micro_batch=0"):
        accumulation_steps(16, 0, 1, 16)
