#!/usr/bin/env python
"""Measure each special case for CPUs alone: the same work with all of them, and without one.

    OMP_NUM_THREADS=1 python tools/benchmarks/cpu_tricks.py train CONFIG --without malloc gradients
    OMP_NUM_THREADS=1 python tools/benchmarks/cpu_tricks.py train CONFIG --mask2former \
        --without uniform compare
    OMP_NUM_THREADS=1 python tools/benchmarks/cpu_tricks.py val CONFIG --without argmax
    OMP_NUM_THREADS=1 python tools/benchmarks/cpu_tricks.py loss CONFIG --without uniform compare

`train` is an optimiser step of the config, `val` one image of 4:3 from its pixels to its counts,
`windows` the same without the network, `loss` Mask2Former's matching and losses with their
gradients for one image of the config's size with ten classes. Weights and images are random. Each
side is a process of its own (its memory is its own) and they take turns. Printed are ratios within
a round, "without" by "with": of the CPU time that the process used, kernel included, and of wall
time; and peak memory beyond the process's before the model was built.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from types import SimpleNamespace


def _without_gradients(early_only: bool) -> None:
    from vfm_ss.engine import optim_wrapper

    init = optim_wrapper._OptimWrapper.__init__

    def patched(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self._keeps = early_only
        for parameter in self._trained():
            parameter.grad = None

    optim_wrapper._OptimWrapper.__init__ = patched


def _without_uniform() -> None:
    from vfm_ss.models.losses import mask2former_loss, mask2former_points

    def uniform_points(shape, like, generator):
        return like.new_empty((*shape, 2)).uniform_(-1, 1, generator=generator)

    mask2former_points.uniform_points = mask2former_loss.uniform_points = uniform_points


def _without_bits(compare: bool, pairs: bool) -> None:
    import torch

    from vfm_ss.models.losses import mask2former_loss
    from vfm_ss.models.losses import mask2former_points as points_module

    @torch.no_grad()
    def uncertain_points(mask_logits, num_points, oversample, importance, generator):
        num_candidates, num_uncertain = int(num_points * oversample), int(num_points * importance)
        points = mask_logits.new_empty(len(mask_logits), num_points, 2)
        complex_points = torch.view_as_complex(points)
        for rows in points_module.chunks(len(mask_logits), num_candidates, mask_logits.device):
            masks = mask_logits[rows]
            candidates = points_module.uniform_points(
                (len(masks), num_candidates), masks, generator
            )
            certainty = points_module.sample_masks(masks, candidates).abs_()
            certainty = certainty if compare else certainty.view(torch.int32)
            chosen = certainty.topk(num_uncertain, dim=1, largest=False, sorted=False).indices
            if pairs:
                index = chosen[..., None].expand(-1, -1, 2)
                points[rows, :num_uncertain] = candidates.gather(1, index)
            else:
                complex_points[rows, :num_uncertain] = torch.view_as_complex(candidates).gather(
                    1, chosen
                )
            points[rows, num_uncertain:] = points_module.uniform_points(
                (len(masks), num_points - num_uncertain), masks, generator
            )
        return points

    mask2former_loss.uncertain_points = uncertain_points


def _without_chunks() -> None:
    from vfm_ss.models.losses import mask2former_points

    mask2former_points._CPU_SAMPLES = mask2former_points._DEVICE_SAMPLES


def _without_table() -> None:
    import torch
    import torch.nn.functional as F

    from vfm_ss.models.losses import mask2former_matching
    from vfm_ss.models.losses.mask2former_points import chunks

    class SharedPoints:
        def __init__(self, points, height, width):
            self.points, self.shape = points, (height, width)

        def _read(self, masks, points):
            return F.grid_sample(masks[None], points[None, None], align_corners=False)[0, :, 0]

        def sample(self, masks):
            for some in chunks(len(self.points), len(masks), masks.device):
                yield some, self._read(masks, self.points[some]).T.contiguous()

        def spread(self, values):
            with torch.enable_grad():
                masks = values.new_zeros(len(values), *self.shape, requires_grad=True)
                read = self._read(masks, self.points)
                return torch.autograd.grad(read, masks, values)[0].flatten(1)

    mask2former_matching.SharedPoints = SharedPoints


def _without_packing() -> None:
    import torch
    import torch.nn.functional as F

    from vfm_ss.models.losses import mask2former_loss

    class LabelSampler:
        def __init__(self, labels):
            self.height, self.width = labels.shape
            self.labels = F.pad(labels, (1, 1, 1, 1), value=-1).flatten()

        def sample(self, points, classes):
            x = (points[..., 0] + 1) * (self.width / 2) + 0.5
            y = (points[..., 1] + 1) * (self.height / 2) + 0.5
            column, row = x.long(), y.long()
            x, y = x - column, y - row
            cell = row * (self.width + 2) + column
            corners = [
                (self.labels[cell + step] == classes[:, None]).to(points.dtype)
                for step in (0, 1, self.width + 2, self.width + 3)
            ]
            top, bottom = torch.lerp(*corners[:2], x), torch.lerp(*corners[2:], x)
            return torch.lerp(top, bottom, y)

    mask2former_loss.LabelSampler = LabelSampler


def _without_argmax() -> None:
    from vfm_ss.models.segmentors import sliding_window

    sliding_window._argmax = lambda tile: tile.argmax(-1)


def _without_window_tiles() -> None:
    from vfm_ss.models.segmentors import sliding_window

    sliding_window.CPU_TILE = sliding_window.GPU_TILE


def _without_loss_tiles() -> None:
    from vfm_ss.models.losses import tiled_cross_entropy

    tiled_cross_entropy.CPU_TILE = tiled_cross_entropy.GPU_TILE


def _without_bincount() -> None:
    import torch

    from vfm_ss.evaluation import miou

    def histogram(cell, size):
        counts = torch.zeros(size, dtype=torch.int64, device=cell.device)
        return counts.scatter_add_(0, cell, torch.ones_like(cell))

    miou._histogram = histogram


WITHOUT = {
    "malloc": lambda: None,  # see `Work`
    "gradients": lambda: _without_gradients(early_only=False),
    "early": lambda: _without_gradients(early_only=True),
    "uniform": _without_uniform,
    "compare": lambda: _without_bits(compare=True, pairs=False),
    "pairs": lambda: _without_bits(compare=False, pairs=True),
    "bits": lambda: (_without_uniform(), _without_bits(compare=True, pairs=True)),
    "chunks": _without_chunks,
    "table": _without_table,
    "packing": _without_packing,
    "argmax": _without_argmax,
    "window-tiles": _without_window_tiles,
    "loss-tiles": _without_loss_tiles,
    "bincount": _without_bincount,
}


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", choices=["train", "val", "windows", "loss"])
    parser.add_argument("config")
    parser.add_argument("--without", nargs="+", choices=WITHOUT, required=True)
    parser.add_argument("--mask2former", action="store_true", help="with Mask2Former's head")
    parser.add_argument("--images", type=int, default=1, help="images of an optimiser step")
    parser.add_argument("--rounds", type=int, default=20, help="measured turns, after one")
    parser.add_argument("--verbose", action="store_true", help="print every turn")
    parser.add_argument("--repeat", type=int, default=1, help="pieces of work in a turn")
    return parser.parse_args()


class Work:
    """What a side does in its turn."""

    def __init__(self, side: str, args: argparse.Namespace):
        import torch
        from mmengine.config import Config
        from mmengine.logging import MMLogger
        from mmengine.registry import init_default_scope
        from training_step import Step

        import vfm_ss  # noqa: F401
        from vfm_ss.engine.memory import keep_freed_memory

        torch.set_num_threads(1)
        torch.manual_seed(0)
        if side != "malloc":
            keep_freed_memory()
        if side != "ours":
            WITHOUT[side]()
        init_default_scope("mmseg")
        MMLogger.get_instance("mmengine", log_level="ERROR")
        self.repeat = args.repeat
        cfg = Config.fromfile(args.config)
        cfg.model.backbone.pretrained = False
        if args.mask2former:
            classes = cfg.model.decode_head.num_classes
            cfg.model.decode_head = dict(type="SingleScaleMask2FormerHead", num_classes=classes)
        self.base = peak()
        if args.work == "train":
            options = dict(
                keep_memory=side != "malloc",
                images=args.images,
                batch="auto",
                precision="auto",
                compile=False,
            )
            self.run = Step("ours", SimpleNamespace(config=cfg, checkpointing=False, **options))
        else:
            works = {"val": validation, "windows": windows, "loss": mask2former_loss}
            self.run = works[args.work](cfg)

    def __call__(self) -> tuple[float, float, float, float, int]:
        """Return CPU and wall seconds, peak MiB so far, kernel seconds and page faults."""
        before = resource.getrusage(resource.RUSAGE_SELF)
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(self.repeat):
            self.run()
        seconds = time.process_time() - cpu, time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_SELF)
        kernel = after.ru_stime - before.ru_stime
        faults = after.ru_minflt - before.ru_minflt
        return (*seconds, (peak() - self.base) / 2**10, kernel, faults)


def peak() -> int:
    """Return the peak memory of this process in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def windows(cfg):
    """Return a function that merges the windows of one image and counts its pixels."""
    cfg.model.backbone.update(depth=1)
    return validation(cfg, canned=True)


