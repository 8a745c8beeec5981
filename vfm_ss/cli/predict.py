"""Predict images with a trained model: label maps, paintings, probabilities. No labels needed."""

import argparse

from vfm_ss.cli.arguments import add_checkpoint, add_config, count
from vfm_ss.cli.call import EXIT_STATUSES, command


def run(args: argparse.Namespace) -> int:
    """Call the engine; return 1 where an image could not be read."""
    from vfm_ss.engine.predict import predict

    return 1 if predict(**vars(args)) else 0


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = argparse.ArgumentParser(prog=prog, description=__doc__, epilog=EXIT_STATUSES)
    add_config(p)
    add_checkpoint(p)
    p.add_argument(
        "inputs",
        nargs="+",
        metavar="IMAGE_OR_FOLDER",
        help="images, and folders whose images are predicted, those in sub-folders included",
    )
    p.add_argument(
        "--out",
        metavar="DIR",
        required=True,
        help="folder of the results: for x/1.jpg of a folder x/1.png, in the values that the "
        "data set stores",
    )
    p.add_argument(
        "--overlay",
        action="store_true",
        help="also paint the classes over the images, with a legend: DIR/overlay/x/1.png",
    )
    p.add_argument(
        "--probabilities",
        action="store_true",
        help="also save the probabilities of the classes, float16 (classes, height, width): "
        "DIR/probabilities/x/1.npz",
    )
    p.add_argument(
        "--skip-existing", action="store_true", help="leave out images whose files are all there"
    )
    p.add_argument(
        "--batch-size", type=_positive, metavar="N", help="images per batch; default as in test"
    )
    p.add_argument("--workers", type=count, metavar="N", help="processes that read images")
    p.add_argument(
        "--device", metavar="NAME", help="cpu, cuda, cuda:1, ...; by default the best one"
    )
    return p


def _positive(text: str) -> int:
    return count(text, 1)


main = command("vfm-ss predict", parser, run)
