"""Time a training step: linear head, Mask2Former, and Mask2Former with plainly written losses.

The three take turns in one run, so that a busy machine disturbs them alike; ratios are medians
over the rounds of ratios within a round. ``loss`` is matching and losses with their gradients down
to the logits; ``plain`` goes prediction by prediction and image by image
(``plain_mask2former.py``), and so does ``transformers``, the authors' choice, timed if installed.

    python tools/benchmarks/mask2former.py --threads 1
    python tools/benchmarks/mask2former.py --device cuda --batch 16 --amp
"""

import argparse
import itertools
import statistics
import time
from contextlib import nullcontext

import mmseg
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from plain_mask2former import plain_losses, plain_targets

import vfm_ss  # noqa: F401

# The losses alone take little time: they have more turns.
LOSSES_PER_ROUND = 5
PARTS = ("forward", "loss", "backward", "optimiser", "step")


def parse_args():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1, help="images per step")
    parser.add_argument("--size", type=int, default=512, help="image side in pixels")
    parser.add_argument("--classes", type=int, default=150, help="classes of the dataset")
    parser.add_argument("--targets", type=int, default=10, help="classes per image")
    parser.add_argument(
        "--rounds", type=int, default=5, help="measured rounds, after one to warm up"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: CPU time of the process, for one thread on a machine that does other work too",
    )
    parser.add_argument("--amp", action="store_true", help="fp16 autocast")
    return parser.parse_args()


def make_batch(args):
    """Make random images and label maps of rectangles, a twentieth of the pixels ignored."""
    images = torch.randn(args.batch, 3, args.size, args.size, device=args.device)
    samples = []
    for _ in range(args.batch):
        classes = torch.randperm(args.classes)[: args.targets]
        cells = classes[torch.randint(args.targets, (8, 8))]
        cells.view(-1)[: args.targets] = classes
        labels = cells.repeat_interleave(args.size // 8, 0).repeat_interleave(args.size // 8, 1)
        labels[: args.size // 20] = 255
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels[None].to(args.device))))
    return images, samples


class Step:
    """A training step in parts, each timed."""

    def __init__(self, backbone, head, images, samples, args):
        self.backbone, self.head = backbone, head
        self.images, self.samples, self.args = images, samples, args
        self.parameters = [*backbone.parameters(), *head.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=0.0)

    def __call__(self):
        """Run the step; return the seconds of each part."""
        times = [self._now()]
        amp = self.args.amp
        device = self.args.device.split(":")[0]
        with torch.autocast(device, torch.float16) if amp else nullcontext():
            out = self.head(self.backbone(self.images))
            times.append(self._now())
            loss = self.loss(out)
        times.append(self._now())
        # A loss scale does not change the time.
        loss.backward()
        times.append(self._now())
        self.optimizer.step()
        self.optimizer.zero_grad()
        times.append(self._now())
        seconds = [end - start for start, end in itertools.pairwise(times)]
        return dict(zip(PARTS, [*seconds, times[-1] - times[0]], strict=True))

    def loss(self, out):
        """Compute the loss of the head's output."""
        losses = self.head.loss_by_feat(out, self.samples)
        return sum(value for name, value in losses.items() if "loss" in name)

    def time_loss(self, out):
        """Return the seconds of the loss with its gradients down to ``out``."""
        out = [logits.detach().requires_grad_() for logits in out]
        start = self._now()
        self.loss(out).backward()
        return self._now() - start

    def _now(self):
        if self.args.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.process_time() if self.args.clock == "cpu" else time.perf_counter()


class PlainStep(Step):
    """The step with plainly written losses."""

    def loss(self, out):
        """Compute the losses one prediction and one image at a time."""
        loss = self.head.loss_decode
        labels = torch.cat([sample.gt_sem_seg.data for sample in self.samples])
        with torch.autocast(labels.device.type, enabled=False):
            losses = plain_losses(*(logits.float() for logits in out), labels, loss)
        return sum(loss.weighted_sum(losses).values())


