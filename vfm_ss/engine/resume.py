"""Which checkpoint a run goes on from, and whether a checkpoint is one of its model."""

import logging
from collections.abc import Iterable
from pathlib import Path

from mmengine.runner import Runner
from torch import nn

from vfm_ss.checkpoint_reader import find_damage
from vfm_ss.compat.runner import is_training, load_from
from vfm_ss.found_files import read
from vfm_ss.models.backbones.late_weights import fit_structure, names_of

from .checkpoint_io import weights_of

#: mmengine's name for the file in a work dir that names the newest checkpoint.
POINTER = "last_checkpoint"


def newest_sound(
    pointer: Path, folder: Path, checkpoints: list[Path], logger: logging.Logger
) -> str | None:
    """Return the checkpoint to go on from, or None where there is none yet.

    Args:
        pointer: mmengine's file in the work dir that names the newest checkpoint. One that it names
            elsewhere comes first, as somebody wants it.
        folder: Folder of the run's own checkpoints.
        checkpoints: These, newest first; damaged ones are skipped with a warning.
        logger: Of the run.

    Raises:
        FileNotFoundError: If the file names a checkpoint that is gone and there is no other.
        ValueError: If none of them can be read.
    """
    named = _read_pointer(pointer)
    if named is not None and named.is_file() and named.name not in [c.name for c in checkpoints]:
        if named.parent.resolve() != folder.resolve():
            logger.warning(
                f"{pointer} names {named}, of another folder, and there is none of that name "
                f"in {folder}: the run goes on from that one."
            )
        checkpoints = [named, *checkpoints]
    if not checkpoints:
        if named is not None:
            raise FileNotFoundError(
                f"{pointer} names {named}, which is gone, and there is no other checkpoint; "
                f"delete {pointer.name} to train from the start"
            )
        logger.info(f"No checkpoint in {pointer.parent} yet: training from the start.")
        return None
    if named is None:
        logger.warning(f"{pointer} is missing or damaged; looking at all checkpoints.")
    reason = ""
    for path in checkpoints:
        try:
            reason = find_damage(path)
        except OSError as error:
            reason = str(error)
        if reason is None:
            return str(path)
        logger.warning(f"Skipped checkpoint {path}: {reason}.")
    raise ValueError(
        f"none of the {len(checkpoints)} checkpoint(s) in {checkpoints[-1].parent} can be "
        f"read, the last one because {reason}; delete them to train from the start"
    )


def check_weights(runner: Runner, checkpoint: dict) -> None:
    """Refuse weights that leave a model as it was made: mmengine would warn and go on.

    Raises:
        ValueError: If an evaluation lacks a weight or leaves one of the model's parts out, or a
            training gets none at all.
    """
    check_model_weights(runner.model, checkpoint, load_from(runner), is_training(runner))


def check_model_weights(
    model: nn.Module, checkpoint: dict, name: str, training: bool = False
) -> None:
    """Refuse weights that leave a model as it was made; see `check_weights`.

    Args:
        model: The model, perhaps in a wrapper.
        checkpoint: What was read.
        name: Its path, for the message.
        training: Whether a part of the weights is enough.
    """
    while hasattr(model, "module"):  # processes, or augmentation in tests
        model = model.module
    state = weights_of(checkpoint)
    fit_structure(model, state)
    shapes = {name: value.shape for name, value in state.items()}
    wanted = {name: value.shape for name, value in model.named_parameters()}
    lacking = [name for name, shape in wanted.items() if shapes.get(name) != shape]
    if lacking and not (training and len(lacking) < len(wanted)):
        first = lacking[0]
        is_other = f"of shape {tuple(shapes[first])}" if first in shapes else "missing"
        raise ValueError(
            f"{name} is of another model: {len(lacking)} of {len(wanted)} weights do not "
            f"fit, such as {first} {tuple(wanted[first])}, which is {is_other} there; use the "
            "config that it was trained with"
        )
    if not training:
        _check_no_more(model, shapes, name)


def _check_no_more(model: nn.Module, found: Iterable[str], name: str) -> None:
    """Refuse a checkpoint of a model that computes more: of more blocks, with registers, ...

    Heads that the config leaves out, as mmseg's auxiliary ones, are no part of what is evaluated.
    """
    held = names_of(model)
    parts = {weight.partition(".")[0] for weight in held}
    more = [w for w in found if w not in held and w.partition(".")[0] in parts]
    lacking = [w for w in held if w not in found and not w.endswith("num_batches_tracked")]
    if more or lacking:
        what = f"has {len(more)} weight(s) that the model of the config lacks" if more else ""
        what = what or f"lacks {len(lacking)} buffer(s) of the model"
        raise ValueError(
            f"{name} is of another model: it {what}, such as {min(more or lacking)}; use the "
            "config that it was trained with"
        )


def _read_pointer(pointer: Path) -> Path | None:
    try:
        text = read(pointer, 2**16).decode().strip()
    except ValueError:
        return None
    return Path(text) if text.isprintable() and text.endswith(".pth") else None
