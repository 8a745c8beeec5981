#!/usr/bin/env python
"""Evaluate a checkpoint, and paint its predictions over the images."""

import argparse

from vfm_ss.engine import launch


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    launch.add_common_arguments(parser)
    parser.add_argument("checkpoint", help="checkpoint, for example work_dirs/x/iter_40000.pth")
    parser.add_argument("--out", metavar="DIR", help="save predicted label maps in this folder")
    parser.add_argument("--show", action="store_true", help="show predictions in a window")
    parser.add_argument(
        "--show-dir",
        metavar="DIR",
        help="save images with label (left) and prediction (right) painted over them, "
        "as DIR/vis_data/vis_image/*.png",
    )
    parser.add_argument(
        "--wait-time", type=float, default=2, help="seconds between two shown predictions"
    )
    parser.add_argument("--tta", action="store_true", help="average over augmented images")
    return parser.parse_args()


if __name__ == "__main__":
    launch.test(parse_args())
