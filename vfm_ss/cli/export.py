"""Export a trained model to ONNX or torch.export, compared with the original on real images."""

import argparse

from vfm_ss.cli.arguments import add_checkpoint, add_config
from vfm_ss.cli.call import EXIT_STATUSES, command


def run(args: argparse.Namespace) -> None:
    """Export and print what was compared and written."""
    from vfm_ss.deploy.export import export

    for line in export(**vars(args)):
        print(line, flush=True)


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        epilog=f"The graph takes RGB images (B, 3, H, W) of 0 to 255 at the size that the network "
        f"is built for. Sliding windows around it: docs/export.md. {EXIT_STATUSES}",
    )
    add_config(p)
    add_checkpoint(p)
    p.add_argument(
        "--out",
        nargs="+",
        required=True,
        metavar="FILE",
        help="files to write: .onnx, .pt2 for a torch.export program, or both",
    )
    p.add_argument(
        "--dynamic-batch", action="store_true", help="take any number of images, not one alone"
    )
    p.add_argument(
        "--fp16",
        action="store_true",
        help="compute in half precision; the allowed difference is then 5 %% of the largest logit",
    )
    p.add_argument("--argmax", action="store_true", help="give classes (B, H, W) instead of logits")
    p.add_argument(
        "--input-type",
        choices=("uint8", "float32"),
        default="uint8",
        help="type of the images, whose values are 0 to 255 either way",
    )
    p.add_argument(
        "--images",
        nargs="+",
        default=(),
        metavar="FILE",
        help="images to compare on, instead of some of the config's test data",
    )
    return p


main = command("vfm-ss export", parser, run)
