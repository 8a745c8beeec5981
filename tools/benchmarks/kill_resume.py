#!/usr/bin/env python
"""Kill runs of the demo with SIGKILL, resume them, and compare what they end with, bit for bit.

Every scenario is trained once without interruption. Then it is killed at random moments and, as
targets, in the middle of writing a checkpoint, before the finished file gets its name, before
``last_checkpoint`` is renewed, and with the newest checkpoint cut in half. Prints one line for each
kill; the exit status is 1 if any resumed run ends with other weights, optimiser state, best
checkpoint, losses, history or mIoU.
"""

import argparse
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch

from vfm_ss.checkpoint_reader import read
from vfm_ss.engine import launch

DEMO = Path(__file__).resolve().parents[2] / "projects" / "demo"
sys.path.append(str(DEMO))

from demo_scenes import make_demo_scenes  # noqa: E402  in the folder just added

CONFIG = DEMO / "configs" / "tiny-vit_t8_linear_demoscenes.py"
TARGETS = ("half written", "before the rename", "after the rename", "damaged")


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5, help="random kills in each scenario")
    parser.add_argument("--targets", nargs="*", choices=TARGETS, default=TARGETS)
    parser.add_argument("--steps", type=int, default=12, help="optimiser steps of a run")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    return parser.parse_args()


def options(steps: int, workers: int, data: Path) -> dict:
    """Return the overrides of the demo's config: small, dropping units, saving at every step."""
    loader = {"num_workers": workers, "persistent_workers": workers > 0}
    found = {
        "train_cfg.max_iters": steps,
        "train_cfg.val_interval": 3,
        "train_cfg.micro_batch": 4,
        "default_hooks.checkpoint.interval": 1,
        "default_hooks.logger.interval": 1,
        "model.backbone.depth": 2,
        "model.backbone.embed_dim": 64,
        "model.backbone.drop_path_rate": 0.3,
        "model.backbone.proj_drop_rate": 0.1,
        **{f"train_dataloader.{key}": value for key, value in loader.items()},
    }
    for name in ("train", "val", "test"):
        found[f"{name}_dataloader.dataset.data_root"] = str(data)
    return found


def start(cfg_options: dict, work_dir: Path, processes: int = 1, target: str | None = None) -> int:
    """Train, or resume, in new processes; return the id of their process group."""
    port = free_port()
    leader = os.fork()
    if leader:
        return leader
    status = 1
    try:
        os.setpgid(0, 0)
        rank = 0
        children = []
        for other in range(1, processes):
            child = os.fork()
            if child == 0:
                rank, children = other, []
                break
            children.append(child)
        work_dir.mkdir(parents=True, exist_ok=True)
        log = open(work_dir / f"log_{rank}.txt", "a", buffering=1)  # noqa: SIM115  ends with us
        with redirect_stdout(log), redirect_stderr(log):
            if target and rank == 0:
                aim(target, step=cfg_options["train_cfg.max_iters"] // 2)
            if processes > 1:
                os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes))
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            train(cfg_options, work_dir, "pytorch" if processes > 1 else "none")
        for child in children:
            os.waitpid(child, 0)
        status = 0
    finally:
        os._exit(status)


def train(cfg_options: dict, work_dir: Path, launcher: str) -> None:
    """Do what tools/train.py --resume does."""
    launch.train(str(CONFIG), cfg_options, work_dir=str(work_dir), launcher=launcher, resume="auto")


def aim(target: str, step: int) -> None:
    """Make this process group die while it writes the checkpoint of a step."""
    replace, name = os.replace, f"iter_{step}.pth"

    def replace_and_die(source, destination):
        if Path(destination).name == name:
            if target in ("half written", "damaged"):
                os.truncate(source, os.path.getsize(source) // 2)
            if target in ("after the rename", "damaged"):
                replace(source, destination)
            os.killpg(0, signal.SIGKILL)
        replace(source, destination)

    os.replace = replace_and_die


def wait(group: int, seconds: float | None = None) -> bool:
    """Wait for a run; kill it after some seconds. Returns whether it was killed."""
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(group, os.WNOHANG)
        if done:
            return os.WIFSIGNALED(status)
        if end is not None and time.monotonic() > end:
            os.killpg(group, signal.SIGKILL)
            os.waitpid(group, 0)
            return True
        time.sleep(0.002)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def outcome(work_dir: Path, steps: int) -> dict:
    """Return what a finished run leaves; times, which differ, and paths left out."""
    record = json.loads((work_dir / "record.json").read_text())
    last = read(work_dir / f"iter_{steps}.pth")
    (best,) = work_dir.glob("best_mIoU_iter_*.pth")
    return {
        "weights": last["state_dict"],
        "optimiser": last["optimizer"],
        "schedule": last["param_schedulers"],
        "losses": last["message_hub"]["log_scalars"]["train/loss"].data[0].tolist(),
        "best name": best.name,
        "best weights": read(best)["state_dict"],
        "files": sorted(path.name for path in work_dir.glob("*.pth")),
        "left behind": [path.name for path in work_dir.glob(".*")],
        "record": [
            record[key] for key in ("status", "step", "miou", "best_miou", "history", "iou")
        ],
    }


def differences(a, b, name: str = "") -> list[str]:
    """Name every part in which two outcomes differ in any bit."""
    if isinstance(a, torch.Tensor):
        same = a.dtype == b.dtype and torch.equal(a, b)
        return [] if same else [name]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [name]
        return [d for key in a for d in differences(a[key], b[key], f"{name} {key}".strip())]
    if isinstance(a, (list, tuple)) and len(a) == len(b):
        return [
            d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, name)
        ]
    return [] if a == b else [name]


def compare(folder: Path, cfg: dict, steps: int, processes: int, kill, whole: dict) -> list[str]:
    """Kill a run at one moment, resume it, and return how it differs from the whole one."""
    target, seconds = (kill, None) if isinstance(kill, str) else (None, kill)
    if not wait(start(cfg, folder, processes, target), seconds):
        return ["it was not killed"]
    wait(start(cfg, folder, processes))
    try:
        return differences(whole, outcome(folder, steps))
    except (FileNotFoundError, ValueError) as error:
        log = (folder / "log_0.txt").read_text().strip().splitlines()
        return [f"{error}; its log ends: {log[-1] if log else ''}"]


def main() -> int:
    """Run all scenarios."""
    args = parse_args()
    torch.set_num_threads(1)
    draw = random.Random(args.seed)
    good = total = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        data = folder / "data"
        make_demo_scenes(data, num_train=24, num_val=4)
        for processes in args.processes:
            for workers in args.workers:
                cfg = options(args.steps, workers, data)
                name = f"{processes} process(es), {workers} worker(s)"
                begin = time.monotonic()
                wait(start(cfg, folder / "whole", processes))
                seconds = time.monotonic() - begin
                whole = outcome(folder / "whole", args.steps)
                (folder / "whole").rename(folder / f"whole {name}")
                moments = [draw.uniform(0.05, 0.98) * seconds for _ in range(args.kills)]
                for kill in [*moments, *args.targets]:
                    work_dir = folder / f"{total}"
                    found = compare(work_dir, cfg, args.steps, processes, kill, whole)
                    total, good = total + 1, good + (not found)
                    when = kill if isinstance(kill, str) else f"{kill:.2f} of {seconds:.2f} s"
                    print(f"{name}, killed {when}: {', '.join(found) or 'identical'}", flush=True)
    print(f"{good} of {total} bit-identical")
    return int(good != total)


if __name__ == "__main__":
    sys.exit(main())
