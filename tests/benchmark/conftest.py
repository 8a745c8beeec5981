"""Synthetic records: made-up scores that say nothing of the real models."""

import json
import random
from dataclasses import asdict

import pytest

from vfm_ss.benchmark.records import Record
from vfm_ss.benchmark.settings import SETTINGS, config_name
from vfm_ss.vfms import VFMS


def _record(vfm="dinov2", setting="default", seed=0, miou=50.0, **changes):
    s = SETTINGS[setting]
    values = {
        "name": config_name(vfm, setting) if vfm in VFMS else vfm,
        "vfm": vfm,
        "size": s.size,
        "patch": s.patch,
        "decoder": s.decoder,
        "train_dataset": s.train_dataset,
        "eval_dataset": s.eval_dataset,
        "seed": seed,
        "status": "finished",
        "step": s.steps,
        "max_steps": s.steps,
        "miou": miou,
        "best_miou": miou,
        "history": [[s.steps, miou]],
    }
    return Record(**values | changes)


@pytest.fixture
def make_record():
    """Make a record of one finished run."""
    return _record


@pytest.fixture
def write_grid():
    """Write synthetic records for every VFM, setting and seed given below a folder."""

    def write(root, vfms=tuple(VFMS), settings=tuple(SETTINGS), seeds=3, spread=0.3):
        rng = random.Random(0)
        for k, setting in enumerate(settings):
            for i, vfm in enumerate(vfms):
                score = 60 - 20 * i / len(vfms) - 3 * k + rng.gauss(0, 1.5)
                for seed in range(seeds):
                    folder = root / setting / vfm / f"seed{seed}"
                    folder.mkdir(parents=True)
                    record = _record(
                        vfm,
                        setting,
                        seed,
                        round(score + rng.gauss(0, spread), 2),
                        iou={"road": 90.0 - i % 50, "sky": None, "tree": 40.0 + k},
                        train_seconds=100.0 * (k + 1),
                        step_seconds=0.5 * (k + 1),
                        trainable_params=1_000_000 * (k + 1),
                        device="synthetic",
                        world_size=1,
                        effective_batch=16,
                        versions={"torch": "2.0"},
                        commit="abc1234",
                    )
                    (folder / "record.json").write_text(json.dumps(asdict(record)))
        return root

    return write
