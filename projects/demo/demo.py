"""The benchmark in miniature: four tiny backbones, two settings, two seeds, ranked.

Call it again to go on with what was interrupted; finished runs are kept in work_dirs/demo.
"""

import argparse
import os
import statistics
import sys
from pathlib import Path

from demo_scenes import constant_miou, make_demo_scenes
from rich.console import Console
from rich.table import Table

from vfm_ss.cli import rank, sweep
from vfm_ss.protocol.records import RECORD_NAME, read_record

PROJECT = Path(__file__).resolve().parent
ROOT = PROJECT.parents[1]
DATA = Path("data", "demo_scenes")
WORK_DIR = Path("work_dirs", "demo")
MODELS = ("tiny-vit", "tiny-dinov2", "tiny-eva02", "tiny-sam")
SETTINGS = ("linear", "probe")
SEEDS = (0, 1)
NOTE = "Random weights, synthetic scenes: these numbers say nothing about the real VFMs."


def main() -> int:
    """Make the scenes, train, and print scores and ranking.

    Returns:
        Exit status.
    """
    jobs = parse_args().jobs
    os.chdir(ROOT)
    make_demo_scenes(DATA)
    # The runs' own processes import the dataset.
    paths = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    names = [config(model, setting) for model in MODELS for setting in SETTINGS]
    configs = [f"projects/demo/configs/{name}.py" for name in names]
    arguments = ["--configs", *configs, "--seeds", *map(str, SEEDS), "--work-dir", str(WORK_DIR)]
    status = sweep.main(["run", *arguments, "--gpus-per-run", "0", "--jobs", str(jobs)])
    if status:
        return status
    Console(highlight=False).print(scores(constant_miou(DATA / "annotations" / "validation")))
    return rank.main([str(WORK_DIR), "--note", NOTE, "--out", str(WORK_DIR / "report")])


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


def config(model: str, setting: str) -> str:
    """Return the name of a config."""
    return f"{model}_t8_{setting}_demoscenes"


def scores(constant: float) -> Table:
    """Return the table of all scores beside that of the constant prediction."""
    table = Table(title="mIoU in percent, mean ± standard deviation over the seeds")
    table.add_column("model")
    for setting in SETTINGS:
        table.add_column(setting, justify="right")
    table.add_column("most frequent class everywhere", justify="right")
    for model in MODELS:
        cells = []
        for setting in SETTINGS:
            folders = [WORK_DIR / config(model, setting) / f"seed{seed}" for seed in SEEDS]
            found = [read_record(folder / RECORD_NAME).miou for folder in folders]
            cells.append(f"{statistics.mean(found):.1f} ± {statistics.stdev(found):.1f}")
        table.add_row(model, *cells, f"{constant:.1f}")
    return table


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"demo.py: error: {error}")
    except KeyboardInterrupt:
        sys.exit("demo.py: interrupted; the same command goes on from here")
