"""Stands in for tools/train.py, in a tenth of a second: stand_in.py FOLDER NAME SEED FAULT.

Four steps with a checkpoint each, a log as mmengine writes it, a record at the end. FAULT happens
at step 3, ``-once`` only when it has not happened before.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from vfm_ss.protocol.records import Record
from vfm_ss.run_lock import hold_run

folder, name, seed, fault = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
STEPS, pause = 4, float(os.environ.get("STAND_IN_SECONDS", "0"))
hold_run(folder)
(folder / "environment").write_text(json.dumps(dict(os.environ)))
checkpoint, happened = folder / "checkpoint", folder / "happened"


def happen(fault: str) -> None:
    if fault == "crash":
        raise RuntimeError("the injected crash\x1b[2J of " + name)
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "term":
        if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":  # which tells all processes of a job
            os.kill(os.getppid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    if fault == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "1000"])
        (folder / "child").write_text(str(child.pid))
        time.sleep(1000)
    if fault == "stop":  # it reacts to nothing
        os.kill(os.getpid(), signal.SIGSTOP)
    if fault == "quit":
        sys.exit(0)


step = int(checkpoint.read_text()) if checkpoint.exists() else 0
while step < STEPS:
    time.sleep(pause)
    if step == 2 and (not fault.endswith("-once") or not happened.exists()):
        happened.touch()
        happen(fault.removesuffix("-once"))
    step += 1
    with open(folder / "trained", "a") as file:
        file.write(f"{step}\n")
    eta = f"0:00:{STEPS - step:02}"
    print(f"- mmengine - INFO - Iter(train) [   {step}/{STEPS}]  lr: 1e-4  eta: {eta}  loss: 0.1")
    sys.stdout.flush()
    checkpoint.write_text(str(step))

record = Record(
    name=name,
    vfm="standin",
    decoder="linear",
    train_dataset="none",
    eval_dataset="none",
    status="finished",
    seed=seed,
    step=STEPS,
    max_steps=STEPS,
    miou=50.0 + seed,
    history=[[STEPS, 50.0 + seed]],
)
(folder / "record.json").write_text(json.dumps(asdict(record)))
