"""Whom mmengine asks to read a checkpoint.

Checked with mmengine 0.10.7, which cannot read its own checkpoints with torch 2.6 and later, and
onedl-mmengine 0.10.12, which then executes them.
"""

from collections.abc import Callable

from mmengine.runner import checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

_OTHER_SCHEMES = ("pavi://", r"(\S+\:)?s3://", r"(\S+\:)?petrel://")


def use_loaders(local: Callable, http: Callable, other: Callable) -> None:
    """Let mmengine load checkpoints by these functions.

    Args:
        local: Takes a path and ``map_location``.
        http: Takes a URL, ``map_location``, ``model_dir`` and ``progress``.
        other: Takes the address in another storage and ``map_location``.
    """
    schemes = {"": local, "http://": http, "https://": http, **dict.fromkeys(_OTHER_SCHEMES, other)}
    for prefix, loader in schemes.items():
        CheckpointLoader.register_scheme(prefixes=prefix, loader=loader, force=True)
    checkpoint.load_from_http = http  # the other schemes are names of URLs
