"""What must be the same for a checkpoint to be resumed: model, optimiser, schedule and data."""

import hashlib
import json
import posixpath
from typing import Any

from vfm_ss.protocol import identity
from vfm_ss.protocol.fractions import normal_fraction

_SECTIONS = ("model", "optim_wrapper", "param_scheduler", "train_cfg", "train_dataloader.dataset")
# These change memory, speed or inference, but not the run.
_FREE = (
    "model.backbone.pretrained", "model.pretrained", "model.test_cfg", "model.init_cfg",
    "optim_wrapper.precision", "train_cfg.type", "train_cfg.micro_batch", "train_cfg.val_interval",
    "train_cfg.val_begin", "train_cfg.dynamic_intervals", "train_cfg.nonfinite_loss",
)  # fmt: skip
# Of a data set and its transforms: where files are and how they are read.
_PLACES = identity.PLACES | {
    "data_prefix", "ann_file", "imdecode_backend", "decode_backend", "test_mode",
}  # fmt: skip
_MEMORY = {"with_cp", "compile"}  # of a backbone or neck, wherever it is
_VERSION = "fingerprint"
# Checkpoints without a version know these of their data alone.
_FIRST_OF_DATA = ("type", "times", "reduce_zero_label")


def fingerprint(cfg) -> dict[str, str]:
    """Return what identifies a run, as plain text.

    Args:
        cfg: Config of the run.

    Returns:
        Values as JSON by their dotted names.
    """
    found: dict[str, Any] = {}
    for section in _SECTIONS:
        value: Any = cfg
        for key in section.split("."):
            value = value.get(key) if hasattr(value, "get") else None
        if value is not None:
            identity.flatten(section, value, found)
    normal_fraction(found, "train_dataloader.dataset")
    found = {key: json.dumps(value) for key, value in found.items() if not _is_free(key)}
    return _canonical({**found, _VERSION: "2"})


def difference(saved: dict[str, str], current: dict[str, str]) -> list[str]:
    """Return the names of what differs from the run that saved a checkpoint.

    Args:
        saved: Its fingerprint. One without a version says little of the data and is compared in
            that alone, see `is_first`.
        current: Fingerprint of the run that is to go on.
    """
    saved, first = _canonical(saved), is_first(saved)
    keys = {key for key in {*saved, *current} - {_VERSION} if key.rsplit(".", 1)[-1] not in _MEMORY}
    if first:
        keys = {key for key in keys if not _is_data(key) or key.rsplit(".", 1)[1] in _FIRST_OF_DATA}
        keys -= current.keys() & {"train_cfg.micro_batch"}
    return sorted(key for key in keys if saved.get(key) != current.get(key))


def is_first(saved: dict[str, str]) -> bool:
    """Whether a fingerprint is of the first kind, without the arguments of the transforms."""
    return _VERSION not in saved


def samples_of(dataset) -> dict[str, str | int]:
    """Return how many samples a data set has, and a checksum of their names in their order.

    Names are relative to the folder that holds them all, so that data may move. A data set that
    does not list its samples is described by their number alone.

    Args:
        dataset: An mmengine data set, or a wrapper of some.
    """
    paths = _paths(dataset)
    described: dict[str, str | int] = {"count": len(dataset)}
    if paths:
        root = posixpath.commonprefix(paths).rfind("/") + 1
        text = "\n".join(path[root:] for path in paths)
        described["names"] = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return described


def _paths(dataset) -> list[str] | None:
    parts = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    if parts[0] is not None:
        found = [_paths(part) for part in parts]
        return None if None in found else [path for part in found for path in part]
    if not hasattr(dataset, "get_data_info"):
        return None
    paths = [dataset.get_data_info(i).get("img_path") for i in range(len(dataset))]
    return [str(path) for path in paths] if all(path is not None for path in paths) else None


def _is_data(key: str) -> bool:
    return key.startswith("train_dataloader.dataset")


def _is_free(key: str) -> bool:
    if _is_data(key):
        return not set(key.split(".")).isdisjoint(_PLACES)
    if key.rsplit(".", 1)[-1] in _MEMORY:
        return True
    return any(key == free or key.startswith(f"{free}.") for free in _FREE)


def _canonical(found: dict[str, str]) -> dict[str, str]:
    """Write what means the same in the same way."""
    model_size = _size(found.get("model.backbone.img_size", "null"))
    same = {}
    for key, text in found.items():
        if key.rsplit(".", 1)[-1] in identity.SIZES:
            text = _size(text)
            if _is_data(key) and text == model_size:
                text = "null"  # what a transform takes from the model by itself
        if not (_is_data(key) and text == "null"):
            same[key] = text
    return same


def _size(text: str) -> str:
    return json.dumps(identity.pair(json.loads(text)))