def validation(cfg, canned: bool = False):
    """Return a function that predicts one image and counts its pixels.

    Args:
        cfg: Config of the model.
        canned: Whether logits are computed once, and taken for every window from then on.
    """
    import torch
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    from vfm_ss.evaluation import MeanIoUMetric

    model = MODELS.build(cfg.model).eval()
    if canned:
        network, kept = model._window_logits, []
        model._window_logits = lambda images: (kept or kept.append(network(images)) or kept)[0]
    classes = model.decode_head.num_classes
    metric = MeanIoUMetric()
    metric.dataset_meta = dict(classes=list(range(classes)))
    height = model.backbone.img_size[0]
    size = height, height * 4 // 3
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    label = torch.randint(0, classes, (1, *size))

    def run():
        sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size))
        sample.gt_sem_seg = PixelData(data=label)
        with torch.no_grad():
            outputs = model.val_step({"inputs": [image], "data_samples": [sample]})
        metric.process({}, [output.to_dict() for output in outputs])

    return run


def mask2former_loss(cfg):
    """Return a function that computes Mask2Former's losses and gradients of random logits."""
    import torch
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    size, patch = cfg.crop_size[0], cfg.model.backbone.patch_size
    classes = cfg.model.decode_head.num_classes
    head = MODELS.build(
        dict(type="SingleScaleMask2FormerHead", in_channels=64, num_classes=classes)
    )
    with torch.no_grad():
        outputs = head([torch.randn(1, 64, size // patch, size // patch)])
    present = torch.randperm(classes)[:10]
    cells = present[torch.randint(len(present), (8, 8))]
    labels = cells.repeat_interleave(size // 8, 0).repeat_interleave(size // 8, 1)
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels[None]))

    def run():
        logits = [values.detach().requires_grad_() for values in outputs]
        sum(head.loss_by_feat(logits, [sample]).values()).backward()

    return run


def serve(side: str, args: argparse.Namespace, pipe) -> None:
    """Be a side: work once for every message."""
    work = Work(side, args)
    pipe.send(True)
    while pipe.recv():
        pipe.send(work())


def measure(args: argparse.Namespace) -> dict[str, list[tuple]]:
    """Let the sides take turns; return what each turn took."""
    context = multiprocessing.get_context("fork")  # imports are made once
    pipes, processes = {}, []
    for side in ("ours", *args.without):
        pipes[side], theirs = context.Pipe()
        process = context.Process(target=serve, args=(side, args, theirs), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        pipes[side].recv()
    turns = {side: [] for side in pipes}
    for turn in range(args.rounds + 1):
        for side in list(pipes)[:: 1 if turn % 2 else -1]:
            pipes[side].send(True)
            turns[side].append(pipes[side].recv())
            if args.verbose:
                print(turn, side, *(f"{value:.2f}" for value in turns[side][-1]), flush=True)
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(False)
        process.join()
    return {side: measured[1:] for side, measured in turns.items()}


def quartiles(values: list[float]) -> str:
    """Format the median with the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def main() -> None:
    """Measure and print."""
    args = parse_args()
    import training_step  # noqa: F401

    turns = measure(args)
    ours = turns.pop("ours")
    print(f"{args.work} {args.config}{' Mask2Former' * args.mask2former}, {args.rounds} rounds")
    print(
        f"with all: CPU {statistics.median(t[0] for t in ours) / args.repeat * 1e3:.1f} ms, wall "
        f"{statistics.median(t[1] for t in ours) / args.repeat * 1e3:.1f} ms, peak "
        f"{ours[-1][2]:.0f} MiB"
    )
    print("| without | CPU time | wall time | peak MiB | ratio |\n|---|---|---|---|---|")
    for side, measured in turns.items():
        cpu, wall = (
            quartiles([a[k] / b[k] for a, b in zip(measured, ours, strict=True)]) for k in (0, 1)
        )
        memory = measured[-1][2]
        print(f"| {side} | {cpu} | {wall} | {memory:.0f} | {memory / ours[-1][2]:.2f} |")


if __name__ == "__main__":
    main()
