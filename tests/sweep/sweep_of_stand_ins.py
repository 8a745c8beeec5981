"""tools/sweep.py whose runs are stand-ins: those of runs.json in the current folder."""

import json
import sys
from pathlib import Path

from vfm_ss.cli.sweep import main
from vfm_ss.sweep import plan, slurm, worker


def expand(work_dir, *_):
    runs = []
    for name, seed, fault in json.loads(Path("runs.json").read_text()):
        folder = Path(work_dir) / name / f"seed{seed}"
        script = str(Path(__file__).with_name("stand_in.py"))
        command = (sys.executable, script, str(folder), name, str(seed), fault)
        runs.append(plan.PlannedRun(name, seed, folder, command))
    return runs


plan.expand = expand
slurm.POLL_SECONDS = 0.2
worker.GRACE_SECONDS = 2.0
raise SystemExit(main())
