"""A training where another process trains already, started by our tool and by mmseg's own."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from vfm_ss.run_lock import RUN_LOCK, RunLock, holder

pytestmark = pytest.mark.slow


@pytest.fixture
def taken(project):
    """A work dir in which this process trains."""
    folder = project / "run"
    folder.mkdir()
    lock = RunLock(folder)
    lock.acquire()
    yield folder
    lock.release()


def test_the_second_of_two_trainings_is_refused(project, tool, taken):
    process = tool("train.py", "tiny.py", "--work-dir", "run", "--resume", wait=False)
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 2, out
    assert f"train.py: error: run is in use by process {os.getpid()} on " in out
    assert "Traceback" not in out
    assert [path.name for path in taken.iterdir()] == [RUN_LOCK], "the first one's files stay"


def test_mmsegs_own_tool_is_refused_too(project, taken):
    train = Path(find_spec("mmseg").origin).parent / ".mim" / "tools" / "train.py"
    done = subprocess.run(
        [sys.executable, str(train), "tiny.py", "--work-dir", "run"],
        cwd=project, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}:{project}"},
    )  # fmt: skip
    assert done.returncode == 1
    assert f"run is in use by process {os.getpid()} on " in done.stderr.splitlines()[-1]


def test_a_training_holds_its_work_dir_and_gives_it_back(project, tool):
    options = ("--work-dir", "run", "--cfg-options", "train_cfg.max_iters=2000")
    process = tool("train.py", "tiny.py", *options, wait=False)
    for line in process.stdout:
        if "Iter(train)" in line:
            break
    assert holder(project / "run" / RUN_LOCK).pid == process.pid
    process.kill()
    process.wait()
    assert holder(project / "run" / RUN_LOCK) is None, "free at once"
    tool("train.py", "tiny.py", "--work-dir", "run2")
    assert holder(project / "run2" / RUN_LOCK) is None
