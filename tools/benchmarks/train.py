#!/usr/bin/env python
"""Time an optimiser step of a config: our recipe, the plain one and others, in turns.

    python tools/benchmarks/train.py configs/vfm/dinov2_b16_linear_ade20k.py
    python tools/benchmarks/train.py CONFIG --images 2 --rounds 5          # on a CPU
    python tools/benchmarks/train.py CONFIG --sides ours --precision bf16 --compile --batch 16
    python tools/benchmarks/train.py CONFIG --sides ours mask2former

`ours` is the config as it trains. `plain` has micro-batches of one image, mmseg's own loss of all
logits at full size (with its training accuracy), mmseg's data preprocessor, one parameter group for
each parameter, torch's loop over parameters in the optimiser, and timm's own attention. `probe` is
ours with a frozen encoder, `mask2former` ours with that head. Each side is a process of its own, so
that its peak memory is its own; one step at a time runs. Weights and images are random: no result
is about a VFM.

Shares of the peak are of what this machine does in a matrix product of the same precision and in a
copy, measured first. `--images N` times steps of N images; the projected step of 16 adds up 16/N
times what grows with images, and the optimiser once. `--loader N` times N batches of the config's
own dataloader instead, the data it needs included.
"""

import argparse
import itertools
import multiprocessing
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from common import device_name, make_parser, spread, versions

PARTS = ("data", "forward", "loss", "backward", "optimiser")
SIDES = ("ours", "plain", "probe", "mask2former")


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("config")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES[:3]))
    parser.add_argument("--batch", default="auto", help="our micro-batch, or auto")
    parser.add_argument("--images", type=int, default=16, help="images of a measured step")
    parser.add_argument("--rounds", type=int, default=5, help="measured steps, after one")
    parser.add_argument("--compile", action="store_true", help="compile our backbone")
    parser.add_argument("--checkpointing", action="store_true", help="our backbone with_cp=True")
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16", "fp16"],
        default="auto",
        help="of all sides; auto is fp16 on a GPU, fp32 on a CPU",
    )
    parser.add_argument("--loader", type=int, metavar="N", help="time N batches of the dataloader")
    return parser.parse_args()


@dataclass
class Report:
    """What a side says of itself.

    Attributes:
        micro_batch: Images of a forward pass.
        precision: As in records.
        machine: Device and versions.
        matmul: FLOP/s of a matrix product in this precision.
        copy: Bytes/s of a copy, read and written.
        flops: FLOP that a step needs.
        optimiser_bytes: Bytes that the optimiser's step needs.
        state_bytes: Bytes of weights, gradients and optimiser state.
        base_bytes: Memory of the process before the model was built.
        kept_bytes: Bytes that autograd keeps of one image between forward and backward.
    """

    micro_batch: int = 1
    precision: str = "fp32"
    machine: str = ""
    matmul: float = 0.0
    copy: float = 0.0
    flops: float = 0.0
    optimiser_bytes: int = 0
    state_bytes: int = 0
    base_bytes: int = 0
    kept_bytes: int = 0


def make_step(name: str, args: argparse.Namespace):
    """Build a side in this process."""
    if args.threads:
        torch.set_num_threads(args.threads)
    from training_step import Step

    return Step(name, args)


def describe(name: str, args: argparse.Namespace) -> Report:
    """Measure what a side needs and what the machine can do."""
    step = make_step(name, args)
    return step.report(Report(machine=f"{device_name()}; {versions()}"))


def serve(name: str, args: argparse.Namespace, pipe) -> None:
    """Be a side: build it, then make a step for every message."""
    step = make_step(name, args)
    step()
    pipe.send((step.micro_batch, step.base_bytes))
    while pipe.recv():
        times = step()
        pipe.send((times, step.peak_bytes()))


