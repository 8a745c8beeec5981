#!/usr/bin/env python
"""Train and evaluate one VFM under one setting."""

import argparse

from vfm_ss.engine import launch


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    launch.add_common_arguments(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="resume from the newest sound checkpoint in the work dir, or from this one",
    )
    parser.add_argument(
        "--amp",
        action="store_true",
        help="force mixed precision: fp16 on a GPU (there the default), bf16 on a CPU",
    )
    parser.add_argument("--seed", type=int, help="random seed; the benchmark runs 0, 1 and 2")
    parser.add_argument(
        "--micro-batch",
        type=lambda text: text if text == "auto" else int(text),
        metavar="N",
        help="images per forward pass, or auto for what fits; results stay the same",
    )
    return parser.parse_args()


if __name__ == "__main__":
    launch.train(parse_args())
