"""A cell of a sweep, a VFM under a setting, and the config that trains it."""

import os
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vfm_ss.protocol.settings import (
    DATA,
    RECIPE,
    ConfigName,
    Data,
    all_config_names,
    setting_name,
    split_decoder,
)
from vfm_ss.protocol.vfms import SIZES, VFMS

#: The configs and tools of the repository, which also travel inside an installed package.
MIM = Path(__file__).resolve().parents[1] / ".mim"
#: Words for sizes in the names of timm's models, with their letter.
_WORDS = {arch: letter for letter, arch in SIZES.items()}
_WORDS |= {"tiny": "t", "huge": "h", "giant": "g"}
_SCHEDULES = {40_000: "schedule_40k", 20_000: "schedule_20k"}
_VALIDATIONS = 10
#: Steps of the recipe's warm-up are this share of all: 1,500 of 40,000.
_WARMUP = Fraction(3, 80)


@dataclass(frozen=True)
class DataFile:
    """A data set of one's own, read from a config file; it stands where `Data` does.

    Attributes:
        file: The file.
        name: Name in config names.
        train: What records call the training set.
        eval: What they call the set that is evaluated on.
        crop_size: Height and width of the training crop.
        num_classes: Number of classes.
        steps: Optimiser steps, where nothing else is asked for.
        text: Its loaders as the text of a config.
        own_pipeline: Whether it says itself how training images are loaded.
        notes: What was not taken over, and what was assumed.
    """

    file: str
    name: str
    train: str
    eval: str
    crop_size: tuple[int, int]
    num_classes: int
    steps: int
    text: str
    own_pipeline: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """A VFM of the table, a model of timm's, or one of a file.

    Attributes:
        key: Name in config names.
        size: The letter of its size, where it has one size only: where it is not of the table.
        backbone: Arguments of its backbone as the text of a config, where it is not of the table.
        file: The file that it was read from; records then call it by its key.
    """

    key: str
    size: str | None = None
    backbone: tuple[str, ...] = ()
    file: str | None = None


@dataclass(frozen=True)
class Cell:
    """A point of the product of VFMs and factors.

    Attributes:
        model: The VFM.
        size: ``'s'``, ``'b'``, ``'l'``, or another letter for a model of timm's.
        patch: Side of the square patch, in pixels.
        decoder: One of ``settings.DECODERS``.
        data: What it trains and evaluates on.
        fraction: Share of the training set.
        steps: Optimiser steps; None for those of the data.
    """

    model: Model
    size: str
    patch: int
    decoder: str
    data: Data | DataFile
    fraction: Fraction = Fraction(1)
    steps: int | None = None

    @property
    def name(self) -> str:
        """Name of its config."""
        return str(
            ConfigName(
                self.model.key,
                self.size,
                self.patch,
                self.decoder,
                self.data.name,
                self.fraction,
                self.steps,
            )
        )

    @property
    def setting(self) -> str:
        """Name of its setting, as in records and rankings."""
        return setting_name(
            self.size,
            self.patch,
            self.decoder,
            self.data.train,
            self.data.eval,
            self.fraction,
            self.steps,
        )

    @property
    def length(self) -> int:
        """Optimiser steps of its training."""
        return self.steps or self.data.steps

    @property
    def crop_size(self) -> tuple[int, int]:
        """Height and width of its training crop."""
        size = self.data.crop_size
        return (size, size) if isinstance(size, int) else size

    @property
    def leaf(self) -> Path | None:
        """The config of the repository that trains it; None where there is none."""
        own = isinstance(self.data, DataFile) or self.model.backbone
        written = not own and self.name in _LEAVES
        return MIM / "configs" / "vfm" / f"{self.name}.py" if written else None


_LEAVES = frozenset(all_config_names())


