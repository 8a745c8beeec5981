"""The benchmark's grid as data: eight settings, and the names of the configs that run them.

Names, configs, sweep and ranking all read this module. Standard library only.
"""

import re
from dataclasses import dataclass, field
from fractions import Fraction

from vfm_ss.protocol.fractions import fraction_name, parse_fraction
from vfm_ss.protocol.vfms import SIZES, VFMS

#: A linear probe by another recipe than the benchmark's: that of DINOv3's evaluation.
RECIPE = "dinov3-probe"
DECODERS = (
    "linear",
    "probe",
    "mask2former",
    "mask2former-probe",
    "eomt",
    "eomt-probe",
    RECIPE,
)
#: Keys of heads whose decoder is not called after them.
_HEADS = {("linear", True): "probe", ("bn-linear", True): RECIPE}


@dataclass(frozen=True)
class Data:
    """What a setting trains and evaluates on.

    Attributes:
        name: Name in config file names, for example ``gta2cityscapes``.
        train: Dataset trained on, as in records.
        eval: Dataset evaluated on, as in records.
        crop_size: Side of the square training crop, in pixels.
        num_classes: Number of classes.
        steps: Optimiser steps of 16 images.
    """

    name: str
    train: str
    eval: str
    crop_size: int
    num_classes: int
    steps: int


DATA = {
    data.name: data
    for data in (
        Data("ade20k", "ade20k", "ade20k", crop_size=512, num_classes=150, steps=40_000),
        Data("voc2012", "voc2012", "voc2012", crop_size=512, num_classes=21, steps=20_000),
        Data(
            "cityscapes", "cityscapes", "cityscapes", crop_size=1024, num_classes=19, steps=20_000
        ),
        Data("gta2cityscapes", "gta", "cityscapes", crop_size=1024, num_classes=19, steps=20_000),
    )
}


@dataclass(frozen=True)
class Setting:
    """One way to benchmark a VFM; the paper's eight are in ``SETTINGS``.

    Attributes:
        name: Short name, for example ``patch8``.
        title: Name in tables and figures.
        size: ``'s'``, ``'b'`` or ``'l'``, the ViT's size as in config names.
        patch: Side of the square patch, in pixels.
        decoder: ``'linear'``, ``'mask2former'`` or ``'eomt'``; ``'probe'`` is the linear decoder on
            a frozen encoder, and ``-probe`` behind another says the same of it; ``'dinov3-probe'``
            is that of DINOv3's evaluation, which differs in more than the decoder.
        data: What it trains and evaluates on.
        paper_tau: Kendall's tau published in the paper (arXiv 2404.12172), by the name of the
            setting that it is measured against.
        paper_time: The paper's training time relative to the default (Table 3), where published.
        paper_params: The paper's trainable parameters in millions (Table 3), where published.
    """

    name: str
    title: str
    size: str = "b"
    patch: int = 16
    decoder: str = "linear"
    data: Data = DATA["ade20k"]
    paper_tau: dict[str, float] = field(default_factory=dict)
    paper_time: float | None = None
    paper_params: float | None = None


#: The paper's eight settings in its order; each changes one thing of the first.
SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("default", "Default", paper_time=1.0, paper_params=86.6),
        Setting(
            "probe",
            "Linear probing",
            decoder="probe",
            paper_tau={"default": 0.38},
            paper_time=0.6,
            paper_params=0.1,
        ),
        Setting(
            "mask2former",
            "Mask2Former",
            decoder="mask2former",
            paper_tau={"default": 0.87},
            paper_time=4.1,
            paper_params=101.0,
        ),
        Setting(
            "large",
            "ViT-L",
            size="l",
            paper_tau={"default": 0.87},
            paper_time=1.8,
            paper_params=304.0,
        ),
        Setting(
            "patch8",
            "8×8 patches",
            patch=8,
            paper_tau={"default": 0.78},
            paper_time=1.8,
            paper_params=88.5,
        ),
        Setting("voc2012", "PASCAL VOC", data=DATA["voc2012"], paper_tau={"default": 0.78}),
        Setting("cityscapes", "Cityscapes", data=DATA["cityscapes"], paper_tau={"default": 0.56}),
        Setting(
            "gta2cityscapes",
            "GTA V to Cityscapes",
            data=DATA["gta2cityscapes"],
            paper_tau={"default": 0.64, "cityscapes": 0.73},
        ),
    )
}

