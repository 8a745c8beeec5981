#!/usr/bin/env python
"""Try what users hand over on random inputs: weights, folders of masks, images, configs.

    tools/fuzz/random_inputs.py weights|folder|images|configs --inputs 100000 --seed 0

Sound inputs are changed at random. Each must be taken for what it is, as a second computation says,
or be refused in one line (`vfm_ss.cli.call.foreseen`). Anything else is a finding and is printed
with the number of its input, which `--first N --inputs 1` repeats; so is what takes 10 seconds or
4 GiB of memory.
"""

import argparse
import collections
import faulthandler
import gc
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

from input_targets import TARGETS  # noqa: E402

from vfm_ss.cli.call import foreseen  # noqa: E402


def main() -> int:
    """Run one target and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    faulthandler.enable()  # a decoder's crash ends the process
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30,) * 2)
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("took 10 seconds"))
    count: collections.Counter[str] = collections.Counter()
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    target = TARGETS[args.target]()
    gc.freeze()  # mmengine collects garbage for every data set
    for number in range(args.first, args.first + args.inputs):
        signal.alarm(10)
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            try:
                accepted = target(random.Random(f"{args.seed} {number}"), Path(folder))
                count["accepted" if accepted else "refused"] += 1
            except BaseException as error:
                if isinstance(error, Exception) and foreseen(error) is not None:
                    count["refused"] += 1
                    continue
                count["findings"] += 1
                where = traceback.format_exc(limit=-4)
                print(f"input {number}: {type(error).__name__}: {error}\n{where}", flush=True)
                if isinstance(error, KeyboardInterrupt):
                    break
        if number % 10_000 == 9_999:
            print(number + 1, dict(count), flush=True)
    print(f"{args.target}, seed {args.seed}: {dict(count)}")
    return 1 if count["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
