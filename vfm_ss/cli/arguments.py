"""Arguments that several commands share."""

import argparse
from pathlib import Path


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the config and its overrides."""
    parser.add_argument("config", type=_existing_config, metavar="CONFIG", help="config file")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=_KeyValues,
        default={},
        metavar="KEY=VALUE",
        help="override parts of the config, for example train_cfg.max_iters=1000; "
        "lists as key=a,b or key='[a,b]', no white space",
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the checkpoint of a trained model."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="checkpoint, for example work_dirs/x/iter_40000.pth",
    )


def add_launch(parser: argparse.ArgumentParser) -> None:
    """Add what mmseg's train and test tools share beside the config."""
    parser.add_argument(
        "--work-dir",
        metavar="DIR",
        help="folder of logs, checkpoints and record; default work_dirs/<config name>",
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="job launcher; dist_train.sh and dist_test.sh pass pytorch",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)


def count(text: str, least: int = 0) -> int:
    """Read a whole number, as the ``type`` of an argument."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a number from {least}, got {text!r}")
    return int(text)


def _existing_config(text: str) -> str:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(
            f"config {text} does not exist; configs/vfm holds the benchmark's"
        )
    return text


class _KeyValues(argparse.Action):
    """mmengine's ``DictAction``, imported when it is needed: ``--help`` needs no torch."""

    def __call__(self, parser, namespace, values, option_string=None):
        from vfm_ss.compat import stack

        stack.check()
        from mmengine.config import DictAction

        for item in values:
            if "=" not in item:
                parser.error(f"argument {option_string}: {item!r} is not KEY=VALUE")
        DictAction(self.option_strings, self.dest)(parser, namespace, values, option_string)
