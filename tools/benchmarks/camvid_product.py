"""A real product on CamVid, on a CPU: three ViT-Ti, two decoders, three fractions, two seeds.

Random weights and 20 steps: it shows that sweep, fractions and ranking work, nothing about any VFM.
The scores in tests/ranking/camvid_product.csv come from here: `--csv` writes them.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

from vfm_ss.cli import rank, sweep

VFMS = ("vit_tiny_patch16_224", "eva02_tiny_patch14_224", "vit_pe_core_tiny_patch16_384")
FACTORS = ("--decoders", "linear,probe", "--fractions", "1,1/4,1/16", "--steps", "20")
SMALL = (
    "model.backbone.pretrained=False", "model.backbone.depth=2", "model.backbone.img_size=(64,64)",
    "optim_wrapper.optimizer.lr=3e-3", "train_cfg.val_interval=20",
    "train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False",
    "val_dataloader.num_workers=0", "val_dataloader.persistent_workers=False",
)  # fmt: skip


def main() -> int:
    """Train the cells, rank them, and write the scores.

    Returns:
        Exit status.
    """
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("camvid", help="folder of images and annotations, or a zip and the folder in it")
    p.add_argument("--work-dir", default="work_dirs/camvid_product")
    p.add_argument("--jobs", default="1")
    p.add_argument("--csv", metavar="FILE", help="write the scores")
    args = p.parse_args()
    data = [f"{part}_dataloader.dataset.data_root={args.camvid}" for part in ("train", "val")]
    status = sweep.main([
        "run", "--vfms", *(f"timm:{name}" for name in VFMS), "--data", "projects/camvid/data.py",
        *FACTORS, "--seeds", "0", "1", "--gpus-per-run", "0", "--jobs", args.jobs,
        "--work-dir", args.work_dir, "--cfg-options", *SMALL, *data,
    ])  # fmt: skip
    if status:
        return status
    if args.csv:
        write_scores(args.work_dir, args.csv)
    return rank.main([args.work_dir, "--baseline", "t16_linear_camvid_20steps"])


def write_scores(work_dir: str, path: str) -> None:
    """Write VFM, setting as its factors say it, seed and mIoU of every run."""
    rows = []
    for file in sorted(Path(work_dir).glob("*/seed*/record.json")):
        record = json.loads(file.read_text())
        setting = record["name"].removeprefix(f"{record['vfm'].partition('@')[0]}_")
        rows.append((record["vfm"].partition("@")[0], setting, record["seed"], record["miou"]))
    with open(path, "w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("vfm", "setting", "seed", "miou"))
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
