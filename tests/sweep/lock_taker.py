"""Take a run's lock when GO appears, say so, hold it till stdin closes: lock_taker.py FOLDER GO."""

import os
import sys

from vfm_ss.sweep.lock import RunLock

lock = RunLock(sys.argv[1])
while not os.path.exists(sys.argv[2]):
    pass
print("held" if lock.acquire() is None else "refused", flush=True)
sys.stdin.read()
