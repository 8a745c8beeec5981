"""How long ranking and status take with many run folders, deep folders and a long history.

    python tools/benchmarks/many_runs.py --runs 100000 --folder /dev/shm/runs

Every run has the record of a real config (its whole identity, 150 class IoUs, eight validations), a
journal and a log of mmengine. The scores are made up. The folder is removed at the end. Each
command is a process of its own; its time includes the start of Python.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from mmengine.config import Config

from vfm_ss.protocol.identity import config_hash, identity
from vfm_ss.protocol.records import Record
from vfm_ss.protocol.settings import SETTINGS, config_name
from vfm_ss.protocol.vfms import FAMILIES
from vfm_ss.sweep.journal import Attempt, Journal

ROOT = Path(__file__).resolve().parents[2]
CLASSES = [f"class number {k}" for k in range(150)]
LINE = "2026/11/21 10:00:00 - mmengine - INFO - Iter(train) [{0}/{0}]  lr: 1e-5  eta: 0:00:00\n"


def make_record(
    vfm: str, setting: str, seed: int, rng: np.random.Generator, history: int
) -> Record:
    """Make the record of a finished run."""
    s = SETTINGS[setting]
    ious = np.clip(rng.normal(45, 15, len(CLASSES)), 0, 100).round(2)
    miou = float(ious.mean())
    steps = np.linspace(1, s.data.steps * max(1, history // s.data.steps + 1), history).astype(int)
    scores = (miou - np.linspace(20, 0, history)).clip(0).round(4).tolist()
    scores[-1] = miou
    return Record(
        name=config_name(vfm, setting), vfm=vfm, size=s.size, patch=s.patch, decoder=s.decoder,
        train_dataset=s.data.train, eval_dataset=s.data.eval, seed=seed, status="finished",
        step=int(steps[-1]), max_steps=int(steps[-1]), miou=miou, best_miou=max(scores),
        iou=dict(zip(CLASSES, ious.tolist(), strict=True)),
        history=[list(row) for row in zip(steps.tolist(), scores, strict=True)],
        train_seconds=3600.0, step_seconds=0.1, trainable_params=86_000_000,
        total_params=87_000_000, device="made up", world_size=1, micro_batch=16,
        effective_batch=16, versions={"torch": "2.12.1"},
    )  # fmt: skip


def write_runs(folder: Path, runs: int) -> None:
    """Write so many run folders: the paper's VFMs under all settings, with the seeds it takes."""
    rng = np.random.default_rng(0)
    cells = [(v, s) for s in SETTINGS for v in FAMILIES["paper"]]
    configs = {}
    for vfm, setting in cells:
        name = config_name(vfm, setting)
        config = identity(Config.fromfile(ROOT / "configs" / "vfm" / f"{name}.py"))
        configs[name] = {"config": config, "config_hash": config_hash(config)}
    for i in range(runs):
        seed, cell = divmod(i, len(cells))
        record = make_record(*cells[cell], seed, rng, 8)
        run = folder / record.name / f"seed{seed}"
        log = run / "20261121_100000" / "20261121_100000.log"
        (log.parent / "vis_data").mkdir(parents=True)
        (run / "record.json").write_text(json.dumps(vars(record) | configs[record.name], indent=1))
        attempts = [asdict(Attempt("a", 1.0, "finished", 1))]
        journal = Journal(record.name, seed, attempts=attempts)
        (run / "sweep.json").write_text(json.dumps(asdict(journal)))
        log.write_text(LINE.format(record.step))


def nest(folder: Path, depth: int) -> None:
    """Make folders in each other, with a run in the first."""
    write_runs(folder, 1)
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        here, above = os.open("d", os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(here)


def write_history(folder: Path, size: int) -> None:
    """Write a run whose history alone makes so many bytes."""
    record = make_record("mae", "default", 0, np.random.default_rng(0), size // 19)
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "record.json").write_text(json.dumps(asdict(record)))


def measure(*command: str) -> str:
    """Run a command and say how long it took and how much memory."""
    start = time.perf_counter()
    code = (
        "import resource, sys; from vfm_ss.cli.main import main; status = main(sys.argv[1:]); "
        "used = resource.getrusage(resource.RUSAGE_SELF); "
        "print(status, used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(done.stderr)
    status, cpu, kib = done.stderr.split()[-3:]
    return (
        f"{seconds:6.1f} s, {float(cpu):6.1f} s of CPU, {int(kib) / 1024:5.0f} MiB, status {status}"
    )


def main() -> None:
    """Write the folders, run both commands on each, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--depth", type=int, default=1800)
    parser.add_argument("--history-mb", type=int, default=15)
    parser.add_argument("--folder", type=Path, required=True, help="must not exist")
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    try:
        kinds = {
            f"{args.runs} runs": lambda f: write_runs(f, args.runs),
            f"{args.depth} folders deep": lambda f: nest(f, args.depth),
            f"a history of {args.history_mb} MB": lambda f: write_history(
                f, args.history_mb * 10**6
            ),
        }
        for name, make in kinds.items():
            folder = args.folder / name.replace(" ", "_")
            folder.mkdir()
            make(folder)
            print(f"{name}: rank    {measure('rank', str(folder))}", flush=True)
            print(f"{name}: status  {measure('sweep', 'status', str(folder))}", flush=True)
    finally:
        subprocess.run(["rm", "-rf", args.folder], check=True)  # shutil's is recursive


if __name__ == "__main__":
    main()
