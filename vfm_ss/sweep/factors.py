"""The product of factors that a sweep trains: VFMs x sizes x patches x decoders x data x ..."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from vfm_ss.image_size import nearest_multiples
from vfm_ss.protocol.fractions import parse_fraction
from vfm_ss.protocol.settings import DATA, DECODERS, SETTINGS, Data
from vfm_ss.protocol.vfms import FAMILIES, SIZES, VFMS
from vfm_ss.sweep.cells import Cell, DataFile, Model, builtin, timm_model

#: Sides of patches, in pixels.
PATCHES = (8, 14, 16, 32)
#: The factors as the command line calls them, with what stands for none given.
DEFAULTS = {
    "sizes": ("b",),
    "patches": ("16",),
    "decoders": ("linear",),
    "data": ("ade20k",),
    "fractions": ("1",),
    "steps": (),
}
_KNOWN: dict[str, Sequence[str]] = {
    "sizes": tuple(SIZES),
    "patches": tuple(map(str, PATCHES)),
    "decoders": DECODERS,
}
#: Tokens by which an image's sides have to be divisible, beside its patches: SAM's windows.
TOKENS = {"sam": 32}
_TIMM = "timm:"


@dataclass(frozen=True)
class Product:
    """The cells of a sweep.

    Attributes:
        cells: The cells, in the order in which they are trained.
        text: The product in a line.
        left_out: Why some combinations are no cell, in lines.
    """

    cells: tuple[Cell, ...]
    text: str
    left_out: tuple[str, ...] = ()


def of_settings(
    vfms: Sequence[str], settings: Sequence[str], own: Mapping[str, Model] | None = None
) -> Product:
    """Return the cells of VFMs under settings of the paper's.

    Args:
        vfms: Keys of ``VFMS``, families of them, ``timm:NAME``, or files.
        settings: Keys of ``SETTINGS``; ``all`` stands for all of them.
        own: What has been read of the files among the VFMs, by their paths.

    Raises:
        ValueError: If a name is unknown, or a VFM is not published at the size of a setting.
    """
    names = _expanded(settings, {"all": SETTINGS})
    for name in names:
        if name not in SETTINGS:
            raise ValueError(f"unknown setting: {name!r}, expected one of {', '.join(SETTINGS)}")
    points = [
        (s.size, s.patch, s.decoder, s.data, Fraction(1), None) for s in map(SETTINGS.get, names)
    ]
    sizes = list(dict.fromkeys(point[0] for point in points))
    models = _models(vfms, own)
    return _product(vfms, models, points, f"settings {', '.join(names)}", sizes)


def of_factors(
    vfms: Sequence[str],
    given: Mapping[str, Sequence[str]],
    files: Mapping[str, DataFile] | None = None,
    own: Mapping[str, Model] | None = None,
    img_size: tuple[int, int] | None = None,
) -> Product:
    """Return the product of factors.

    Args:
        vfms: As for `of_settings`.
        given: Values of each factor of ``DEFAULTS`` as on the command line; ``all`` stands for all
            sizes, patches, decoders or data of the benchmark.
        files: What has been read of the files among the data, by their paths.
        own: The same of those among the VFMs.
        img_size: Height and width of the crop where an option overrides that of the data.

    Raises:
        ValueError: If a value is unknown, or a combination cannot be trained.
    """
    values = {name: list(given.get(name) or default) for name, default in DEFAULTS.items()}
    for name, known in _KNOWN.items():
        values[name] = _expanded(values[name], {"all": known})
        for value in values[name]:
            if value not in known:
                raise ValueError(
                    f"--{name}: unknown {value!r}, expected some of {', '.join(known)}, or all"
                )
    values["data"] = _expanded(values["data"], {"all": DATA})
    data = [(files or {}).get(name) or builtin(name) for name in values["data"]]
    fractions = list(dict.fromkeys(map(parse_fraction, values["fractions"])))
    steps = list(dict.fromkeys(map(parse_steps, values["steps"]))) or [None]
    stated = values["sizes"] if given.get("sizes") else None
    models = _models(vfms, own)
    sizes = stated or list(
        dict.fromkeys([*values["sizes"], *(model.size for model in models if model.size)])
    )
    points = [
        (size, int(patch), decoder, where, fraction, _other_steps(where, length))
        for where, length, fraction, decoder, patch, size in itertools.product(
            data, steps, fractions, values["decoders"], values["patches"], sizes
        )
    ]
    values["fractions"] = list(map(str, fractions))
    what = " x ".join(f"{name} {', '.join(values[name])}" for name in DEFAULTS if given.get(name))
    found = _product(vfms, models, points, what, stated)
    _refuse_impossible(found.cells, img_size)
    return found


def _other_steps(data: Data | DataFile, steps: int | None) -> int | None:
    return None if steps == data.steps else steps


def parse_steps(text: str) -> int:
    """Read a number of steps: ``10000`` or ``10k``.

    Raises:
        ValueError: If it is none.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,8})(k?)", text)
    if match is None:
        raise ValueError(f"--steps takes numbers as 10000 or 10k, got {text!r}")
    return int(match[1]) * (1000 if match[2] else 1)


