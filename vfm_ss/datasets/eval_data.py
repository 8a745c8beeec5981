"""Further data sets to evaluate on: ``eval_data`` of a config, each by name or by its data file."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmseg.registry import DATASETS

from vfm_ss.config_file import read_config

from .probe import class_names

_FOLDER = Path(__file__).resolve().parents[1] / ".mim" / "configs" / "_base_" / "datasets"
#: What they share, and one that is evaluated on another's set.
_NO_SETS = ("common", "gta2cityscapes")


def eval_items(cfg: Mapping) -> list[str]:
    """Return what a config's ``eval_data`` names: data sets of ours, or data files.

    Args:
        cfg: The config. ``eval_data`` is a list, or one name.

    Raises:
        ValueError: If it holds anything else, or something twice.
    """
    stated = cfg.get("eval_data") or []
    items = [stated] if isinstance(stated, str) else stated
    if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
        raise ValueError(
            f"eval_data is {stated!r}; expected a list of names and data files, as in "
            "['bdd100k', 'my_data.py']"
        )
    for item in items:
        if list(items).count(item) > 1:
            raise ValueError(f"eval_data names {item!r} twice")
    return list(items)


def eval_loader(cfg: Mapping, item: str) -> ConfigDict:
    """Return the config of the dataloader for a further data set.

    It is the config's own ``val_dataloader``, pipeline included, with the data set of another one:
    all sets are evaluated in the same way.

    Args:
        cfg: The run's config.
        item: A name of ours, or a data file; its ``val_dataloader`` says what is evaluated on.

    Raises:
        ValueError: If the name is unknown, or the file has no ``val_dataloader``.
        FileNotFoundError: If there is no such file.
    """
    if cfg.get("val_dataloader") is None:
        raise ValueError("eval_data needs a val_dataloader in the config, whose pipeline it uses")
    dataset = copy.deepcopy(_data_file(item).get("val_dataloader", {}).get("dataset"))
    if dataset is None:
        raise ValueError(f"{item}: the data file has no val_dataloader to evaluate on")
    loader = copy.deepcopy(cfg["val_dataloader"])
    _set_pipeline(dataset, _pipeline(loader["dataset"]))
    loader["dataset"] = dataset
    loader["persistent_workers"] = False  # several sets of workers would wait for the next time
    return ConfigDict(loader)


def without_files(dataset: Mapping):
    """Build a data set of which only the classes and the name are asked; its files may be missing.

    Args:
        dataset: Its config.
    """
    return DATASETS.build(_lazy(dataset))


def refuse_other_classes(own, other, item: str) -> None:
    """Refuse a data set whose classes are not those of the run.

    Args:
        own: The data set that the run is evaluated on.
        other: The further one.
        item: What ``eval_data`` calls it.

    Raises:
        ValueError: If a class is another one; the line names the first.
    """
    names, others = class_names(own), class_names(other)
    if names == others:
        return
    if sorted(names) == sorted(others):
        raise ValueError(
            f"eval_data: {item} has the run's classes in another order; state order={names} in "
            "its FolderDataset"
        )
    k = next(
        (k for k, pair in enumerate(zip(names, others, strict=False)) if pair[0] != pair[1]),
        min(len(names), len(others)),
    )
    told = [repr(found[k]) if k < len(found) else "missing" for found in (others, names)]
    raise ValueError(
        f"eval_data: the classes of {item} are not the run's: class {k} is {told[0]}, the run's "
        f"{told[1]} ({len(others)} and {len(names)} classes)"
    )


def _data_file(item: str) -> Config:
    if item.endswith(".py"):
        if not Path(item).is_file():
            raise FileNotFoundError(f"eval_data: the data file {item} does not exist")
        return read_config(item)
    known = sorted(path.stem for path in _FOLDER.glob("*.py") if path.stem not in _NO_SETS)
    if item not in known:
        raise ValueError(
            f"eval_data: {item!r} is neither one of {', '.join(known)} nor a data file (.py)"
        )
    return read_config(_FOLDER / f"{item}.py")


def _lazy(dataset: Mapping) -> dict:
    lazy = dict(dataset, lazy_init=True)
    if isinstance(lazy.get("dataset"), Mapping):
        lazy["dataset"] = _lazy(lazy["dataset"])
    if lazy.get("datasets"):
        lazy["datasets"] = [_lazy(part) for part in lazy["datasets"]]
    return lazy


def _pipeline(dataset: Mapping) -> list:
    """Return the transforms of a data set's config, also of one in wrappers."""
    if dataset.get("pipeline"):
        return dataset["pipeline"]
    inner = [dataset.get("dataset"), *(dataset.get("datasets") or ())]
    return next((found for part in inner if part and (found := _pipeline(part))), [])


def _set_pipeline(dataset: Mapping, pipeline: list) -> None:
    inner = [dataset.get("dataset"), *(dataset.get("datasets") or ())]
    if any(inner):
        for part in filter(None, inner):
            _set_pipeline(part, pipeline)
        return
    dataset["pipeline"] = copy.deepcopy(pipeline)
    dataset["test_mode"] = True
