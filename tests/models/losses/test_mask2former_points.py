import pytest
import torch
import torch.nn.functional as F

import vfm_ss.models.losses.mask2former_points as points_module
from vfm_ss.models.losses.mask2former_points import (
    LabelSampler,
    SharedPoints,
    chunks,
    sample_masks,
    uncertain_points,
    uniform_points,
)


def edge_points():
    """Points on and near the image's edges and corners, and random ones."""
    edges = torch.tensor([-1.0, -0.999, -0.5, 0.0, 0.5, 0.999, 1.0], dtype=torch.float64)
    return torch.cat([torch.cartesian_prod(edges, edges), torch.rand(200, 2).double() * 2 - 1])


def binary_masks(labels, classes):
    return (labels == classes[:, None, None]).double()


def grid_sample(masks, points):
    return F.grid_sample(masks[:, None], points[:, None], align_corners=False)[:, 0, 0]


@pytest.mark.parametrize("size", [(7, 11), (1, 1), (1, 5), (64, 48)])
@pytest.mark.parametrize("ignore", [255, -100, 70000])
def test_labels_at_points_equal_sampled_masks(size, ignore):
    labels = torch.randint(0, 5, size)
    labels[torch.rand(size) < 0.2] = ignore
    classes = torch.tensor([3, 0, 4, 3])
    points = edge_points()
    expected = grid_sample(binary_masks(labels, classes), points.expand(4, -1, -1))
    sampler = LabelSampler(labels)
    torch.testing.assert_close(sampler.sample(points[None], classes), expected, rtol=0, atol=1e-12)

    own = torch.rand(4, 50, 2).double() * 2 - 1
    expected = grid_sample(binary_masks(labels, classes), own)
    torch.testing.assert_close(sampler.sample(own, classes), expected, rtol=0, atol=1e-12)


def test_labels_may_be_bytes():
    labels = torch.randint(0, 256, (9, 9), dtype=torch.uint8)
    points = edge_points()
    sampled = LabelSampler(labels).sample(points[None], torch.tensor([255, 3]))
    long = LabelSampler(labels.long()).sample(points[None], torch.tensor([255, 3]))
    assert torch.equal(sampled, long)


def test_no_class_gives_no_rows():
    sampled = LabelSampler(torch.zeros(4, 4).long()).sample(edge_points()[None], torch.zeros(0))
    assert sampled.shape == (0, len(edge_points()))


@pytest.mark.parametrize("size", [(5, 8), (1, 1), (32, 32)])
def test_masks_at_shared_points_equal_grid_sample(size, monkeypatch):
    monkeypatch.setattr(points_module, "_CPU_SAMPLES", 100)
    masks, points = torch.randn(6, *size).double(), edge_points()
    parts = list(SharedPoints(points, *size).sample(masks))
    assert len(parts) > 1
    every = torch.arange(len(points))
    assert torch.equal(torch.cat([every[some] for some, _ in parts]), every)
    expected = grid_sample(masks, points.expand(6, -1, -1))
    sampled = torch.cat([values for _, values in parts]).T
    torch.testing.assert_close(sampled, expected, rtol=0, atol=1e-12)


def test_spreading_is_the_adjoint_of_sampling():
    masks, points = torch.randn(6, 5, 8).double(), edge_points()
    values = torch.rand(3, len(points)).double()
    spread = SharedPoints(points, 5, 8).spread(values)
    expected = values @ grid_sample(masks, points.expand(6, -1, -1)).T
    torch.testing.assert_close(spread @ masks.flatten(1).T, expected, rtol=0, atol=1e-11)


def test_chunks_cover_all_rows_once():
    for rows, per_row in ((0, 3), (1, 10**9), (1000, 1000), (7, 0)):
        parts = list(chunks(rows, per_row, torch.device("cpu")))
        assert [i for part in parts for i in range(rows)[part]] == list(range(rows))
        for part in parts:
            size = part.stop - part.start
            assert size == 1 or size * per_row <= points_module._CPU_SAMPLES


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_points_fill_the_square(dtype):
    like = torch.zeros(1, dtype=dtype)
    points = uniform_points((3, 20000), like, torch.Generator().manual_seed(0))
    assert points.dtype == dtype
    assert points.shape == (3, 20000, 2)
    assert 0.999 < points.abs().max() <= 1
    assert points.std() == pytest.approx(3**-0.5, abs=0.01)
    assert points.flatten(0, 1).T.corrcoef()[0, 1].abs() < 0.02
    # A quarter in each quadrant; 4 standard deviations are 0.007.
    for sign in ([1, 1], [1, -1], [-1, 1], [-1, -1]):
        share = (points * torch.tensor(sign) > 0).all(-1).double().mean()
        assert abs(share - 0.25) < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uncertain_points_are_the_least_certain_candidates(monkeypatch, dtype):
    drawn = []

    def record(*args):
        drawn.append(uniform_points(*args))
        return drawn[-1]

    monkeypatch.setattr(points_module, "uniform_points", record)
    masks = torch.randn(4, 6, 5, dtype=dtype)
    points = uncertain_points(masks, 100, 3.0, 0.75, None)
    candidates, uniform = drawn
    assert candidates.shape == (4, 300, 2)
    assert torch.equal(points[:, 75:], uniform)
    certainty = sample_masks(masks, candidates).abs()
    chosen = sample_masks(masks, points[:, :75]).abs()
    smallest = certainty.sort(dim=1).values[:, :75]
    torch.testing.assert_close(chosen.sort(dim=1).values, smallest, rtol=0, atol=0)
    # They are candidates of the same mask.
    distance = (points[:, :75, None] - candidates[:, None]).abs().sum(-1)
    assert (distance == 0).any(-1).all()


def test_uncertain_points_of_several_chunks(monkeypatch):
    monkeypatch.setattr(points_module, "_CPU_SAMPLES", 700)
    masks = torch.randn(5, 4, 4)
    points = uncertain_points(masks, 100, 3.0, 0.75, torch.Generator().manual_seed(3))
    again = uncertain_points(masks, 100, 3.0, 0.75, torch.Generator().manual_seed(3))
    assert points.shape == (5, 100, 2)
    assert torch.equal(points, again)
    # Near the zero crossings: closer to 0 than uniform points are, for every mask.
    chosen = sample_masks(masks, points[:, :75]).abs().mean(1)
    uniform = sample_masks(masks, torch.rand(5, 1000, 2) * 2 - 1).abs().mean(1)
    assert (chosen < 0.7 * uniform).all()


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_importance_may_be_nothing_or_everything(ratio):
    masks = torch.randn(3, 4, 4)
    points = uncertain_points(masks, 40, 3.0, ratio, None)
    assert points.shape == (3, 40, 2)
    assert points.abs().max() <= 1


def test_no_mask_gives_no_points():
    assert uncertain_points(torch.zeros(0, 4, 4), 10, 3.0, 0.75, None).shape == (0, 10, 2)
