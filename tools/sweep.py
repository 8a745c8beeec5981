#!/usr/bin/env python
"""Train many runs, whatever happens to one of them, and see how far they are."""

import sys

if __name__ == "__main__":
    from vfm_ss.cli.sweep import main

    sys.exit(main(prog="sweep.py"))
