#!/usr/bin/env python
"""Check the data of a config: ``vfm-ss check-data``."""

import sys

if __name__ == "__main__":
    from vfm_ss.cli.check_data import main

    sys.exit(main(prog="check_data.py"))
