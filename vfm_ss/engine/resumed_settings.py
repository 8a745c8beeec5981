"""What a resumed run may not change in its evaluation, and what it may with a remark."""

from typing import Any

from mmengine.runner import Runner

from vfm_ss.compat.runner import load_from
from vfm_ss.protocol import identity

from .optim_wrapper import precision_of
from .remarks import remark

#: Key of a checkpoint.
SETTINGS = "settings"
_EVALUATION = ("val_dataloader.", "val_evaluator.", "val_cfg.", "model.test_cfg.")
# Beside what the fingerprint compares; a precision that is not stated follows the device.
_NOTED = ("train_dataloader.", "default_hooks.", "custom_hooks.", "auto_scale_lr.")
_DATA = "train_dataloader.dataset."
_PATHS = {"ann_file", "data_prefix", "images", "labels", "split"}


def settings(runner: Runner) -> dict[str, Any]:
    """Return what is compared when the run is resumed: plain data."""
    return {
        "identity": identity.identity(runner.cfg),
        "precision": precision_of(runner.optim_wrapper),
    }


def compare_settings(runner: Runner, before: dict[str, Any]) -> None:
    """Compare a resumed run with what its checkpoint says of it.

    Args:
        runner: The runner, which has taken up the checkpoint.
        before: Its `settings`; empty where an older version saved it.

    Raises:
        ValueError: If it is evaluated otherwise: one history would hold scores of two kinds.
    """
    if not before:
        return
    current = settings(runner)
    was, now = before["identity"], current["identity"]
    keys = [
        key
        for key in identity.differing(was, now)
        if not (_last(was.get(key)) == _last(now.get(key)) and _is_path(key))
    ]
    told = identity.texts(was), identity.texts(now)
    evaluation = [key for key in keys if key.startswith(_EVALUATION)]
    if evaluation:
        raise ValueError(
            f"{load_from(runner)} is of a run that is evaluated otherwise: "
            f"{identity.describe(evaluation, *told)}. Its scores cannot be compared with new ones: "
            "go on with its own evaluation, and make the other one by vfm-ss test"
        )
    noted = [key for key in keys if key.startswith(_NOTED) and not key.startswith(_DATA)]
    if noted:
        remark(runner, f"resumed at step {runner.iter}: {identity.describe(noted, *told)}")
    if current["precision"] != before["precision"]:
        remark(
            runner,
            f"resumed at step {runner.iter} in {current['precision']}; the steps before are in "
            f"{before['precision']}",
        )


def _is_path(key: str) -> bool:
    return not _PATHS.isdisjoint(key.split("."))


def _last(path: Any) -> Any:
    """Return the last part of a path: data may move."""
    return path.rstrip("/").rpartition("/")[2] if isinstance(path, str) else path
