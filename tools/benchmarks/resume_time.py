#!/usr/bin/env python
"""Time a resume early and late in a run: from starting training to the end of the first step.

A run of 40,000 steps of the demo is stopped at step 20. A copy of its checkpoint says that it is of
step 20,000. Both are resumed in turn, in processes that have imported everything already.
"""

import argparse
import os
import re
import shutil
import signal
import statistics
import tempfile
import time
from pathlib import Path

import torch
from kill_resume import make_demo_scenes, options, start

from vfm_ss.checkpoint_reader import read

STEPS, EARLY, LATE = 40_000, 20, 20_000


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    return parser.parse_args()


def train_until(cfg: dict, work_dir: Path, sign: str) -> float:
    """Train until the log or a file name shows `sign`, kill, and return the seconds it took."""
    begin = time.perf_counter()
    group = start(cfg, work_dir)
    log = work_dir / "log_0.txt"
    while not ((work_dir / sign).exists() or (log.exists() and re.search(sign, log.read_text()))):
        if os.waitpid(group, os.WNOHANG)[0]:
            raise RuntimeError(log.read_text()[-2000:])
        time.sleep(0.005)
    seconds = time.perf_counter() - begin
    os.killpg(group, signal.SIGKILL)
    os.waitpid(group, 0)
    return seconds


def main() -> None:
    """Measure and print."""
    args = parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_demo_scenes(folder / "data", num_train=24, num_val=4)
        cfg = options(STEPS, 0, folder / "data")
        cfg["train_cfg.val_interval"] = STEPS
        cfg["default_hooks.checkpoint.interval"] = EARLY
        train_until(cfg, folder / "run", f"iter_{EARLY}.pth")
        checkpoint = read(folder / "run" / f"iter_{EARLY}.pth")
        checkpoint["meta"]["iter"] = LATE
        torch.save(checkpoint, folder / f"iter_{LATE}.pth")
        shutil.copy(folder / "run" / f"iter_{EARLY}.pth", folder)
        for workers in args.workers:
            cfg["train_dataloader.num_workers"] = workers
            cfg["train_dataloader.persistent_workers"] = workers > 0
            times: dict[int, list[float]] = {EARLY: [], LATE: []}
            for _ in range(args.rounds):
                for step, found in times.items():
                    work_dir = folder / "resumed"
                    shutil.rmtree(work_dir, ignore_errors=True)
                    work_dir.mkdir()
                    shutil.copy(folder / f"iter_{step}.pth", work_dir)
                    sign = rf"Iter\(train\) \[ *{step + 1}/{STEPS}\]"
                    found.append(train_until(cfg, work_dir, sign))
            for step, found in times.items():
                print(
                    f"{workers} worker(s), resumed at step {step}: median "
                    f"{statistics.median(found):.2f} s, {min(found):.2f} to {max(found):.2f}"
                )


if __name__ == "__main__":
    main()
