"""Runs each Python program that it reads in a process of its own: JSON lines in, JSON lines out.

What takes most of the time of a start, and what no test here is about, is imported once, before
the fork.
"""

import contextlib
import json
import os
import sys
import tempfile
import traceback

for name in sys.argv[1:]:
    __import__(name)

for line in sys.stdin:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            status = 0
            try:
                exec(compile(json.loads(line), "<program>", "exec"), {"__name__": "__main__"})
            except SystemExit as end:
                status = end.code or 0
            except BaseException:
                traceback.print_exc()
                status = 1
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    print(json.dumps([status, *texts]), flush=True)
