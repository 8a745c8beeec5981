#!/usr/bin/env python
"""Rank vision foundation models from finished runs: tables, Kendall's tau, plots and a page."""

import os

if __name__ == "__main__":
    os.environ["VFM_SS_REGISTER"] = "0"  # ranking needs neither torch nor mmseg
    from vfm_ss.cli.rank import main

    raise SystemExit(main(prog="rank.py"))
