from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate

from vfm_ss.engine.auto_micro_batch import choose_micro_batch, largest_that_fits

GIB = 2**30


def device(fixed, per_image, memory):
    """A GPU whose memory is known: raises its out-of-memory error, and lists what was tried."""
    tried = []

    def peak_of(images):
        tried.append(images)
        peak = fixed + per_image * images
        if peak > memory:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")
        return int(peak)

    return peak_of, tried


@pytest.mark.parametrize(
    ("budget", "chosen", "tried"),
    [
        (40, 16, [1, 2, 4, 8, 16]),  # 2 GiB and 2 more for each image
        (20, 8, [1, 2, 4, 8]),  # 16 is expected to need 34 and is not tried
        (7, 2, [1, 2]),
        (4, 1, [1, 2]),  # nothing to expect 2 from
    ],
)
def test_the_largest_micro_batch_within_the_budget_is_taken(budget, chosen, tried):
    peak_of, log = device(2 * GIB, 2 * GIB, 80 * GIB)
    assert largest_that_fits([1, 2, 4, 8, 16], peak_of, budget * GIB)[0] == chosen
    assert log == tried


def test_an_out_of_memory_error_ends_the_search():
    peak_of, log = device(2 * GIB, 2 * GIB, 5 * GIB)  # less than the budget promises
    assert largest_that_fits([1, 2, 4], peak_of, 40 * GIB)[0] == 1
    assert log == [1, 2]


def test_a_model_too_large_for_one_image_is_refused():
    peak_of, _ = device(2 * GIB, 2 * GIB, 3 * GIB)
    with pytest.raises(RuntimeError, match=r"not even one image fits .*with_cp=True"):
        largest_that_fits([1, 2, 4], peak_of, 40 * GIB)


def test_other_errors_are_not_hidden():
    def broken(images):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        largest_that_fits([1, 2], broken, GIB)


def fake_runner(size):
    """A runner on a CPU whose dataset draws random numbers."""

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return {"inputs": torch.rand(3, *size) + np.random.rand()}

    loader = torch.utils.data.DataLoader(Images(), collate_fn=pseudo_collate)
    return SimpleNamespace(model=torch.nn.Linear(2, 2), train_dataloader=loader)


@pytest.mark.parametrize(
    ("size", "share", "chosen"),
    [
        ((512, 512), 16, 1),
        ((1024, 1024), 16, 1),
        ((300, 300), 16, 2),
        ((256, 256), 16, 4),
        ((64, 64), 16, 16),
        ((64, 64), 8, 8),
        ((64, 64), 6, 2),
    ],
)
def test_a_cpu_takes_as_many_images_as_make_a_large_one(size, share, chosen):
    runner = fake_runner(size)
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    assert choose_micro_batch(runner, share) == chosen
    assert (torch.rand(1), np.random.rand()) == expected, "random states stay as they were"