def _product(
    vfms: Sequence[str],
    models: Sequence[Model],
    points: Sequence[tuple],
    what: str,
    sizes: Sequence[str] | None,
) -> Product:
    """Put every VFM under the points of its sizes.

    Args:
        vfms: As for `of_settings`.
        models: The VFMs that they stand for.
        points: The fields of a `Cell` from its size on.
        what: Describes them.
        sizes: The sizes that were asked for; None for the usual one, or a model's only one.
    """
    own = {model: _sizes(model, sizes, model.key in vfms) for model in models}
    found = dict.fromkeys(
        Cell(model, *point) for point in points for model in models if point[0] in own[model]
    )
    left_out = [
        f"{model.key} is not of size {', '.join(missing)}"
        for model in models
        if (missing := [size for size in _asked(model, sizes) if size not in own[model]])
    ]
    if not found:
        raise ValueError(f"nothing to train: {'; '.join(left_out) or 'no VFM under a setting'}")
    count = f"{len(models)} {'VFM' if len(models) == 1 else 'VFMs'}"
    return Product(tuple(found), " x ".join(filter(None, (count, what))), tuple(left_out))


def _sizes(model: Model, asked: Sequence[str] | None, stated: bool) -> list[str]:
    """Return the sizes at which a VFM is to be trained.

    Raises:
        ValueError: If one that was stated by itself is not published at a size asked for.
    """
    asked = _asked(model, asked)
    if model.size:
        return [model.size] if model.size in asked else []
    vfm = VFMS[model.key]
    if stated:
        for size in asked:
            try:
                vfm.timm_name(SIZES[size])
            except ValueError as error:
                published = [letter for letter, arch in SIZES.items() if arch in vfm.archs]
                raise ValueError(f"{error}: choose --sizes {','.join(published)}") from error
    return [size for size in asked if SIZES[size] in vfm.archs]


def _asked(model: Model, sizes: Sequence[str] | None) -> Sequence[str]:
    """Return the sizes asked for; where none was, a model's only one, or the usual one."""
    if sizes is None:
        return [model.size] if model.size else DEFAULTS["sizes"]
    return sizes


def _models(vfms: Sequence[str], own: Mapping[str, Model] | None) -> list[Model]:
    names = _expanded(vfms, {**FAMILIES, "all": VFMS})
    return [(own or {}).get(name) or _model(name) for name in names]


def _model(name: str) -> Model:
    if name.startswith(_TIMM):
        return timm_model(name.removeprefix(_TIMM))
    if name not in VFMS:
        raise ValueError(
            f"unknown VFM: {name!r}, expected one of {', '.join(VFMS)}, timm:NAME for any plain "
            "ViT of timm, or FILE.py for your own"
        )
    return Model(name)


def _refuse_impossible(cells: Iterable[Cell], img_size: tuple[int, int] | None) -> None:
    """Refuse cells whose crop their patches, or their windows of attention, do not divide.

    Raises:
        ValueError: If there are some; says which sizes work.
    """
    found: dict[str, None] = {}
    for cell in cells:
        size = img_size or cell.crop_size
        tokens = TOKENS.get(cell.model.key, 1)
        step = cell.patch * tokens
        wrong = [side for side in (size if tokens == 1 else [min(size)]) if side % step]
        if wrong:
            near = " or ".join(map(str, nearest_multiples(wrong[0], step)))
            of = f", in windows of {cell.model.key}," if tokens > 1 else ""
            found[
                f"patch {cell.patch}{of} does not divide the crop {size[0]}x{size[1]} of "
                f"{cell.data.name}; the nearest size that works is {near} (--cfg-options "
                f"model.backbone.img_size={near.split()[0]}, for all runs)"
            ] = None
    if found:
        raise ValueError("; ".join(found))


def _expanded(names: Sequence[str], groups: Mapping[str, Iterable[str]]) -> list[str]:
    """Put the members of a group in the place of its name; each name once."""
    return list(dict.fromkeys(one for name in names for one in groups.get(name, (name,))))
