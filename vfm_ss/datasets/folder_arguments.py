"""What a ``FolderDataset`` is told, checked: names, classes, shares, colours."""

import math
import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from vfm_ss.protocol.kinds import NAME
from vfm_ss.protocol.settings import DATA

_PUBLISHED = {name for data in DATA.values() for name in (data.name, data.train, data.eval)}
_PUBLISHED |= {"acdc", "bdd100k"}

#: Arguments of other datasets, and what says the same.
INSTEAD = {
    "data_prefix": "set images and labels",
    "ann_file": "set split to the list",
    "metainfo": "set classes and palette",
    "stored_ids": "classes says what each stored value is",
    "reduce_zero_label": "say ignore=[0], and classes from 1",
}


def checked_name(name: str | None, data_root: str, images: str) -> str:
    """Return the data set's name, that of the folder of its images where none is stated.

    Raises:
        ValueError: If records and config names cannot hold it, or a published data set has it.
    """
    stated = name is not None
    if not stated:
        path = posixpath.join(data_root, images) if data_root else images
        name = PurePath(posixpath.dirname(path.rstrip("/"))).stem or "folder"
        name = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "folder"
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,100}", name):
        raise ValueError(
            f"name is {name!r}; it may hold letters, digits, '.', '-' and '_', 100 at most"
        )
    if name.lower() in _PUBLISHED or name.lower().startswith("acdc-"):
        raise ValueError(
            f"{images}: a FolderDataset must not be called {name!r}, as a published data set is: "
            f"their scores would be ranked together; state another name="
        )
    return name


def checked_classes(
    classes: Mapping[int, str] | Sequence[str], order: Sequence[str] | None, ignore: Sequence[int]
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Return the map from stored values to classes, and their names by number.

    Raises:
        ValueError: If a value or a name is not usable, or is there twice.
    """
    if isinstance(classes, str) or not isinstance(classes, (Mapping, Sequence)) or not classes:
        raise ValueError(
            f"classes is {classes!r}; expected {{stored value: name}}, for example "
            "{0: 'background', 255: 'crack'}"
        )
    if isinstance(ignore, (str, bytes)) or not isinstance(ignore, Sequence):
        raise ValueError(f"ignore is {ignore!r}; expected a list of stored values, [255]")
    named = dict(classes) if isinstance(classes, Mapping) else dict(enumerate(classes))
    for value, name in named.items():
        if not NAME.accepts(name):
            raise ValueError(f"classes calls {value!r} {name!r}; expected {NAME.expected}")
    for value in (*named, *ignore):
        if type(value) is not int or not 0 <= value <= 255:
            raise ValueError(f"the stored value {value!r} is not an integer from 0 to 255")
    names = tuple(dict.fromkeys(named[value] for value in sorted(named)))
    if order is not None:
        if isinstance(order, str) or sorted(order) != sorted(names):
            raise ValueError(f"order is {order!r}; expected the classes' names, each once: {names}")
        names = tuple(order)
    both = set(named) & set(ignore)
    if both:
        raise ValueError(f"the stored value {min(both)} is in classes and in ignore")
    stored = {value: names.index(name) for value, name in named.items()}
    stored.update(dict.fromkeys(ignore, 255))
    return stored, names


def checked_shares(
    shares: Mapping[str, float] | None, split: str | None
) -> dict[str, float] | None:
    """Return the shares in an order of their own: a saved config has them in another one.

    Raises:
        ValueError: If they are no fractions of one whole, or the split is none of them.
    """
    if not (split is None or isinstance(split, str)):
        raise ValueError(f"split is {split!r}, expected a text")
    if not shares:
        return None
    if not isinstance(shares, Mapping) or split not in shares:
        raise ValueError(
            f"split is {split!r} and shares is {shares!r}; expected the name of a share, as "
            "in split='train', shares={'train': 0.8, 'val': 0.2}"
        )
    for share, fraction in shares.items():
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)):
            raise ValueError(f"shares says {fraction!r} of {share!r}, expected a number")
        if not 0 < fraction <= 1:
            raise ValueError(f"shares says {fraction!r} of {share!r}, expected above 0 to 1")
    if math.fsum(shares.values()) > 1 + 1e-9:
        raise ValueError(f"shares {dict(shares)} are {math.fsum(shares.values()):g} in all")
    return {share: shares[share] for share in sorted(shares)}


def checked_group(group: str | None) -> re.Pattern | None:
    """Return the compiled expression.

    Raises:
        ValueError: If it is none.
    """
    try:
        return None if group is None else re.compile(group)
    except (re.error, TypeError) as error:
        raise ValueError(f"group={group!r} is not a regular expression: {error}") from None


def checked_palette(palette: Sequence[Sequence[int]], names: tuple[str, ...]) -> list[list[int]]:
    """Return the colours as lists.

    Raises:
        ValueError: If they are not one (R, G, B) for each class.
    """
    try:
        colours = [list(colour) for colour in palette]
    except TypeError:
        raise ValueError(f"palette is {palette!r}, expected a list of (R, G, B)") from None
    if len(colours) != len(names):
        raise ValueError(f"palette has {len(colours)} colours for {len(names)} classes")
    for colour in colours:
        if len(colour) != 3 or any(type(v) is not int or not 0 <= v <= 255 for v in colour):
            raise ValueError(f"palette has the colour {colour}, expected (R, G, B) of 0 to 255")
    return colours
