"""The arguments of a sweep that say which runs, and the cells that they stand for."""

import argparse
import ast
import re
import sys
from collections.abc import Sequence

from vfm_ss.cli.sweep_files import look_up
from vfm_ss.protocol.settings import DATA, DECODERS, SETTINGS
from vfm_ss.protocol.vfms import FAMILIES, SIZES, VFMS
from vfm_ss.sweep.factors import DEFAULTS, PATCHES, Product, of_factors, of_settings
from vfm_ss.text import printable


def add_grid(p: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    grid = p.add_argument_group("which runs", "lists with commas or spaces")
    some = "all, or some of "
    vfms = f"all, {', '.join(FAMILIES)}, timm:NAME, FILE.py, or some of {', '.join(VFMS)}"
    grid.add_argument("--vfms", nargs="+", metavar="VFM", help=vfms)
    grid.add_argument("--settings", nargs="+", metavar="SETTING", help=some + ", ".join(SETTINGS))
    grid.add_argument("--configs", nargs="+", metavar="FILE", help="config files")
    seeds = ["0", "1", "2"]
    grid.add_argument("--seeds", nargs="+", default=seeds, metavar="SEED", help="default: 0 1 2")
    factors = p.add_argument_group(
        "a product of factors, instead of --settings", "what is left out is the default setting's"
    )
    told = {
        "sizes": ("SIZE", some + ", ".join(SIZES)),
        "patches": ("PIXELS", some + ", ".join(map(str, PATCHES))),
        "decoders": ("DECODER", some + ", ".join(DECODERS)),
        "data": ("DATA", f"{some}{', '.join(DATA)}, or data files: FILE.py"),
        "fractions": ("FRACTION", "of the training set: 1, 1/4, 1/16, ..."),
        "steps": ("STEPS", "optimiser steps: 10k, 2500, ... (default: the data's own)"),
    }
    for name in DEFAULTS:
        metavar, text = told[name]
        factors.add_argument(f"--{name}", nargs="+", metavar=metavar, help=text)


def is_named(args: argparse.Namespace) -> bool:
    """Whether the command line says which runs."""
    return any(getattr(args, name) for name in ("vfms", "settings", "configs", *DEFAULTS))


def product_of(args: argparse.Namespace) -> Product | None:
    """Return the cells that the arguments stand for; None where they name config files only.

    Raises:
        ValueError: If a name is unknown, or arguments do not go together.
    """
    vfms, settings = split_list(args.vfms), split_list(args.settings)
    given = {name: split_list(getattr(args, name)) for name in DEFAULTS if getattr(args, name)}
    if given and settings:
        raise ValueError(
            f"--settings and --{next(iter(given))} do not go together: a setting is a point of the "
            "product that --sizes, --patches, ... span"
        )
    if bool(vfms) != bool(settings or given):
        missing = "--settings, or factors as --decoders and --data," if vfms else "--vfms"
        raise ValueError(f"a run is a VFM under a setting; give {missing} too, or 'all'")
    if not vfms:
        return None
    files = [name for name in given.get("data", ()) if name.endswith(".py")]
    own = [name for name in vfms if name.endswith(".py")]
    timm = [name.removeprefix("timm:") for name in vfms if name.startswith("timm:")]
    known = look_up(files, own, timm)
    for file, data in known.data.items():
        for note in data.notes:
            print(printable(f"{file}: {note}"), file=sys.stderr)
    if settings:
        return of_settings(vfms, settings, known.vfms)
    return of_factors(vfms, given, known.data, known.vfms, _img_size(args.cfg_options or ()))


def split_list(names: Sequence[str] | None) -> list[str]:
    """Take lists apart that are separated by commas, by white space or by both."""
    return [part for name in names or () for part in re.split(r"[,\s]+", name) if part]


def option(options: Sequence[str], key: str):
    """Return the value of one of ``--cfg-options``; None where it is not there."""
    for text in reversed(options):
        name, _, value = text.partition("=")
        if name == key:
            try:
                return ast.literal_eval(value)
            except (ValueError, SyntaxError):
                return value
    return None


def _img_size(options: Sequence[str]) -> tuple[int, int] | None:
    size = option(options, "model.backbone.img_size")
    size = (size, size) if isinstance(size, int) else size
    whole = isinstance(size, (tuple, list)) and [type(side) for side in size] == [int, int]
    return tuple(size) if whole else None
