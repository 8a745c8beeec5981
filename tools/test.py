#!/usr/bin/env python
"""Evaluate a checkpoint, and paint its predictions over the images: ``vfm-ss test``."""

import sys

if __name__ == "__main__":
    try:
        from vfm_ss.cli.test import main

        status = main(prog="test.py")
    except KeyboardInterrupt:  # before the command could look after it
        status = 130
    sys.exit(status)
