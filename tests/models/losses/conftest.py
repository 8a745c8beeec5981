"""Batches that mix images with no, one, several and too many targets."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from vfm_ss.models.losses.mask2former_loss import Mask2FormerLoss
from vfm_ss.models.losses.mask2former_targets import (
    ImageTargets,
    batch_totals,
    find_classes,
    image_weights,
)

NUM_CLASSES, NUM_QUERIES, IGNORE = 12, 5, 255


@pytest.fixture(scope="session")
def plain():
    """Return the plain formulation, which lives beside the benchmark that times it."""
    path = Path(__file__).parents[3] / "tools" / "benchmarks" / "plain_mask2former.py"
    spec = importlib.util.spec_from_file_location("plain_mask2former", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Batch:
    class_logits: torch.Tensor
    mask_logits: torch.Tensor
    label_maps: torch.Tensor

    @property
    def classes(self):
        names = [f"image {i}" for i in range(len(self.label_maps))]
        return find_classes(list(self.label_maps), NUM_CLASSES, IGNORE, names)

    def losses(self, loss, normalize="batch", generators=None):
        """Compute the package's losses, ``(P,)`` each."""
        generators = generators or [None] * len(self.label_maps)
        targets = [
            ImageTargets(*image)
            for image in zip(self.label_maps, self.classes, generators, strict=True)
        ]
        weights = image_weights(
            self.classes,
            batch_totals(self.classes, NUM_QUERIES, self.label_maps.device),
            NUM_QUERIES,
            loss.no_object_weight,
            normalize,
            torch.promote_types(self.mask_logits.dtype, torch.float32),
        )
        return loss(self.class_logits, self.mask_logits, targets, *weights)


def make_labels(num_targets, height=24, width=32):
    """Make a label map of patches with ``num_targets`` classes and some ignored pixels."""
    labels = torch.full((height, width), IGNORE)
    classes = torch.randperm(NUM_CLASSES)[:num_targets]
    for i, label in enumerate(classes.tolist() * 3):
        if i < num_targets:
            labels.view(-1)[torch.randint(height * width, (3,))] = label
        y, x = torch.randint(height - 6, ()), torch.randint(width - 8, ())
        labels[y : y + 6, x : x + 8] = label
    # However the patches fell, each class keeps a pixel.
    labels.view(-1)[: 2 * num_targets : 2] = classes
    return labels


@pytest.fixture
def make_batch():
    def make(num_targets, seed=0, num_predictions=3, dtype=torch.float64):
        torch.manual_seed(seed)
        images = len(num_targets)
        shape = num_predictions, images, NUM_QUERIES
        return Batch(
            torch.randn(*shape, NUM_CLASSES + 1, dtype=dtype).requires_grad_(),
            (3 * torch.randn(*shape, 6, 8, dtype=dtype)).requires_grad_(),
            torch.stack([make_labels(count) for count in num_targets]),
        )

    return make


@pytest.fixture
def loss():
    return Mask2FormerLoss(num_points=64)


@pytest.fixture
def recorded_points(monkeypatch):
    """Record the points that the package draws: for each image, to match and to compare at."""
    import vfm_ss.models.losses.mask2former_loss as module

    record = {"match": [], "compare": []}

    def recording(name, draw):
        def wrapper(*args):
            points = draw(*args)
            record[name].append(points)
            return points

        return wrapper

    monkeypatch.setattr(module, "uniform_points", recording("match", module.uniform_points))
    monkeypatch.setattr(module, "uncertain_points", recording("compare", module.uncertain_points))
    return record
