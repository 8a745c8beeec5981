"""Processes take and give back one lock while they are killed at random: lock_torture.py FOLDER.

Prints how often the lock was held, how many processes were killed and how many holders met
another living holder.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from vfm_ss.sweep.lock import RunLock, process_start

FOLDER = Path(sys.argv[1])
SECONDS, PROCESSES = 5.0, 8


def main() -> None:
    children: list[int] = []
    killed, end, chance = 0, time.monotonic() + SECONDS, random.Random(0)
    while time.monotonic() < end:
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
    log = (FOLDER / "log").read_text()
    print(log.count("held"), killed, log.count("violation"))


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
    me = f"{os.getpid()} {process_start(os.getpid())}"
    while True:
        lock = RunLock(FOLDER)
        if lock.acquire() is not None:
            time.sleep(0.001)
            continue
        pid, _, start = (marker.read_text() if marker.exists() else "").partition(" ")
        if pid and process_start(int(pid)) == start:
            os.write(log, b"violation\n")
        marker.write_text(me)
        time.sleep(chance.random() * 0.005)
        if marker.read_text() != me or not lock.beat():
            os.write(log, b"violation\n")
        marker.write_text("")
        os.write(log, b"held\n")
        lock.release()


if __name__ == "__main__":
    main()