class TransformersStep(Step):
    """The step with transformers' losses."""

    def loss(self, out):
        """Compute the losses one prediction at a time, with transformers' Mask2FormerLoss."""
        from transformers import Mask2FormerConfig
        from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

        ours = self.head.loss_decode
        config = Mask2FormerConfig(
            num_labels=self.args.classes,
            train_num_points=ours.num_points,
            no_object_weight=ours.no_object_weight,
            class_weight=ours.class_weight,
            mask_weight=ours.mask_weight,
            dice_weight=ours.dice_weight,
        )
        criterion = Mask2FormerLoss(config, weight_dict={}).to(self.args.device)
        labels = torch.cat([sample.gt_sem_seg.data for sample in self.samples])
        class_logits, mask_logits = (logits.float() for logits in out)
        total = 0
        with torch.autocast(labels.device.type, enabled=False):
            masks, classes = plain_targets(labels, 255, mask_logits.dtype)
            for p in range(len(mask_logits)):
                losses = criterion(mask_logits[p], class_logits[p], masks, classes)
                total = total + config.class_weight * losses["loss_cross_entropy"]
                total = total + config.mask_weight * losses["loss_mask"]
                total = total + config.dice_weight * losses["loss_dice"]
        return total


def make_steps(args):
    """Build one backbone and the heads that take turns on it."""
    backbone = MODELS.build({"type": "DINOv2", "pretrained": False, "img_size": args.size})
    heads = {
        name: MODELS.build({"type": name, "in_channels": 768, "num_classes": args.classes})
        for name in ("LinearHead", "SingleScaleMask2FormerHead")
    }
    for module in (backbone, *heads.values()):
        module.to(args.device).train()
    linear, mask2former = heads.values()
    batch = make_batch(args)
    steps = {
        "linear": Step(backbone, linear, *batch, args),
        "mask2former": Step(backbone, mask2former, *batch, args),
        "plain": PlainStep(backbone, mask2former, *batch, args),
    }
    try:
        import transformers  # noqa: F401
    except ImportError:
        return steps
    return {**steps, "transformers": TransformersStep(backbone, mask2former, *batch, args)}


def ratio(rounds, slow, fast):
    """Return the median, smallest and largest ratio within a round, as text."""
    ratios = [one[slow] / one[fast] for one in rounds]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main():
    """Measure and print."""
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    steps = make_steps(args)
    whole, losses = [], []
    for _ in range(args.rounds + 1):
        whole.append({name: step() for name, step in steps.items()})
        with torch.no_grad():
            step = steps["mask2former"]
            out = step.head(step.backbone(step.images))
        for _ in range(LOSSES_PER_ROUND):
            losses.append({n: s.time_loss(out) for n, s in steps.items() if n != "linear"})
    whole, losses = whole[1:], losses[LOSSES_PER_ROUND:]

    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else "CPU"
    print(
        f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"mmseg {mmseg.__version__}; ViT-B, {args.size}x{args.size}, {args.batch} image(s), "
        f"{args.targets} targets each, {'fp16 autocast' if args.amp else 'fp32'}, "
        f"{args.rounds} rounds, {args.clock} time"
    )
    print("\nMedian milliseconds of a training step\n")
    print("| | " + " | ".join(PARTS) + " |\n|" + "---|" * (len(PARTS) + 1))
    for name in steps:
        medians = [1e3 * statistics.median(one[name][part] for one in whole) for part in PARTS]
        print(f"| {name} | " + " | ".join(f"{median:.0f}" for median in medians) + " |")
    print("\nMedian milliseconds of matching and losses with their gradients, alone\n")
    for name in losses[0]:
        print(f"| {name} | {1e3 * statistics.median(one[name] for one in losses):.0f} |")
    print("\nRatios: median (smallest to largest)\n")
    for name in list(steps)[2:]:
        print(f"| loss: {name} / mask2former | {ratio(losses, name, 'mask2former')} |")
    totals = [{name: parts["step"] for name, parts in one.items()} for one in whole]
    for name in list(steps)[1:]:
        print(f"| step: {name} / linear | {ratio(totals, name, 'linear')} |")


if __name__ == "__main__":
    main()
