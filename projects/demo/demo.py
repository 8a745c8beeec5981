"""The benchmark in miniature: four tiny backbones, two settings, two seeds, ranked.

Call it again to go on with what was interrupted; finished runs are kept in work_dirs/demo.
"""

import argparse
import math
import os
import sys
from pathlib import Path

from demo_scenes import constant_miou, make_demo_scenes

from vfm_ss.cli import rank, sweep

PROJECT = Path(__file__).resolve().parent
ROOT = PROJECT.parents[1]
DATA = Path("data", "demo_scenes")
WORK_DIR = Path("work_dirs", "demo")
MODELS = ("tiny-vit", "tiny-dinov2", "tiny-eva02", "tiny-sam")
SETTINGS = ("linear", "probe")
SEEDS = (0, 1)
NOTE = "Random weights, synthetic scenes: these numbers say nothing about the real VFMs."
#: CPU minutes that all runs took on a busy machine; a quiet one needs fewer.
MINUTES = 10


def main() -> int:
    """Make the scenes, train and rank.

    Returns:
        Exit status.
    """
    jobs = parse_args().jobs
    os.chdir(ROOT)
    runs = len(MODELS) * len(SETTINGS) * len(SEEDS)
    minutes = math.ceil(MINUTES / min(jobs, os.cpu_count() or 1))
    print(
        f"{runs} runs: {len(MODELS)} models, {len(SETTINGS)} settings, {len(SEEDS)} seeds; some "
        f"{minutes} minutes if the machine is not busy otherwise. Finished runs are kept.",
        flush=True,
    )
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
    constant = constant_miou(DATA / "annotations" / "validation")
    note = f"Predicting the most frequent class everywhere would score {constant:.1f} % mIoU."
    notes = ["--note", NOTE, "--note", note]
    return rank.main([str(WORK_DIR), *notes, "--out", str(WORK_DIR / "report")])


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


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"demo.py: error: {error}")
    except KeyboardInterrupt:
        sys.exit("demo.py: interrupted; the same command goes on from here")
