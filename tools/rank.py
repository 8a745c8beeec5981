#!/usr/bin/env python
"""Rank vision foundation models from finished runs: tables, Kendall's tau, plots and a page."""

import sys

if __name__ == "__main__":
    from vfm_ss.cli.rank import main

    sys.exit(main(prog="rank.py"))
