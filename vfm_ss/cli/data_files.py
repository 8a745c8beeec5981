"""Data files: what a sweep has to know of one. Runs in the process of `sweep_files`."""

import pprint
from collections.abc import Mapping
from pathlib import Path

from vfm_ss.cli.plain_data import check_name, imported_config, literal
from vfm_ss.protocol.settings import DATA, ConfigName

#: Crop and steps of a data file that states none: the paper's on data sets but ADE20K.
CROP, STEPS = (512, 512), 20_000
_TAKEN = ("train_dataloader", "val_dataloader", "test_dataloader")
_EVALUATORS = ("val_evaluator", "test_evaluator")
#: Of a loader, the protocol's.
_PROTOCOL = ("batch_size", "sampler", "batch_sampler", "drop_last")


def read_data(file: str) -> dict:
    """Read a data file.

    Args:
        file: The file.

    Returns:
        The fields of a `sweep.cells.DataFile`.

    Raises:
        ValueError: If it cannot be used.
    """
    cfg = imported_config(file)
    notes = []
    crop, steps = cfg.get("crop_size"), cfg.get("steps")
    if crop is None:
        notes.append(f"states no crop_size, the default is {CROP[0]}x{CROP[1]}")
    if steps is None:
        notes.append(f"states no steps, the default is {STEPS}")
    crop = _size(CROP if crop is None else crop)
    steps = STEPS if steps is None else steps
    if type(steps) is not int or steps < 1:
        raise ValueError(f"steps is {steps!r}, expected a number of optimiser steps")
    train, val = (_dataset(cfg, name) for name in _TAKEN[:2])
    classes = len(train.metainfo.get("classes") or ())
    stated = cfg.get("num_classes")
    if not classes or classes != len(val.metainfo.get("classes") or ()):
        raise ValueError("train_dataloader and val_dataloader have to have the same classes")
    if stated is not None and stated != classes:
        raise ValueError(f"num_classes is {stated}, but the data set has {classes} classes")
    name, *names = _names(file, train, val)
    text, left_out = _text(cfg)
    notes += [f"left out: {what}, which is the benchmark's" for what in left_out]
    return {
        "file": file,
        "name": name,
        "train": names[0],
        "eval": names[1],
        "crop_size": crop,
        "num_classes": classes,
        "steps": steps,
        "text": text,
        "own_pipeline": _has_pipeline(cfg.train_dataloader.dataset),
        "notes": notes,
    }


def _size(value) -> tuple[int, int]:
    size = (value, value) if isinstance(value, int) else tuple(value)
    if len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise ValueError(f"crop_size is {value!r}, expected height and width in pixels")
    return size


def _dataset(cfg, loader: str):
    """Build a data set without looking for its files."""
    from mmseg.registry import DATASETS

    dataset = (cfg.get(loader) or {}).get("dataset")
    if not isinstance(dataset, Mapping) or "type" not in dataset:
        raise ValueError(f"it has no {loader} with a dataset of a type")
    return DATASETS.build(_lazy(dataset))


def _lazy(dataset: Mapping) -> dict:
    """Return the config of a data set, or of wrappers of some, that does not look for files."""
    if "fraction" in dataset:
        raise ValueError("dataset.fraction is stated in it; give --fractions instead")
    lazy = {**dataset, "lazy_init": True}
    if isinstance(dataset.get("dataset"), Mapping):
        return {**lazy, "dataset": _lazy(dataset["dataset"])}
    if dataset.get("datasets"):
        return {**lazy, "datasets": [_lazy(part) for part in dataset["datasets"]]}
    lazy.pop("pipeline", None)
    return lazy


def _names(file: str, train, val) -> tuple[str, str, str]:
    """Return the name in config names, and what records call training and evaluation set."""
    from mmseg.datasets import BaseSegDataset

    from vfm_ss.datasets.probe import parts
    from vfm_ss.engine.run_facts import dataset_name

    stem = Path(file).stem
    names = [
        stem if {type(part) for part in parts(d)} == {BaseSegDataset} else dataset_name(d)
        for d in (train, val)
    ]
    name = names[0] if names[0] == names[1] else "2".join(names)
    published = {n for data in DATA.values() for n in (data.name, data.train, data.eval)}
    if name in published:  # another way to read it: not the benchmark's
        name, names = stem, [stem, stem]
    if name in published:
        raise ValueError(
            f"its data would be called {name!r}, as the benchmark's own, and ranked with it; "
            "rename the file"
        )
    check_name("data set", name, ConfigName("any", "b", 16, "linear", name))
    return name, *names


def _text(cfg) -> tuple[str, list[str]]:
    """Write the loaders as the text of a config that inherits the benchmark's own."""
    left_out, lines = [], []
    imports = [*(cfg.get("custom_imports") or {}).get("imports", ()), "vfm_ss"]
    if len(set(imports)) > 1:
        imports = list(dict.fromkeys(["vfm_ss", *imports]))
        lines.append(f"custom_imports = dict(imports={imports!r}, allow_failed_imports=False)")
    for name in (*_TAKEN, *_EVALUATORS, "eval_data"):
        value = cfg.get(name)
        if value is None:
            continue
        value = literal(name, value)
        if name in _TAKEN:
            for key in _PROTOCOL:
                found = value.pop(key, None)
                if found is not None and name == _TAKEN[0] and not _is_protocol(key, found):
                    left_out.append(f"{name}.{key}={found!r}")
        elif name in _EVALUATORS and isinstance(value, dict):
            value["_delete_"] = True
        lines.append(f"{name} = {pprint.pformat(value, width=92, sort_dicts=False)}")
    if cfg.get("test_dataloader") is None:
        lines.append("test_dataloader = val_dataloader")
    return "\n".join(lines), left_out


def _has_pipeline(dataset: Mapping) -> bool:
    """Return whether it says how images are loaded in another way than the benchmark's."""
    steps = dataset.get("pipeline") or ()
    plain = [step.get("type") for step in steps] in ([], ["LoadRandomCrop", "PackSegInputs"])
    options = any(set(step) - {"type", "_scope_"} for step in steps)
    return not plain or options or "dataset" in dataset or "datasets" in dataset


def _is_protocol(key: str, value) -> bool:
    return value == {"batch_size": 16, "sampler": {"type": "PositionSampler"}}.get(key)