_BY_FIELDS = {(s.size, s.patch, s.decoder, s.data.train, s.data.eval): s for s in SETTINGS.values()}
#: Optimiser steps by what is trained on.
_STEPS = {data.train: data.steps for data in DATA.values()}

#: A name with a decoder that there is, then with any: a data set may be called `a1_f2`.
_NAMES = [
    re.compile(
        rf"(?P<vfm>.+)_(?P<size>[a-z])(?P<patch>[1-9][0-9]{{0,8}})_(?P<decoder>{decoder})_"
        r"(?P<data>.+?)(?:_f(?P<fraction>[1-9][0-9]{0,8}(?:of[1-9][0-9]{0,8})?))?"
        r"(?:_(?P<steps>[1-9][0-9]{0,8})(?P<unit>k|steps))?"
    )
    for decoder in ("|".join(DECODERS), "[^_]+")
]


@dataclass(frozen=True)
class ConfigName:
    """A config's name, ``{vfm}_{size}{patch}_{decoder}_{data}[_{fraction}][_{steps}]``, in parts.

    Attributes:
        vfm: Key of the VFM, for example ``dinov2``.
        size: ``'s'``, ``'b'`` or ``'l'``.
        patch: Side of the square patch, in pixels.
        decoder: One of ``DECODERS``.
        data: Key of ``DATA``; in a project of its own, the name of its dataset.
        fraction: Share of the training set; ``f16`` in the name for 1/16.
        steps: Optimiser steps, where they are not the data's own; ``10k`` or ``300steps``.
    """

    vfm: str
    size: str
    patch: int
    decoder: str
    data: str
    fraction: Fraction = Fraction(1)
    steps: int | None = None

    def __str__(self) -> str:
        """Return the name, without ``.py``."""
        model = f"{self.vfm}_{self.size}{self.patch}_{self.decoder}_{self.data}"
        return model + _suffix(self.fraction, self.steps)

    @property
    def train_dataset(self) -> str:
        """The dataset trained on, as in records."""
        return DATA[self.data].train if self.data in DATA else self.data

    @property
    def eval_dataset(self) -> str:
        """The dataset evaluated on, as in records."""
        return DATA[self.data].eval if self.data in DATA else self.data

    @property
    def setting(self) -> str:
        """The setting's name, see `setting_name`."""
        return setting_name(
            self.size,
            self.patch,
            self.decoder,
            self.train_dataset,
            self.eval_dataset,
            self.fraction,
            self.steps,
        )


def config_name(vfm: str, setting: str) -> str:
    """Return the name of the config that runs ``vfm`` under ``setting``.

    Args:
        vfm: A key of ``VFMS``.
        setting: A key of ``SETTINGS``.

    Raises:
        ValueError: If either is unknown, or the VFM is not published at the setting's size.
    """
    _one_of("VFM", vfm, VFMS)
    _one_of("setting", setting, SETTINGS)
    s = SETTINGS[setting]
    VFMS[vfm].timm_name(SIZES[s.size])
    return str(ConfigName(vfm, s.size, s.patch, s.decoder, s.data.name))


def all_config_names() -> list[str]:
    """Return the names of all configs of the benchmark.

    Every VFM under every setting, save those at a size at which a VFM is not published.
    """
    return [
        config_name(vfm, setting.name)
        for setting in SETTINGS.values()
        for vfm in VFMS
        if is_published(vfm, setting.name)
    ]


def is_published(vfm: str, setting: str) -> bool:
    """Return whether there are weights of a VFM at the size of a setting."""
    return SIZES[SETTINGS[setting].size] in VFMS[vfm].archs


