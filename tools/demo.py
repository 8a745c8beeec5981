"""The benchmark in miniature: four tiny backbones, two settings, two seeds, ranked.

Call it again to go on with what was interrupted; finished runs are kept in work_dirs/demo.
"""

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from vfm_ss.benchmark.records import RECORD_NAME, Record, read_record
from vfm_ss.datasets.demo_scenes import constant_miou, make_demo_scenes

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data" / "demo_scenes"
WORK_DIR = ROOT / "work_dirs" / "demo"
MODELS = ("tiny-vit", "tiny-dinov2", "tiny-eva02", "tiny-sam")
SETTINGS = ("linear", "probe")
SEEDS = (0, 1)
_STEP = re.compile(r"Iter\(train\) \[\s*(\d+)/(\d+)\]")


@dataclass
class Run:
    """One training run in a process of its own."""

    model: str
    setting: str
    seed: int
    process: subprocess.Popen | None = None
    restarted: bool = False

    @property
    def config(self) -> str:
        """Name of its config."""
        return f"{self.model}_t8_{self.setting}_demoscenes"

    @property
    def work_dir(self) -> Path:
        """Folder of its record, checkpoint and log."""
        return WORK_DIR / self.config / f"seed{self.seed}"

    @property
    def log(self) -> Path:
        """What its process prints."""
        return self.work_dir / "train.log"

    def __str__(self) -> str:
        """Name it in messages."""
        return f"{self.model} {self.setting} seed {self.seed}"

    def record(self) -> Record | None:
        """Return its record, or None before it is finished."""
        path = self.work_dir / RECORD_NAME
        if not path.exists():
            return None
        record = read_record(path)
        return record if record.status == "finished" else None

    def start(self) -> None:
        """Start it, or go on from its checkpoint."""
        self.work_dir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "tools/train.py", f"configs/demo/{self.config}.py"]
        command += ["--seed", str(self.seed), "--work-dir", str(self.work_dir), "--resume"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},  # the runs share the cores instead
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def steps(self) -> tuple[int, int | None]:
        """Return the optimiser steps done and, once known, those of the whole run."""
        found = _STEP.findall(self.log.read_text(errors="replace"))
        return tuple(map(int, found[-1])) if found else (0, None)

    def last_line(self) -> str:
        """Return the last line of its log, where Python says what went wrong."""
        lines = self.log.read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")


def main() -> int:
    """Make the scenes, train, and print scores and ranking.

    Returns:
        Exit status.
    """
    args = parse_args()
    console = Console(highlight=False)
    try:
        make_demo_scenes(DATA)
        runs = [Run(m, s, seed) for m in MODELS for s in SETTINGS for seed in SEEDS]
        train([run for run in runs if run.record() is None], args.jobs, console)
        console.print(scores(runs, constant_miou(DATA / "annotations" / "validation")))
    except (OSError, RuntimeError, ValueError) as error:
        print(f"demo.py: error: {error}", file=sys.stderr)
        return 1
    console.print(
        "Random weights, synthetic scenes: these numbers say nothing about the real VFMs."
    )
    return rank()


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--jobs",
        type=int,
        default=min(os.cpu_count() or 1, 4),
        metavar="N",
        help="runs at a time, one thread and 1 GB each (default: %(default)s)",
    )
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error(f"--jobs must be 1 or more, got {args.jobs}")
    return args


def train(waiting: list[Run], jobs: int, console: Console) -> None:
    """Train all runs, some at a time; when one fails, stop the others.

    Raises:
        RuntimeError: If a run fails; names its log.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}"))
    total, waiting, running = len(waiting), list(waiting), {}
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        all_bar = progress.add_task(f"{total} runs", total=total, done="", visible=total > 0)
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    run.start()
                    running[run.config, run.seed] = run, progress.add_task(f"  {run}", done="")
                time.sleep(0.5)
                done = total - len(waiting)
                for key, (run, bar) in list(running.items()):
                    if run.process.poll() is not None and _has_ended(run):
                        del running[key]
                        progress.remove_task(bar)
                        progress.print(_summary(run))
                        continue
                    step, steps = run.steps()
                    progress.update(bar, completed=step, total=steps, done=f"step {step}")
                    done -= 1 - step / (steps or 1)
                progress.update(all_bar, completed=done, done=f"{total - len(waiting)} started")
        finally:
            for run, _ in running.values():
                run.process.terminate()
                run.process.wait()


def _has_ended(run: Run) -> bool:
    """Whether a run whose process has ended is finished; if not, it has been started again.

    Raises:
        RuntimeError: If its process failed.
    """
    if run.record() is not None:
        return True
    if run.process.returncode or run.restarted:
        raise RuntimeError(
            f"{run} failed with exit status {run.process.returncode}: {run.last_line()}; "
            f"see {run.log.relative_to(ROOT)}"
        )
    # Interrupted between its last checkpoint and its last validation, it had nothing left to do.
    shutil.rmtree(run.work_dir)
    run.restarted = True
    run.start()
    return False


def _summary(run: Run) -> str:
    record = run.record()
    return f"{run}: mIoU {record.miou:.1f} after {record.step} steps, {record.train_seconds:.0f} s"


def scores(runs: list[Run], constant: float) -> Table:
    """Return the table of all scores beside that of the constant prediction."""
    table = Table(title="mIoU in percent, mean ± standard deviation over the seeds")
    table.add_column("model")
    for setting in SETTINGS:
        table.add_column(setting, justify="right")
    table.add_column("most frequent class everywhere", justify="right")
    for model in MODELS:
        cells = []
        for setting in SETTINGS:
            found = [r.record().miou for r in runs if (r.model, r.setting) == (model, setting)]
            cells.append(f"{statistics.mean(found):.1f} ± {statistics.stdev(found):.1f}")
        table.add_row(model, *cells, f"{constant:.1f}")
    return table


def rank() -> int:
    """Print the ranking; return the exit status of tools/rank.py."""
    tool = ROOT / "tools" / "rank.py"
    command = [sys.executable, str(tool), str(WORK_DIR)]
    # Ranking needs no torch.
    return subprocess.run(command, env={**os.environ, "VFM_SS_REGISTER": "0"}).returncode


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops the runs, too
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("demo.py: interrupted; the same command goes on from here")
