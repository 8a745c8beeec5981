"""Take a run's lock when GO appears, say so, hold it till stdin closes: lock_taker.py FOLDER GO.

With a third argument it forks a child, which says so and outlives it: a data loading process.
"""

import os
import sys
import time

from vfm_ss.run_lock import RunLock, RunLockedError

lock = RunLock(sys.argv[1])
while not os.path.exists(sys.argv[2]):
    pass
try:
    lock.acquire(0)
    answer = "held"
except RunLockedError:
    answer = "refused"
if len(sys.argv) > 3:
    if os.fork() == 0:
        os.write(1, f"{answer}\n".encode())  # by now what runs after a fork has run
        os.close(1)
        time.sleep(30)
        os._exit(0)
else:
    print(answer, flush=True)
sys.stdin.read()
