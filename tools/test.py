#!/usr/bin/env python
"""Evaluate a checkpoint, and paint its predictions over the images: ``vfm-ss test``."""

import sys

if __name__ == "__main__":
    from vfm_ss.cli.test import main

    sys.exit(main(prog="test.py"))
