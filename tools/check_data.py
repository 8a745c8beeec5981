#!/usr/bin/env python
"""Check the data of a config: ``vfm-ss check-data``."""

import sys

if __name__ == "__main__":
    try:
        from vfm_ss.cli.check_data import main

        status = main(prog="check_data.py")
    except KeyboardInterrupt:  # before the command could look after it
        status = 130
    sys.exit(status)
