"""Show versions, devices and what is missing; or, with a VFM, what is known of it."""

import argparse

from vfm_ss.cli.call import command
from vfm_ss.protocol.vfms import VFMS


def run(args: argparse.Namespace) -> int:
    """Print the environment or a VFM; return 1 where training lacks something."""
    from vfm_ss import info
    from vfm_ss.compat import stack

    if args.vfm is not None:
        _print(info.vfm_facts(info.find_vfm(args.vfm)))
        return 0
    _print(info.environment())
    problems = list(stack.problems())
    print()
    print("\n".join(problems) or "nothing is missing")
    return 1 if problems else 0


def _print(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:{width}}  {value}")


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        epilog="Exit status: 0 if nothing is missing, 1 if training needs something that is, "
        "2 at wrong arguments.",
    )
    p.add_argument("vfm", nargs="?", metavar="VFM", help=f"one of {', '.join(VFMS)}")
    return p


main = command("vfm-ss info", parser, run)
