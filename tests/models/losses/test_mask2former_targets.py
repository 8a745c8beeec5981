import pytest
import torch

from vfm_ss.models.losses.mask2former_targets import batch_totals, find_classes, image_weights


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_classes_are_those_of_the_labels(dtype):
    maps = [
        torch.tensor([[3, 3], [255, 0]], dtype=dtype),
        torch.full((1, 2, 5), 255, dtype=dtype),
        torch.arange(19, dtype=dtype),
    ]
    assert find_classes(maps, 19, 255, ["a", "b", "c"]) == [[0, 3], [], list(range(19))]


@pytest.mark.parametrize(
    ("ignore", "expected"),
    [(0, [1, 2]), (-100, [0, 1, 2]), (None, [0, 1, 2]), (2, [0, 1]), (70000, [0, 1, 2])],
)
def test_any_label_may_be_ignored(ignore, expected):
    labels = torch.tensor([0, 1, 2] if ignore is None else [0, 1, 2, ignore])
    assert find_classes([labels], 3, ignore, ["a"]) == [expected]


@pytest.mark.parametrize("wrong", [3, 4, 254, 256, 1000, -1, -2])
def test_unknown_label_names_image_and_remedy(wrong):
    maps = [torch.tensor([0, 255]), torch.tensor([1, wrong, 2])]
    with pytest.raises(ValueError) as error:
        find_classes(maps, 3, 255, ["good.png", "bad.png"])
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"label {wrong} in bad.png, but num_classes=3 allows 0 to 2")
    assert "good.png" not in message


def test_labels_are_not_changed():
    labels = torch.tensor([2, 0, 255])
    find_classes([labels], 3, 255, ["a"])
    assert labels.tolist() == [2, 0, 255]


def test_ignored_label_is_unknown_without_ignore_index():
    with pytest.raises(ValueError, match=r"label 255 in a\.png"):
        find_classes([torch.tensor([0, 255])], 3, None, ["a.png"])


def test_totals_count_images_targets_and_matches():
    totals = batch_totals([[1, 2, 3], [], [5]], num_queries=2, device=torch.device("cpu"))
    assert totals.tolist() == [3, 4, 3]


def test_weights_make_means_over_the_batch():
    classes, queries, no_object = [[1, 2, 3], [], [5]], 4, 0.1
    totals = batch_totals(classes, queries, torch.device("cpu"))
    masks, labels = image_weights(classes, totals, queries, no_object, "batch", torch.float64)
    # Every target mask weighs the same, and so does every unit of class weight.
    assert masks.tolist() == pytest.approx([1 / 4] * 3)
    weight_sum = 4 * 1 + (3 * queries - 4) * no_object
    assert labels.tolist() == pytest.approx([1 / weight_sum] * 3)


def test_weights_make_means_over_each_image():
    classes, queries, no_object = [[1, 2, 3], [], [5, 6, 7, 8, 9]], 4, 0.1
    totals = batch_totals(classes, queries, torch.device("cpu"))
    masks, labels = image_weights(classes, totals, queries, no_object, "image", torch.float64)
    assert masks.tolist() == pytest.approx([1 / 9, 1 / 3, 1 / 15])
    assert labels.tolist() == pytest.approx([1 / (3 * 3.1), 1 / (3 * 0.4), 1 / (3 * 4)])
