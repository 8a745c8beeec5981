#!/usr/bin/env python
"""Train and evaluate one VFM under one setting: ``vfm-ss train``."""

import sys

if __name__ == "__main__":
    from vfm_ss.cli.train import main

    sys.exit(main(prog="train.py"))
