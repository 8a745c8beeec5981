"""Make a folder of a trained model: weights, config, record, licence and model card."""

import argparse

from vfm_ss.cli.arguments import add_checkpoint, add_config
from vfm_ss.cli.call import EXIT_STATUSES, command


def run(args: argparse.Namespace) -> None:
    """Publish and print what there is and how it is uploaded."""
    from vfm_ss.deploy.publish import publish

    for line in publish(**vars(args)):
        print(line, flush=True)


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = argparse.ArgumentParser(prog=prog, description=__doc__, epilog=EXIT_STATUSES)
    add_config(p)
    add_checkpoint(p)
    p.add_argument("--out", required=True, metavar="FOLDER", help="folder to make")
    p.add_argument(
        "--record",
        metavar="FILE",
        help="record of the run, by default the one beside the checkpoint",
    )
    p.add_argument(
        "--licence", metavar="NAME", help="licence of the model, where that of the VFM is not known"
    )
    p.add_argument(
        "--merge-lora",
        action="store_true",
        help="add the adapters of a model trained with lora to the weights beside them",
    )
    return p


main = command("vfm-ss publish", parser, run)