def measure(args: argparse.Namespace) -> tuple[dict, dict]:
    """Run the sides in turns; return their reports, and (times of parts, peak bytes) per round."""
    context = multiprocessing.get_context("spawn")
    pipes, reports, processes = {}, {}, []
    # The plain side first: on a GPU, ours takes what memory is left.
    for name in sorted(args.sides, key=lambda side: side != "plain"):
        # In a process of its own: what this takes must not count as the step's memory.
        with context.Pool(1) as pool:
            reports[name] = pool.apply(describe, (name, args))
        pipes[name], theirs = context.Pipe()
        process = context.Process(target=serve, args=(name, args, theirs), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        reports[name].micro_batch, reports[name].base_bytes = pipes[name].recv()
    rounds = {name: [] for name in pipes}
    for turn in range(args.rounds):
        order = list(pipes) if turn % 2 else list(pipes)[::-1]
        for name in order:
            pipes[name].send(True)
            rounds[name].append(pipes[name].recv())
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(False)
        process.join()
    return reports, rounds


def print_report(args: argparse.Namespace, reports: dict, rounds: dict) -> None:
    """Print floors, the table of the sides, and their ratios."""
    first = next(iter(reports.values()))
    matmul, copy = (max(getattr(r, name) for r in reports.values()) for name in ("matmul", "copy"))
    print(f"{Path(args.config).stem}: {first.machine}")
    print(
        f"measured peaks: matrix product {matmul / 1e12:.3f} TFLOP/s in {first.precision}, "
        f"copy {copy / 1e9:.1f} GB/s; steps of {args.images} images, {args.rounds} rounds, "
        "synthetic images; median (smallest-largest)\n"
    )
    header = ["side", "micro-batch", "step s", "images/s", "share of peak", "MiB beyond state"]
    header += ["MiB kept per image"]
    print("| " + " | ".join([*header, *(f"{part} s" for part in PARTS)]) + " |")
    print("|" + "---|" * (len(header) + len(PARTS)))
    totals, extra = {}, {}
    for name, measured in rounds.items():
        report = reports[name]
        steps = [times for times, _ in measured]
        totals[name] = [sum(times.values()) for times in steps]
        extra[name] = max(peak for _, peak in measured) - report.state_bytes - report.base_bytes
        middle = statistics.median(totals[name])
        cells = [
            name,
            report.micro_batch,
            spread(totals[name]),
            f"{args.images / middle:.2f}",
            f"{report.flops / middle / matmul:.0%}",
            f"{extra[name] / 2**20:.0f}",
            f"{report.kept_bytes / 2**20:.0f}",
            *(f"{statistics.median(times[part] for times in steps):.3f}" for part in PARTS),
        ]
        print("| " + " | ".join(map(str, cells)) + " |")
    print()
    for name, report in reports.items():
        steps = [times for times, _ in rounds[name]]
        optimiser = statistics.median(times["optimiser"] for times in steps)
        rest = statistics.median(sum(times.values()) - times["optimiser"] for times in steps)
        print(
            f"{name}: floor {report.flops / matmul:.2f} s for {report.flops / 1e12:.2f} "
            f"TFLOP, and {report.optimiser_bytes / copy * 1e3:.0f} ms for the "
            f"{report.optimiser_bytes / 1e9:.2f} GB of the optimiser; projected step of 16 images "
            f"{rest * 16 / args.images + optimiser:.2f} s, 40k steps "
            f"{(rest * 16 / args.images + optimiser) * 40000 / 3600:.1f} h"
        )
    for one, other in itertools.combinations(SIDES, 2):
        if one in totals and other in totals:
            ratios = [b / a for a, b in zip(totals[one], totals[other], strict=True)]
            print(
                f"{other} / {one}: time {spread(ratios)}, "
                f"memory {extra[other] / max(extra[one], 1):.2f}"
            )


def time_loader(args: argparse.Namespace) -> None:
    """Time batches of the config's dataloader."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    import vfm_ss  # noqa: F401

    init_default_scope("mmseg")
    cfg = Config.fromfile(args.config).train_dataloader
    batches = iter(Runner.build_dataloader(cfg, seed=0))
    for _ in range(3):
        next(batches)
    start = time.perf_counter()
    for _ in range(args.loader):
        next(batches)
    seconds = time.perf_counter() - start
    print(
        f"{args.loader * cfg.batch_size / seconds:.1f} images/s from {cfg.num_workers} workers, "
        f"{args.loader} batches of {cfg.batch_size}"
    )


def main() -> None:
    """Measure and print."""
    args = parse_args()
    if args.loader:
        time_loader(args)
    else:
        print_report(args, *measure(args))


if __name__ == "__main__":
    main()
