"""What every test needs: offline, registered modules, and no state left by another test."""

import json
import os
import random
import signal
from dataclasses import asdict

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from mmseg.visualization import SegLocalVisualizer

import vfm_ss  # noqa: F401  registers the modules
from vfm_ss.protocol.records import Record
from vfm_ss.protocol.settings import SETTINGS, config_name
from vfm_ss.protocol.vfms import FAMILIES, VFMS

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A suite that a script starts in the background; the commands that tests interrupt inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_state_of_other_runs():
    """Clear mmengine's process-wide instances, which a runner leaves behind."""
    yield
    for manager in (DefaultScope, MessageHub, MMLogger, Visualizer, SegLocalVisualizer):
        manager._instance_dict.clear()


# Synthetic records: made-up scores that say nothing of the real models.


def _record(vfm="dinov2", setting="default", seed=0, miou=50.0, **changes):
    s = SETTINGS[setting]
    values = {
        "name": config_name(vfm, setting) if vfm in VFMS else vfm,
        "vfm": vfm,
        "size": s.size,
        "patch": s.patch,
        "decoder": s.decoder,
        "train_dataset": s.data.train,
        "eval_dataset": s.data.eval,
        "seed": seed,
        "status": "finished",
        "step": s.data.steps,
        "max_steps": s.data.steps,
        "miou": miou,
        "best_miou": miou,
    } | changes
    best = [[values["step"] // 2, values["best_miou"]]] if values["best_miou"] != miou else []
    return Record(**{"history": [*best, [values["step"], miou]], **values})


@pytest.fixture
def make_record():
    """Make a record of one finished run."""
    return _record


@pytest.fixture
def write_grid():
    """Write synthetic records for every VFM, setting and seed given below a folder."""

    def write(root, vfms=FAMILIES["paper"], settings=tuple(SETTINGS), seeds=3, spread=0.3):
        rng = random.Random(0)
        for k, setting in enumerate(settings):
            for i, vfm in enumerate(vfms):
                score = 60 - 20 * i / len(vfms) - 3 * k + rng.gauss(0, 1.5)
                for seed in range(seeds):
                    miou = round(score + rng.gauss(0, spread), 2)
                    folder = root / setting / vfm / f"seed{seed}"
                    folder.mkdir(parents=True)
                    steps = SETTINGS[setting].data.steps
                    record = _record(
                        vfm,
                        setting,
                        seed,
                        miou,
                        history=[[steps // 2, min(20.0, miou)], [steps, miou]],
                        iou={"road": miou + 10, "sky": None, "tree": miou - 10},
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
