#!/usr/bin/env python
"""Rank vision foundation models from finished runs: tables, Kendall's tau, plots and a page."""

import sys

if __name__ == "__main__":
    try:
        from vfm_ss.cli.rank import main

        status = main(prog="rank.py")
    except KeyboardInterrupt:  # before the command could look after it
        status = 130
    sys.exit(status)
