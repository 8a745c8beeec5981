#!/usr/bin/env python
"""Train and evaluate one VFM under one setting: ``vfm-ss train``."""

import sys

if __name__ == "__main__":
    try:
        from vfm_ss.cli.train import main

        status = main(prog="train.py")
    except KeyboardInterrupt:  # before the command could look after it
        status = 130
    sys.exit(status)
