"""Evaluate a checkpoint, and paint its predictions over the images."""

import argparse

from vfm_ss.cli.arguments import add_checkpoint, add_config, add_launch
from vfm_ss.cli.call import EXIT_STATUSES, command


def run(args: argparse.Namespace) -> None:
    """Call the engine, whose function takes the arguments by the same names."""
    from vfm_ss.engine import launch

    launch.test(**vars(args))


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = argparse.ArgumentParser(prog=prog, description=__doc__, epilog=EXIT_STATUSES)
    add_config(p)
    add_launch(p)
    add_checkpoint(p)
    p.add_argument("--out", metavar="DIR", help="save predicted label maps in this folder")
    p.add_argument("--show", action="store_true", help="show predictions in a window")
    p.add_argument(
        "--show-dir",
        metavar="DIR",
        help="save images with label (left) and prediction (right) painted over them, "
        "as DIR/vis_data/vis_image/*.png",
    )
    p.add_argument(
        "--wait-time",
        type=float,
        default=2,
        metavar="SECONDS",
        help="with --show: time of each prediction in the window (default: %(default)s)",
    )
    p.add_argument(
        "--eval-data",
        nargs="+",
        metavar="DATA",
        help="evaluate on other data sets of the same classes instead: names (bdd100k, acdc, ...) "
        "or data files; each score is added to the record beside the checkpoint",
    )
    p.add_argument(
        "--tta",
        action="store_true",
        help="average over augmented images (tta_pipeline); the score is recorded as such and "
        "never ranked",
    )
    p.add_argument(
        "--fps",
        action="store_true",
        help="also measure images per second, latency and peak memory, for the log and the record",
    )
    p.add_argument(
        "--examples",
        action="store_true",
        help="also save the predictions of a few validation images beside the record, which the "
        "report shows; training does so by itself",
    )
    return p


main = command("vfm-ss test", parser, run)
