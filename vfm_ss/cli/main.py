"""The command ``vfm-ss``: a command of it is a module of this folder with ``main(argv, prog)``.

A module is imported when it is called, so that help, ranking and a sweep's status start at once.
Nothing else is imported before `main` minds Ctrl-C.
"""

import sys

COMMANDS = {
    "train": "train and evaluate one VFM under one setting",
    "test": "evaluate a checkpoint, paint its predictions",
    "predict": "predict any images with a trained model",
    "sweep": "train many runs, and see how far they are",
    "rank": "rank VFMs from finished runs: tables, Kendall's tau, a page",
    "check-data": "check the data of a config before training",
    "export": "export a trained model to ONNX or torch.export, and compare the two",
    "publish": "make a folder of a trained model that can be given away",
    "info": "show versions, devices and what is missing; facts about a VFM",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Name of the command and its arguments; those of the process by default.

    Returns:
        Exit status.
    """
    try:
        import importlib

        args = _parser().parse_args(argv)
        module = importlib.import_module(f"vfm_ss.cli.{args.command.replace('-', '_')}")
        return module.main(args.arguments, prog=f"vfm-ss {args.command}")
    except KeyboardInterrupt:  # before the command could look after it
        return 130
    finally:
        if argv is None:
            from vfm_ss.cli.call import exit_at_interrupt

            exit_at_interrupt()


def _parser():
    import argparse
    from textwrap import fill

    from vfm_ss.cli.call import EXIT_STATUSES
    from vfm_ss.version import __version__

    width = max(map(len, COMMANDS))
    p = argparse.ArgumentParser(
        prog="vfm-ss",
        usage="vfm-ss COMMAND [ARGUMENTS]",
        description="Benchmark vision foundation models for semantic segmentation.\n\ncommands:\n"
        + "\n".join(f"  {name:{width}}  {words}" for name, words in COMMANDS.items()),
        epilog=f"vfm-ss COMMAND --help says more.\n{fill(EXIT_STATUSES, 80)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--version", action="version", version=f"vfm-ss {__version__}")
    p.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    p.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return p


if __name__ == "__main__":
    sys.exit(main())
