"""How long tools/rank.py takes: to start, and for thousands of records.

    python tools/benchmarks/rank_records.py --seeds 30

Writes synthetic records (every VFM and setting, as many seeds as asked for) into a temporary
folder and runs the tool on one record's worth and on all, in turns.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from vfm_ss.protocol.records import Record
from vfm_ss.protocol.settings import SETTINGS, config_name
from vfm_ss.protocol.vfms import VFMS

RANK = Path(__file__).parents[1] / "rank.py"


def write(root: Path, seeds: int) -> int:
    """Write synthetic records with every class's IoU and return their number."""
    rng = random.Random(0)
    for setting in SETTINGS.values():
        for i, vfm in enumerate(VFMS):
            for seed in range(seeds):
                miou = 60 - i + rng.gauss(0, 0.5)
                record = Record(
                    name=config_name(vfm, setting.name),
                    vfm=vfm,
                    size=setting.size,
                    patch=setting.patch,
                    decoder=setting.decoder,
                    train_dataset=setting.train_dataset,
                    eval_dataset=setting.eval_dataset,
                    seed=seed,
                    status="finished",
                    miou=miou,
                    iou={f"class {k}": miou for k in range(setting.num_classes)},
                    train_seconds=3600.0,
                )
                folder = root / record.name / f"seed{seed}"
                folder.mkdir(parents=True)
                (folder / "record.json").write_text(json.dumps(asdict(record)))
    return len(SETTINGS) * len(VFMS) * seeds


def seconds(root: Path) -> float:
    """Time one run of the tool."""
    start = time.perf_counter()
    subprocess.run([sys.executable, RANK, root], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the median times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder, "few"), Path(folder, "many")
        counts = write(few, 1), write(many, args.seeds)
        times = [(seconds(few), seconds(many)) for _ in range(args.repeats)]
    small, large = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{counts[0]} records: {small:.2f} s; {counts[1]} records: {large:.2f} s")


if __name__ == "__main__":
    main()
