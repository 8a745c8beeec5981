"""Time Mask2Former's matching and losses with their gradients down to the logits.

`ours` against `plain`, which goes prediction by prediction and image by image
(`plain_mask2former.py`), and against `transformers`, the authors' choice, where it is installed.
They take turns on the same random logits of a whole decoder; ratios are medians over the rounds of
ratios within a round. `train.py --sides ours mask2former` times whole training steps.

    python tools/benchmarks/mask2former.py --threads 1
    python tools/benchmarks/mask2former.py --device cuda --batch 16
"""

import statistics
import time

import torch
from common import device_name, make_parser, rectangles, spread, versions
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from plain_mask2former import plain_losses, plain_targets

import vfm_ss  # noqa: F401


def parse_args():
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1, help="images per step")
    parser.add_argument("--size", type=int, default=512, help="image side in pixels")
    parser.add_argument("--classes", type=int, default=150, help="classes of the dataset")
    parser.add_argument("--targets", type=int, default=10, help="classes per image")
    parser.add_argument("--rounds", type=int, default=15, help="after one to warm up")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: CPU time of the process, for one thread on a machine that does other work too",
    )
    return parser.parse_args()


def our_loss(head, samples, logits):
    """Compute the loss as the head does."""
    return sum(head.loss_by_feat(logits, samples).values())


def plain_loss(head, samples, logits):
    """Compute the loss one prediction and one image at a time."""
    labels = torch.cat([sample.gt_sem_seg.data for sample in samples])
    losses = plain_losses(*logits, labels, head.loss_decode)
    return sum(head.loss_decode.weighted_sum(losses).values())


def transformers_loss(head, samples, logits):
    """Compute the loss one prediction at a time, with transformers' Mask2FormerLoss."""
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    ours = head.loss_decode
    config = Mask2FormerConfig(
        num_labels=head.num_classes,
        train_num_points=ours.num_points,
        no_object_weight=ours.no_object_weight,
        class_weight=ours.class_weight,
        mask_weight=ours.mask_weight,
        dice_weight=ours.dice_weight,
    )
    class_logits, mask_logits = logits
    criterion = Mask2FormerLoss(config, weight_dict={}).to(mask_logits.device)
    labels = torch.cat([sample.gt_sem_seg.data for sample in samples])
    masks, classes = plain_targets(labels, 255, mask_logits.dtype)
    total = 0
    for p in range(len(mask_logits)):
        losses = criterion(mask_logits[p], class_logits[p], masks, classes)
        total = total + config.class_weight * losses["loss_cross_entropy"]
        total = total + config.mask_weight * losses["loss_mask"]
        total = total + config.dice_weight * losses["loss_dice"]
    return total


def make_problem(args):
    """Make a head, samples and the logits that the head predicts from random features."""
    cells, device = args.size // 16, args.device
    head = dict(type="SingleScaleMask2FormerHead", in_channels=64, num_classes=args.classes)
    head = MODELS.build(head).to(device).train()
    with torch.no_grad():
        logits = head([torch.randn(args.batch, 64, cells, cells, device=device)])
    samples = []
    for _ in range(args.batch):
        label = rectangles(torch.randperm(args.classes)[: args.targets], args.size, args.size)
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=label.to(device))))
    return head, samples, logits


def main():
    """Measure and print."""
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    head, samples, outputs = make_problem(args)
    sides = {"ours": our_loss, "plain": plain_loss, "transformers": transformers_loss}
    try:
        import transformers  # noqa: F401
    except ImportError:
        del sides["transformers"]

    def now():
        if args.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.process_time() if args.clock == "cpu" else time.perf_counter()

    times = {name: [] for name in sides}
    for _ in range(args.rounds + 1):
        for name, loss in sides.items():
            logits = [values.detach().requires_grad_() for values in outputs]
            start = now()
            loss(head, samples, logits).backward()
            times[name].append(now() - start)
    print(
        f"{device_name()}; {versions()}; {args.size}x{args.size}, {args.batch} image(s), "
        f"{args.targets} targets each, fp32, {args.rounds} rounds, {args.clock} time\n\n"
        "| matching and losses | ms | ratio to ours (smallest-largest) |\n|---|---|---|"
    )
    for name, seconds in times.items():
        ratios = [one / ours for one, ours in zip(seconds[1:], times["ours"][1:], strict=True)]
        print(f"| {name} | {1e3 * statistics.median(seconds[1:]):.0f} | {spread(ratios)} |")


if __name__ == "__main__":
    main()
