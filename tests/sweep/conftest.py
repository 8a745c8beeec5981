"""Sweeps whose trainings are stand-ins, started from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """`sweep(runs, *args, seconds=0)`: start tools/sweep.py on stand-ins in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    started = []

    def start(runs, *args, seconds=0.0):
        Path("runs.json").write_text(json.dumps(runs))
        process = subprocess.Popen(
            [sys.executable, str(HERE / "sweep_of_stand_ins.py"), *args],
            env={
                **os.environ,
                "PYTHONPATH": str(HERE.parents[1]),
                "STAND_IN_SECONDS": str(seconds),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
