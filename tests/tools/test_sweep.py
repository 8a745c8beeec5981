"""A sweep of real trainings on the CPU, some of which crash, hang or are killed.

Three runs, which take about a minute of CPU; SWEEP_SEEDS=3 makes it twelve, of four kinds.
"""

import json
import os

import pytest

from vfm_ss.protocol.records import read_record
from vfm_ss.protocol.runs import collect
from vfm_ss.run_lock import run_holder
from vfm_ss.sweep.journal import read_journal

pytestmark = pytest.mark.slow

SEEDS = int(os.environ.get("SWEEP_SEEDS", "1"))

# At the third of four steps of seed 0; the checkpoint is that of step 2.
HOOK = """
import os, signal, time
from pathlib import Path
from mmengine.hooks import Hook
from mmseg.registry import HOOKS

@HOOKS.register_module()
class Fault(Hook):
    def __init__(self, kind):
        self.kind = kind

    def after_train_iter(self, runner, batch_idx, **kwargs):
        if batch_idx != 2 or runner.seed != 0:
            return
        if self.kind == "always":
            raise RuntimeError("it never works")
        if not Path(runner.work_dir, "happened").exists():
            Path(runner.work_dir, "happened").touch()
            if self.kind == "crash":
                raise RuntimeError("it does not work")
            if self.kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kind == "hang":
                time.sleep(10000)
"""
CONFIG = """
_base_ = "tiny.py"
custom_imports = dict(imports=["vfm_ss", "fault"], allow_failed_imports=False)
custom_hooks = [dict(type="Fault", kind="{kind}")]
"""
KINDS = ("hang", "kill", "always", "crash")[: 3 if SEEDS == 1 else 4]


def test_a_sweep_with_faults_ends_by_itself(project, tool):
    (project / "fault.py").write_text(HOOK)
    for kind in KINDS:
        (project / f"{kind}.py").write_text(CONFIG.format(kind=kind))
    args = ("--configs", *(f"{kind}.py" for kind in KINDS), "--seeds", *map(str, range(SEEDS)))
    out = tool(
        "sweep.py", "run", *args, "--jobs", "2", "--retries", "1", "--retry-seconds", "0",
        "--hang-minutes", "1.5", fails=True,
    )  # fmt: skip
    total = len(KINDS) * SEEDS
    assert f"{total} runs: {total - 1} done, 1 failed" in out
    assert "always seed 0 failed: RuntimeError: it never works" in out
    assert "hang seed 0: hung: wrote nothing for 1.5 minutes, killed" in out
    assert "kill seed 0: killed by SIGKILL" in out

    work_dirs = project / "work_dirs"
    results = {
        kind: [a.result for a in read_journal(work_dirs / kind / "seed0").attempts]
        for kind in KINDS
    }
    assert results.pop("always") == ["failed", "failed"]
    assert set(map(tuple, results.values())) == {("failed", "finished")}
    histories = []
    for kind in results:
        record = read_record(work_dirs / kind / "seed0" / "record.json")
        assert (record.name, record.status, record.seed) == (kind, "finished", 0)
        histories.append(record.history)
        log = (work_dirs / kind / "seed0" / "train.log").read_text()
        assert "resumed epoch: 0, iter: 2" in log
    assert all(history == histories[0] for history in histories), "a fault changes no result"
    assert not any(run_holder(path) for path in work_dirs.glob("*/*"))

    states = json.loads(tool("sweep.py", "status", "work_dirs", "--format", "json", fails=True))
    assert states["counts"] == {"done": total - 1, "missing": 0, "stopped": 0, "failed": 1,
                                "other": 0, "running": 0}  # fmt: skip
    runs, skipped = collect([work_dirs])
    assert len(runs) == total - 1, "the ranking reads the sweep's folders"
    assert [item.reason for item in skipped] == ["not finished: step 2 of 4"]
