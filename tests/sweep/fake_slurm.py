"""A Slurm of one node in a folder: what sbatch, srun, squeue and scontrol do for a sweep.

Linked under those names; the folder of the link holds the queue. Jobs start at once, unless a file
``hold`` is there.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(sys.argv[0]).parent
QUEUE = ROOT / "queue"


def sbatch(script):
    QUEUE.mkdir(exist_ok=True)
    lines = Path(script).read_text().splitlines()
    if any(line == "#SBATCH --partition=full" for line in lines):
        sys.exit("sbatch: error: invalid partition specified: full")
    job = str(1 + max((int(p.name.partition("_")[0]) for p in ROOT.glob("done/*")), default=16))
    arrays = [line.partition("=")[2] for line in lines if line.startswith("#SBATCH --array=")]
    last = int(arrays[0].partition("%")[0].partition("-")[2]) if arrays else 0
    (ROOT / "done").mkdir(exist_ok=True)
    for index in range(last + 1):
        name = f"{job}_{index}" if arrays else job
        (QUEUE / name).touch()
        (ROOT / "done" / name).touch()
        command = [sys.executable, __file__, "task", name, script]
        null = subprocess.DEVNULL
        subprocess.Popen(command, start_new_session=True, stdout=null, stderr=null)
    print(f"Submitted batch job {job}")


def run_task(name, script):
    job, array, index = name.partition("_")
    env = {**os.environ, "SLURM_JOB_ID": job, "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}
    if array:
        env |= {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": index}
        env["SLURM_JOB_ID"] = str(1000 + 100 * int(job) + int(index))
    while (ROOT / "hold").exists():
        if not (QUEUE / name).exists():  # cancelled
            return
        time.sleep(0.05)
    restarts = 0
    while True:
        subprocess.run(["bash", script], env={**env, "SLURM_RESTART_COUNT": str(restarts)})
        requeued = ROOT / f"requeue-{name}"
        if not requeued.exists():
            break
        requeued.unlink()
        restarts += 1
    (QUEUE / name).unlink()


def srun(*args):
    output = os.open(args[args.index("--output") + 1].replace("%", "_"), os.O_CREAT | os.O_RDWR)
    start = next(k for k, arg in enumerate(args) if "python" in arg)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.execvp(args[start], args[start:])


def squeue(*_):
    print("\n".join(path.name for path in QUEUE.iterdir()))


def scontrol(action, name):
    (ROOT / f"{action}-{name}").touch()


if __name__ == "__main__":
    if sys.argv[1:2] == ["task"]:
        run_task(*sys.argv[2:])
    else:
        globals()[Path(sys.argv[0]).name](*sys.argv[1:])
