"""The whole road on whichever stack is installed: train, stop, resume, test, rank."""

import json
import re

import pytest

from vfm_ss.compat import stack
from vfm_ss.protocol.records import read_record

pytestmark = pytest.mark.slow

RUNS = {"first": ("tiny-a", "4"), "second": ("tiny-b", "2")}


def test_two_models_are_trained_resumed_tested_and_ranked(project, tool):
    config = (project / "tiny.py").read_text()
    named = "train_cfg = dict(max_iters=4, val_interval=2)"
    assert named in config
    config = config.replace(named, "train_cfg = dict(max_iters=2, val_interval=1)")
    (project / "tiny.py").write_text(config)

    def train(work_dir, vfm, ratio, *args):
        options = ("default_hooks.checkpoint.interval=1", f"default_hooks.record.vfm={vfm}",
                   "default_hooks.record.size=t", f"model.backbone.mlp_ratio={ratio}")  # fmt: skip
        tool("train.py", "tiny.py", "--work-dir", work_dir, *args, "--cfg-options", *options)
        return read_record(project / work_dir / "record.json")

    # The first run goes on from half way of the same run done whole.
    whole = train("whole", *RUNS["first"])
    resumed = train("runs/first", *RUNS["first"], "--resume", "whole/iter_1.pth")
    assert resumed.miou == whole.miou
    other = train("runs/second", *RUNS["second"])
    for record, (vfm, _) in zip((resumed, other), RUNS.values(), strict=True):
        assert (record.vfm, record.status, record.step) == (vfm, "finished", 2)
        assert [step for step, _ in record.history] == [1, 2]
        for module in ("mmengine", "mmcv", "mmseg"):
            name, version = stack.installed(module)
            assert record.versions[name] == version

    log = tool("test.py", "tiny.py", "runs/first/iter_2.pth", "--work-dir", "tested")
    miou = float(re.search(r"mIoU: ([\d.]+)", log)[1])
    assert miou == pytest.approx(resumed.miou, abs=0.01)

    setting = "t16_linear_ade20k_2steps"
    ranking = json.loads(tool("rank.py", "runs", "--baseline", setting, "--format", "json"))
    found = {m["vfm"]: m["miou_mean"] for m in ranking["settings"][setting]["models"]}
    assert found == pytest.approx({r.vfm: r.miou for r in (resumed, other)})
    assert ranking["skipped"] == []
