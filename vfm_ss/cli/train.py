"""Train and evaluate one VFM under one setting."""

import argparse

from vfm_ss.cli.arguments import add_config, add_launch
from vfm_ss.cli.call import EXIT_STATUSES, command


def run(args: argparse.Namespace) -> None:
    """Call the engine, whose function takes the arguments by the same names."""
    from vfm_ss.engine import launch

    launch.train(**vars(args))


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = argparse.ArgumentParser(prog=prog, description=__doc__, epilog=EXIT_STATUSES)
    add_config(p)
    add_launch(p)
    p.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="resume from the newest sound checkpoint in the work dir, or from this one",
    )
    p.add_argument(
        "--amp",
        action="store_true",
        help="force mixed precision: fp16 on a GPU (there the default), bf16 on a CPU",
    )
    p.add_argument(
        "--seed", type=int, metavar="N", help="random seed; the benchmark runs 0, 1 and 2"
    )
    p.add_argument(
        "--micro-batch",
        type=_micro_batch,
        metavar="N",
        help="images per forward pass, or auto for what fits; results stay the same",
    )
    return p


def _micro_batch(text: str) -> str | int:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an integer or auto, got {text!r}") from None


main = command("vfm-ss train", parser, run)
