#!/usr/bin/env python
"""Train for an hour, with validation and checkpoints, and see whether memory and step time stay.

    export PYTHONPATH=projects/demo CONFIG=projects/demo/configs/tiny-vit_t8_linear_demoscenes.py
    python tools/benchmarks/long_run.py $CONFIG --minutes 60

Prints a row for each tenth of the time. Memory is the resident set of the process and of its
dataloader workers. CPU time is that of the training process alone: it does not grow because other
jobs share the cores.
"""

import argparse
import itertools
import statistics
import tempfile
import time

import psutil
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

import vfm_ss  # noqa: F401  (registers the modules)

PERIODS = 10


class Watch(Hook):
    """Note time and memory after every step, and stop when the time is over.

    Args:
        seconds: How long to train.
    """

    priority = "LOWEST"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.rows: list[tuple[float, float, float, float]] = []
        self.validations: list[float] = []
        self.process = psutil.Process()

    def before_train(self, runner) -> None:
        """Start the clock."""
        self.start = time.monotonic()

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Start a step."""
        self.wall, self.cpu = time.monotonic(), time.process_time()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Note a step."""
        now = time.monotonic()
        self.rows.append(
            (now - self.start, now - self.wall, time.process_time() - self.cpu, self.memory())
        )
        if now - self.start > self.seconds:
            runner.train_loop.stop_training = True

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Note a validation."""
        self.validations.append(time.monotonic() - self.start)

    def memory(self) -> float:
        """Return the resident MiB of this process and its workers."""
        processes = [self.process, *self.process.children(recursive=True)]
        return sum(process.memory_info().rss for process in processes) / 2**20

    def report(self) -> str:
        """Return the table of the periods."""
        lines = [
            "| until | steps | validations | CPU per step | wall per step | memory, median (max) |"
        ]
        lines.append("|---|---|---|---|---|---|")
        end = self.rows[-1][0]
        period = [min(int(PERIODS * at / end), PERIODS - 1) for at, *_ in self.rows]
        validations = [min(int(PERIODS * at / end), PERIODS - 1) for at in self.validations]
        for k, group in itertools.groupby(zip(period, self.rows, strict=True), lambda x: x[0]):
            rows = [row for _, row in group]
            walls, cpus, memories = ([row[i] for row in rows] for i in (1, 2, 3))
            lines.append(
                f"| {rows[-1][0] / 60:.1f} min | {len(rows)} | {validations.count(k)} "
                f"| {1e3 * statistics.median(cpus):.0f} ms "
                f"| {1e3 * statistics.median(walls):.0f} ms "
                f"| {statistics.median(memories):.0f} ({max(memories):.0f}) MiB |"
            )
        return "\n".join(lines)


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--val-interval", type=int, default=50, help="optimiser steps")
    parser.add_argument("--checkpoint-interval", type=int, default=25, help="optimiser steps")
    parser.add_argument("--workers", type=int, default=1, help="of the training dataloader")
    args = parser.parse_args()
    cfg = Config.fromfile(args.config)
    # The schedule of a long run: the time ends it.
    cfg.train_cfg.max_iters = 1_000_000
    cfg.train_cfg.val_interval = args.val_interval
    cfg.default_hooks.checkpoint.interval = args.checkpoint_interval
    cfg.train_dataloader.num_workers = args.workers
    cfg.train_dataloader.persistent_workers = args.workers > 0
    watch = Watch(60 * args.minutes)
    with tempfile.TemporaryDirectory() as work_dir:
        cfg.work_dir = work_dir
        runner = Runner.from_cfg(cfg)
        runner.register_hook(watch)
        runner.train()
        print(watch.report())


if __name__ == "__main__":
    main()
