"""Interrupt commands with Ctrl-C's signal at random moments, and count how they end.

    python tools/benchmarks/interrupt.py --times 20 -- rank work_dirs

A command ends well with status 130 and without a traceback, or was done before. Moments before its
first own line of code, in which Python itself starts, are left out: the script waits for them.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

# What the interpreter runs first: it says that Python has started.
_START = "import os, runpy, sys; os.write(3, b'.'); sys.argv = sys.argv[1:]; "
_START += "runpy.run_path(sys.argv[0], run_name='__main__')"


def main() -> int:
    """Run the command as often, and print how it ended."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("command", nargs="+", help="a script of tools/ and its arguments")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    whole, _, _ = run(args.command, None)
    bad = 0
    for _ in range(args.times):
        moment = draw.uniform(0, whole)
        seconds, status, text = run(args.command, moment)
        well = status == 130 and "Traceback" not in text
        done = not well and seconds < moment
        bad += not (well or done)
        print(f"{moment:.2f} of {whole:.2f} s: {'done before' if done else f'status {status}'}")
        if not (well or done):
            print(text[-3000:])
    print(f"{args.times - bad} of {args.times} ended well")
    return int(bad > 0)


def run(command: list[str], moment: float | None) -> tuple[float, int, str]:
    """Run a command, interrupt it after so many seconds, and return its time, status and output."""
    started, starts = os.pipe()
    shell = ["bash", "-c", f'exec 3>&{starts}; exec "$@"', "bash"]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [*shell, sys.executable, "-c", _START, *command],
            pass_fds=[starts],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        os.close(starts)
        os.read(started, 1)
        os.close(started)
        start = time.monotonic()
        if moment is not None:
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
        status = process.wait()
        seconds = time.monotonic() - start
        output.seek(0)
        return seconds, status, output.read().decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
