"""Processes take and give back one lock while they are killed at random: lock_storm.py FOLDER.

Prints how often the lock was held, how many processes were killed and how many holders met
another living holder.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from vfm_ss.run_lock import RunLock, RunLockedError

FOLDER = Path(sys.argv[1])
PROCESSES, ENOUGH = 8, 60


def main() -> None:
    children: list[int] = []
    killed, chance, log = 0, random.Random(0), FOLDER / "log"
    log.touch()
    while killed < ENOUGH or log.read_text().count("held") < ENOUGH:
        while len(children) < PROCESSES:
            children.append(_spawn(len(children) + killed))
        time.sleep(chance.random() * 0.02)
        victim = children.pop(chance.randrange(PROCESSES))
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        killed += 1
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    lines = log.read_text()
    print(lines.count("held"), killed, lines.count("violation"))


def _spawn(seed: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            _take_and_give_back(random.Random(seed))
        finally:
            os._exit(1)
    return pid


def _take_and_give_back(chance: random.Random) -> None:
    marker = FOLDER / "holder"
    log = os.open(FOLDER / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    me = str(os.getpid())
    while True:
        lock = RunLock(FOLDER)
        try:
            lock.acquire(0)
        except RunLockedError:
            time.sleep(0.001)
            continue
        other = marker.read_text() if marker.exists() else ""
        if other and other != me and _lives(int(other)):
            os.write(log, b"violation\n")
        marker.write_text(me)
        time.sleep(chance.random() * 0.005)
        if marker.read_text() != me:
            os.write(log, b"violation\n")
        marker.write_text("")
        os.write(log, b"held\n")
        lock.release()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


if __name__ == "__main__":
    main()