def parse_config_name(name: str, *, own: bool = False) -> ConfigName:
    """Take a config's name apart.

    Combinations outside the eight settings (``dinov2_l16_mask2former_cityscapes``) are names too.

    Args:
        name: Name without folder and ``.py``.
        own: Whether a VFM, size or dataset of the project's own is accepted.

    Raises:
        ValueError: If the name does not follow the grammar or a part of it is unknown.
    """
    match = _NAMES[0].fullmatch(name) or _NAMES[1].fullmatch(name)
    if match is None:
        raise ValueError(
            f"{name!r} is not a config name: expected {{vfm}}_{{s|b|l}}{{patch}}_"
            f"{{{'|'.join(DECODERS)}}}_{{{'|'.join(DATA)}}}, for example dinov2_b16_linear_ade20k"
        )
    numerator, _, denominator = (match["fraction"] or "1").rpartition("of")
    steps = int(match["steps"] or 0) * (1000 if match["unit"] == "k" else 1)
    parts = ConfigName(
        match["vfm"],
        match["size"],
        int(match["patch"]),
        match["decoder"],
        match["data"],
        Fraction(int(numerator or 1), int(denominator)),
        steps or None,
    )
    if str(parts) != name or parts.fraction > 1:
        raise ValueError(
            f"{name!r} is not a config name: a fraction of the training set is at most 1 and in "
            "lowest terms, as in f16 and f3of4, thousands of steps are written 10k, others 300steps"
        )
    _one_of(f"decoder in {name!r}", parts.decoder, DECODERS)
    if not own:
        _one_of(f"VFM in {name!r}", parts.vfm, VFMS)
        _one_of(f"size in {name!r}", parts.size, SIZES)
        _one_of(f"data in {name!r}", parts.data, DATA)
    return parts


def setting_name(
    size: str | None,
    patch: int | None,
    decoder: str,
    train_dataset: str,
    eval_dataset: str,
    fraction: Fraction | float | None = None,
    steps: int | None = None,
) -> str:
    """Name the setting that these fields of a record stand for.

    The paper's eight keep their short names. Anything else (another combination, or a project's
    own dataset) is called after its fields as in config names, ``l16_mask2former_cityscapes``,
    ``b16_linear_camvid`` or ``b16_linear_ade20k_f16_10k``; fields that are not known are left out.

    Args:
        size: See `Setting`.
        patch: See `Setting`.
        decoder: See `Setting`.
        train_dataset: See `Data`.
        eval_dataset: See `Data`.
        fraction: Share of the training set; None for all of it.
        steps: Optimiser steps; None for those of the data.
    """
    suffix = _suffix(
        Fraction(1) if fraction is None else parse_fraction(fraction),
        other_steps(train_dataset, steps),
    )
    known = _BY_FIELDS.get((size, patch, decoder, train_dataset, eval_dataset))
    if known is not None and not suffix:
        return known.name
    for data in DATA.values():
        if (data.train, data.eval) == (train_dataset, eval_dataset):
            where = data.name
            break
    else:
        same = train_dataset == eval_dataset
        where = train_dataset if same else f"{train_dataset}2{eval_dataset}"
    model = f"{size or ''}{patch or ''}"
    return "_".join(part for part in (model, decoder, where) if part) + suffix


def is_known(train_dataset: str) -> bool:
    """Return whether the benchmark trains on a dataset, and so says for how many steps."""
    return train_dataset in _STEPS


def other_steps(train_dataset: str, steps: int | None) -> int | None:
    """Return a number of steps where it is not the one that the benchmark trains a dataset for."""
    return None if steps == _STEPS.get(train_dataset) else steps


def decoder_name(head: str, frozen: bool) -> str:
    """Return the decoder of records and config names.

    Args:
        head: The head's own key.
        frozen: Whether the encoder below it is.
    """
    return _HEADS.get((head, frozen)) or (f"{head}-probe" if frozen else head)


def split_decoder(decoder: str) -> tuple[str, bool]:
    """Return the decoder itself, and whether the encoder below it is frozen.

    A recipe is one decoder of its own, as it differs from the others in more.
    """
    if decoder == "probe":
        return "linear", True
    if decoder == RECIPE:
        return RECIPE, True
    plain = decoder.removesuffix("-probe")
    return plain, plain != decoder


def _suffix(fraction: Fraction, steps: int | None) -> str:
    """Write what departs from the whole training set and the data's own steps."""
    parts = [] if fraction == 1 else [fraction_name(fraction)]
    if steps is not None:
        parts.append(f"{steps}steps" if steps % 1000 else f"{steps // 1000}k")
    return "".join(f"_{part}" for part in parts)


def _one_of(what: str, value: str, known) -> None:
    if value not in known:
        raise ValueError(f"unknown {what}: {value!r}, expected one of {', '.join(known)}")
