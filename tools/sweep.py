#!/usr/bin/env python
"""Train many runs, whatever happens to one of them, and see how far they are."""

import sys

if __name__ == "__main__":
    try:
        from vfm_ss.cli.sweep import main

        status = main(prog="sweep.py")
    except KeyboardInterrupt:  # before the command could look after it
        status = 130
    sys.exit(status)
