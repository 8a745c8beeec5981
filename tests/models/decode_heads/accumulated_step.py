"""One optimiser step of 16 images in parts: gradients of the head, on one or several processes.

Run as a script by the tests: ``RANK WORLD_SIZE FOLDER NORMALIZE:NUM_MICRO_BATCHES ...``.
"""

import sys

import torch
import torch.distributed as dist
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from vfm_ss.models.decode_heads import SingleScaleMask2FormerHead
from vfm_ss.models.losses.mask2former_targets import batch_totals

NUM_IMAGES, NUM_CLASSES = 16, 9


def make_head(normalize):
    torch.manual_seed(0)
    return SingleScaleMask2FormerHead(
        in_channels=6,
        num_classes=NUM_CLASSES,
        channels=8,
        num_queries=4,
        num_layers=2,
        num_heads=2,
        feedforward_channels=8,
        loss_decode={"type": "Mask2FormerLoss", "num_points": 32},
        normalize=normalize,
        point_seed=7,
    ).double()


def make_data():
    """Make features and label maps; images have 0 to 9 classes, more than queries too."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(NUM_IMAGES, 6, 3, 4, generator=generator).double()
    labels = torch.full((NUM_IMAGES, 12, 16), 255)
    for i in range(NUM_IMAGES):
        count = min(max(0, i - 3), NUM_CLASSES)
        classes = torch.randperm(NUM_CLASSES, generator=generator)[:count]
        labels[i].view(-1)[: count * 20] = classes.repeat_interleave(20)
    return features, labels


def step_gradients(num_micro_batches, normalize="batch", rank=0, world_size=1, step=5):
    """Return the gradients of this process's share of the step, as its optimiser sees them."""
    head = make_head(normalize)
    features, labels = make_data()
    features, labels = features[rank::world_size], labels[rank::world_size]
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]
    head.begin_step(samples, num_micro_batches, step)
    indices = torch.arange(len(samples))
    for part in indices.tensor_split(num_micro_batches):
        # As mmengine's data preprocessor hands them on: moved, not the same objects.
        moved = [samples[i].to("cpu") for i in part]
        losses = head.loss([features[part]], moved, None)
        (sum(losses.values()) / num_micro_batches).backward()
    return {name: parameter.grad for name, parameter in head.named_parameters()}


if __name__ == "__main__":
    rank, world_size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    totals = batch_totals([[1]] * (rank + 1), 4, torch.device("cpu"))
    assert totals.tolist() == [3, 3, 3], totals
    for case in sys.argv[4:]:
        normalize, num_micro_batches = case.split(":")
        gradients = step_gradients(int(num_micro_batches), normalize, rank, world_size)
        for gradient in gradients.values():
            # What DDP does.
            dist.all_reduce(gradient)
            gradient /= world_size
        torch.save(gradients, f"{folder}/{case}_{rank}.pth")
    dist.destroy_process_group()