def timm_model(name: str) -> Model:
    """Return a model of timm's by its name there.

    Raises:
        ValueError: If the name does not say the size.
    """
    for word in re.split(r"[_.-]", name):
        if word in _WORDS:
            kind = ('type="TimmViT"', f'model_name="{name}"', "pretrained=True")
            return Model(name, _WORDS[word], kind)
    raise ValueError(
        f"timm:{name} does not say its size by one of the words {', '.join(_WORDS)}; write a "
        "config with default_hooks=dict(record=dict(size=...)) and give it as --configs"
    )


def config_text(cell: Cell) -> str:
    """Return the text of a config that trains a cell.

    It inherits the parts in ``configs/_base_`` by package name, so the file may lie anywhere.
    """
    decoder, frozen = split_decoder(cell.decoder)
    own = isinstance(cell.data, DataFile)
    data = "common" if own else cell.data.name
    recipe = cell.decoder == RECIPE
    schedule = RECIPE if recipe else _SCHEDULES.get(cell.length, "schedule_40k")
    named = cell.length in (_SCHEDULES if not recipe else (40_000,))
    parts = (f"models/{decoder}", f"datasets/{data}", f"schedules/{schedule}", "default_runtime")
    lines = [
        f'"""{cell.name}, as `vfm-ss sweep run` wrote it: vfm-ss train FILE trains it by hand."""',
        "",
        '_base_ = __import__("vfm_ss") and [',
        *(f'    "vfm_ss::_base_/{part}.py",' for part in parts),
        "]",
        "",
        "model = dict(",
        "    backbone=dict(",
        *(f"        {argument}," for argument in _backbone(cell, frozen)),
        "    ),",
        f"    decode_head=dict(num_classes={cell.data.num_classes if own else _BASE_CLASSES}),",
        ")",
    ]
    if own:
        lines += [f"# {os.path.basename(cell.data.file)}, resolved", cell.data.text.rstrip()]
    sampled = {} if cell.fraction == 1 else {"fraction": f'"{cell.fraction}"'}
    if recipe and not (own and cell.data.own_pipeline):
        sampled["pipeline"] = "{{_base_.recipe_train_pipeline}}"
    elif recipe:
        lines.append("# Training images are loaded as the data file says, not as DINOv3 does.")
    if own:
        lines += [f'train_dataloader["dataset"]["{k}"] = {v}' for k, v in sampled.items()]
    elif sampled:
        inner = ", ".join(f"{k}={v}" for k, v in sampled.items())
        lines.append(f"train_dataloader = dict(dataset=dict({inner}))")
    hooks = {}
    if not named:
        interval = max(1, cell.length // _VALIDATIONS)
        lines.append(f"train_cfg = dict(max_iters={cell.length}, val_interval={interval})")
        hooks["checkpoint"] = f"interval={interval}"
        if recipe:
            lines.append(f"param_scheduler = dict(warmup={round(cell.length * _WARMUP)})")
    record = [f"vfm={cell.model.key!r}"] if cell.model.file else []
    record += [f"size={cell.size!r}"] if cell.model.backbone else []
    if own:
        record += [f"train_dataset={cell.data.train!r}", f"eval_dataset={cell.data.eval!r}"]
    if record:
        hooks["record"] = ", ".join(record)
    if hooks:
        inner = ", ".join(f"{name}=dict({text})" for name, text in hooks.items())
        lines.append(f"default_hooks = dict({inner})")
    return "\n".join(lines) + "\n"


_BASE_CLASSES = "{{_base_.num_classes}}"


def _backbone(cell: Cell, frozen: bool) -> list[str]:
    own = isinstance(cell.data, DataFile)
    size = repr(cell.crop_size) if own else "{{_base_.crop_size}}"
    if cell.model.backbone:
        kind = ["_delete_=True", *cell.model.backbone]
    else:
        kind = [f'type="{VFMS[cell.model.key].name}"', f'arch="{SIZES[cell.size]}"']
    return [*kind, f"patch_size={cell.patch}", f"img_size={size}", *["frozen=True"] * frozen]


def builtin(name: str) -> Data:
    """Return data of the benchmark's.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in DATA:
        raise ValueError(
            f"unknown data: {name!r}, expected one of {', '.join(DATA)}, or a file: FILE.py"
        )
    return DATA[name]
