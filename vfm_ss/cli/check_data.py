"""Check the data of a config: what is there, what is missing, what cannot be used."""

import argparse

from vfm_ss.cli.arguments import add_config, count
from vfm_ss.cli.call import EXIT_STATUSES, command


def run(args: argparse.Namespace) -> int:
    """Run the check; return 1 where something is missing, damaged or unusable."""
    from vfm_ss.datasets.check import check_config

    return check_config(args.config, args.cfg_options, quick=args.quick, workers=args.workers)


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = argparse.ArgumentParser(prog=prog, description=__doc__, epilog=EXIT_STATUSES)
    add_config(p)
    p.add_argument(
        "--quick", action="store_true", help="list files and read a few, instead of all of them"
    )
    p.add_argument(
        "--workers", type=count, default=0, metavar="N", help="processes that read (default: one)"
    )
    return p


main = command("vfm-ss check-data", parser, run)
