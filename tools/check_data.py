#!/usr/bin/env python
"""Check the data of a config: what is there, what is missing, what cannot be used.

Exits with 0 where everything is complete and usable, with 1 where something is missing or damaged.
"""

import argparse
import sys

from vfm_ss.datasets.check import check_config


def main() -> int:
    """Parse the arguments and run the check."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--quick", action="store_true", help="list files and read a few, instead of all of them"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="as in tools/train.py"
    )
    parser.add_argument("--workers", type=int, default=0, help="number of processes that read")
    args = parser.parse_args()
    return check_config(args.config, args.cfg_options, quick=args.quick, workers=args.workers)


if __name__ == "__main__":
    sys.exit(main())
