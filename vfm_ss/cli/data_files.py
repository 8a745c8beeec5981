"""What a sweep has to know of a data file and of timm's models, asked in a process of its own."""

import ast
import pprint
from collections.abc import Mapping, Sequence
from pathlib import Path

from vfm_ss.cli.call import foreseen
from vfm_ss.cli.process import answer_with, asked
from vfm_ss.errors import UsageError
from vfm_ss.protocol.settings import DATA, ConfigName, parse_config_name
from vfm_ss.sweep.cells import DataFile

#: Crop and steps of a data file that states none: the paper's on data sets but ADE20K.
CROP, STEPS = (512, 512), 20_000
_TAKEN = ("train_dataloader", "val_dataloader", "test_dataloader")
_EVALUATORS = ("val_evaluator", "test_evaluator")
#: Of a loader, the protocol's.
_PROTOCOL = ("batch_size", "sampler", "batch_sampler", "drop_last")


def look_up(files: Sequence[str], timm_names: Sequence[str]) -> dict[str, DataFile]:
    """Read data files, and refuse names that timm does not know.

    Args:
        files: Config files of data sets.
        timm_names: Names of timm's models.

    Returns:
        What the files say, by their paths.

    Raises:
        UsageError: If one cannot be used; a line that names it.
    """
    if not files and not timm_names:
        return {}
    request = {"files": list(files), "timm": list(timm_names)}
    found = asked("vfm_ss.cli.data_files", request, "the data files cannot be read")
    return {file: as_data(facts) for file, facts in found.items()}


def as_data(facts: Mapping) -> DataFile:
    """Return an answer's facts of a file, which JSON has made lists of."""
    return DataFile(
        **{**facts, "crop_size": tuple(facts["crop_size"]), "notes": tuple(facts["notes"])}
    )


def answer(request: Mapping) -> dict[str, dict]:
    """Do `look_up`'s work, in its process.

    Raises:
        UsageError: As above.
    """
    for name in request["timm"]:
        _check_timm(name)
    found = {}
    for file in request["files"]:
        try:
            found[file] = _read(file)
        except Exception as error:  # a config is code
            reason = foreseen(error) or f"{type(error).__name__}: {error}"
            raise UsageError(f"data file {file}: {' '.join(reason.split())}") from error
    return found


def _check_timm(name: str) -> None:
    import difflib

    import timm

    if name in timm.list_models() or name in timm.list_pretrained():
        return
    near = difflib.get_close_matches(name, [*timm.list_pretrained(), *timm.list_models()])
    hint = f"; near are {', '.join(near)}" if near else ""
    raise UsageError(f"timm:{name}: timm {timm.__version__} has no such model{hint}")


def _read(file: str) -> dict:
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import vfm_ss  # noqa: F401  makes vfm_ss:: known

    if not Path(file).is_file():
        raise ValueError("the file does not exist")
    cfg = Config.fromfile(file)
    init_default_scope(cfg.get("default_scope", "mmseg"))
    notes = []
    crop, steps = cfg.get("crop_size"), cfg.get("steps")
    if crop is None:
        notes.append(f"no crop_size: {CROP[0]}x{CROP[1]}")
    if steps is None:
        notes.append(f"no steps: {STEPS}")
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
    parts = ConfigName("any", "b", 16, "linear", name)
    try:
        told = parse_config_name(str(parts), own=True)
    except ValueError:
        told = None
    if told != parts or not name.isprintable() or "/" in name:
        raise ValueError(
            f"the name {name!r} cannot be part of a config's name, whose end says fraction and "
            "steps; give the data set another"
        )
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
        value = _literal(name, value)
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


def _is_protocol(key: str, value) -> bool:
    return value == {"batch_size": 16, "sampler": {"type": "PositionSampler"}}.get(key)


def _literal(name: str, value):
    """Return a config's value as plain data.

    Raises:
        ValueError: If it is more than that.
    """
    value = _without_scope(value)
    try:
        same = ast.literal_eval(repr(value)) == value
    except (ValueError, SyntaxError):
        same = False
    if not same:
        raise ValueError(
            f"{name} holds more than numbers, texts, lists and dicts, so it cannot be written into "
            "a config; name classes by text"
        )
    return value


def _without_scope(value):
    if isinstance(value, Mapping):
        return {k: _without_scope(v) for k, v in value.items() if k != "_scope_"}
    if isinstance(value, (list, tuple)):
        return type(value)(_without_scope(part) for part in value)
    return value


if __name__ == "__main__":
    answer_with(answer)
