"""A data set of your own without a class of its own: images, masks, and what each value means."""

import hashlib
import json
import logging
import math
import posixpath
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import ClassVar

import mmengine.fileio as fileio
from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from vfm_ss.protocol.kinds import NAME
from vfm_ss.protocol.settings import DATA

from .raw_files import RawFilesMixin
from .transforms.decode import EXTENSIONS

_PUBLISHED = {name for data in DATA.values() for name in (data.name, data.train, data.eval)}
_PUBLISHED |= {"acdc", "bdd100k"}
# What makes masks of COCO's annotations; checked with datumaro 1.13. It looks for the files in
# COCO's layout, FOLDER/annotations/{panoptic,stuff,instances}_NAME.json and FOLDER/images/NAME.
_CONVERTER = (
    "datum convert -if {kind} -i {folder} -f voc_segmentation -o MASKS -- --label-map source "
    "--apply-colormap no"
)
_POLYGONS = "datum transform -o WITHOUT_POLYGONS -t polygons_to_masks {folder}:{kind} && "


@DATASETS.register_module()
class FolderDataset(RawFilesMixin, BaseSegDataset):
    """Images in one folder and masks of the same names in another, or in the same one.

    Folders may lie in a zip or tar, or on a store that fsspec knows. File names may end as they
    like; `img_suffix` and `seg_map_suffix` choose among several kinds of files.

    Args:
        images: Folder of the images, below `data_root`.
        labels: Folder of the masks, below `data_root`: 8 bits, one channel, or a palette.
        classes: {stored value: class name}; values of the same name are one class. A list names the
            values 0, 1, 2, ... Classes are numbered by their (smallest) values, in whatever order
            they are written: mmengine sorts the keys of a config that it saves.
        order: All class names, in the order in which they are numbered, for masks that store the
            classes of another data set by other values.
        ignore: Stored values that do not count. Any other value is an error.
        palette: Colour (R, G, B), 0 to 255, of every class by its number; mmseg draws them
            otherwise.
        name: What records, rankings and tables call the data set; by default the name of the
            folder that holds `images`.
        split: Part of the data set: the name of a share in `fractions`; otherwise a list of names,
            which ends in .txt, or a sub-folder of `images` and of `labels`. None takes all.
        fractions: {name of a share: fraction of the images}, 1 together at most. Names of files
            and `split_seed` decide which images, nothing else does, and no image is in two shares.
        split_seed: Another number gives another choice.
        group: Regular expression that finds, at the start of a file's name, what images of one
            scene, video or patient share; they are never in different shares.
        data_root: A folder, an archive or a URL; without it paths start at the working directory.
        img_suffix: End of the images' names; without it every image in the folder is one.
        seg_map_suffix: End of the masks' names, `'_mask.png'` for a.png and a_mask.png.
        **kwargs: See ``RawFilesMixin`` and mmseg's ``BaseSegDataset``.

    Attributes:
        key: The `name`.

    Raises:
        ValueError: If an argument is wrong, or a share holds no image.
        FileNotFoundError: If a folder, an image or a mask is missing.
    """

    PUBLISHED: ClassVar = {}
    DOWNLOAD = "the images and masks"

    def __init__(
        self,
        images: str,
        labels: str,
        classes: Mapping[int, str] | Sequence[str],
        *,
        order: Sequence[str] | None = None,
        ignore: Sequence[int] = (),
        palette: Sequence[Sequence[int]] | None = None,
        name: str | None = None,
        split: str | None = None,
        fractions: Mapping[str, float] | None = None,
        split_seed: int = 0,
        group: str | None = None,
        data_root: str = "",
        img_suffix: str = "",
        seg_map_suffix: str = "",
        **kwargs,
    ) -> None:
        for taken in ("data_prefix", "ann_file", "metainfo", "stored_ids", "reduce_zero_label"):
            if kwargs.get(taken):
                raise ValueError(f"FolderDataset takes no {taken}: {_INSTEAD[taken]}")
        self.key = _checked_name(name, data_root, images)
        stored, names = _checked_classes(classes, order, ignore)
        self.fractions = _checked_fractions(fractions, split)
        self.split, self.split_seed = split, split_seed
        self._group = _checked_group(group)
        listed = split is not None and not self.fractions and split.endswith(".txt")
        if split is not None and not self.fractions and not listed:
            images, labels = posixpath.join(images, split), posixpath.join(labels, split)
        metainfo = dict(classes=names)
        if palette is not None:
            metainfo["palette"] = _checked_palette(palette, names)
        super().__init__(
            data_root=data_root,
            data_prefix=dict(img_path=images.rstrip("/"), seg_map_path=labels.rstrip("/")),
            ann_file=split if listed else "",
            img_suffix=img_suffix,
            seg_map_suffix=seg_map_suffix,
            stored_ids=stored,
            metainfo=metainfo,
            **kwargs,
        )

    def join_prefix(self) -> None:
        """Find the folders; see ``RawFilesMixin``."""
        super().join_prefix()
        # For messages, and nothing else is looked for.
        self.data_root = self.data_root or posixpath.dirname(self.data_prefix["img_path"]) or "."

    def load_data_list(self) -> list[dict]:
        """List the samples of the split.

        Raises:
            ValueError: If labels are COCO's JSON, or the split holds no image.
            FileNotFoundError: If an image or a mask is missing.
        """
        self._refuse_json(self.data_prefix["seg_map_path"])
        samples = super().load_data_list()
        return self._share(samples) if self.fractions else samples

    def label_rules(self) -> dict:
        """Return what `label_table` needs to know: 255 is ignored only where that is stated."""
        return dict(super().label_rules(), stated_only=True)

    def chosen(self, names: list[str], suffix: str, folder: str) -> dict[str, str]:
        """Return the files that end in a suffix, or all images, by their names without the end.

        Raises:
            ValueError: If two images have one name.
        """
        if suffix:
            return super().chosen(names, suffix, folder)
        found: dict[str, str] = {}
        for name in sorted(names):
            stem, end = posixpath.splitext(name)
            if end.lower() not in EXTENSIONS or posixpath.basename(name).startswith("."):
                continue
            if found.setdefault(stem, name) != name:
                raise ValueError(
                    f"{folder}: {found[stem]} and {name} would be one sample; remove one, or set "
                    "img_suffix and seg_map_suffix of the dataset to the ends of the files meant"
                )
        return found

    def named(self, images: dict[str, str]) -> dict[str, str]:
        """Let a list call images by their whole names, too."""
        return {name: stem for stem, name in images.items()}

    def _share(self, samples: list[dict]) -> list[dict]:
        """Return the samples of the share, and say in the log which they are."""
        folder = self.data_prefix["img_path"]
        keys = {}
        for info in samples:
            name = unicodedata.normalize("NFC", info["img_path"].removeprefix(f"{folder}/"))
            stem = name.removesuffix(self.img_suffix or posixpath.splitext(name)[1])
            keys[info["img_path"]] = self._group_of(stem)
        groups = sorted(set(keys.values()), key=self._rank)
        ends, total = {}, 0.0
        for share, fraction in self.fractions.items():
            start, total = round(total * len(groups)), total + fraction
            ends[share] = start, round(total * len(groups))
        start, end = ends[self.split]
        mine = set(groups[start:end])
        chosen = [info for info in samples if keys[info["img_path"]] in mine]
        what = "image" if self._group is None else "group of images"
        if not chosen:
            raise ValueError(
                f"{folder}: the share {self.split!r}, {self.fractions[self.split]:g} of "
                f"{len(groups)} {what}s, holds none; state larger fractions, or another split"
            )
        text = "\n".join(sorted(mine)).encode("utf-8", "surrogatepass")
        grouped = "" if self._group is None else f" in {len(mine)} of {len(groups)} groups"
        print_log(
            f"{folder}: {self.split!r} is {len(chosen)} of {len(samples)} images{grouped}, by "
            f"fractions {dict(self.fractions)} of the names and split_seed {self.split_seed} "
            f"(checksum of the names {hashlib.sha256(text).hexdigest()[:12]})",
            logger="current",
        )
        if self._group is None:
            print_log(
                f"{folder}: each image is in a share by itself; where images show the same scene "
                "(a video, tiles, a patient), scores are too high unless `group` keeps them "
                "together",
                logger="current",
                level=logging.WARNING,
            )
        return chosen

    def _group_of(self, stem: str) -> str:
        if self._group is None:
            return stem
        found = self._group.match(stem)
        if found is None:
            raise ValueError(
                f"{self.data_prefix['img_path']}: the name {stem!r} does not start as "
                f"group={self._group.pattern!r} says; correct the expression or the name"
            )
        return found[found.re.groups and 1]

    def _rank(self, group: str) -> bytes:
        text = f"{self.split_seed}:{group}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(text).digest()

    def _refuse_json(self, place: str) -> None:
        """Refuse polygons and run lengths in JSON, and say what makes masks of them."""
        path = place if place.lower().endswith(".json") else None
        if path is None and fileio.isdir(place, self.backend_args):
            names = self._names(place)
            ends = {posixpath.splitext(name)[1].lower() for name in names}
            if ".json" in ends and ends.isdisjoint(EXTENSIONS):
                path = posixpath.join(
                    place, min(name for name in names if name.lower().endswith(".json"))
                )
        if path is None:
            return
        if not fileio.isfile(path, self.backend_args):
            raise FileNotFoundError(f"{path} does not exist, and labels is a folder of masks")
        kind = _coco_kind(path, fileio.get(path, self.backend_args))
        if kind is None:
            raise ValueError(
                f"{path}: labels are masks, images of one value per pixel, not JSON; export masks "
                "from the program that wrote it"
            )
        folder = posixpath.dirname(posixpath.dirname(path)) or "."
        command = _CONVERTER.format(kind=kind, folder=folder)
        if kind == "coco_instances":
            command = _POLYGONS.format(kind=kind, folder=folder) + _CONVERTER.format(
                kind=kind, folder="WITHOUT_POLYGONS"
            )
        raise ValueError(
            f"{path}: COCO's annotations are no masks; make them by `{command}` (pip install "
            "'datumaro[cli]'), then labels='MASKS/SegmentationClass' and classes as the lines of "
            "MASKS/labelmap.txt count them, from 0"
        )


_INSTEAD = {
    "data_prefix": "set images and labels",
    "ann_file": "set split to the list",
    "metainfo": "set classes and palette",
    "stored_ids": "classes says what each stored value is",
    "reduce_zero_label": "say ignore=[0], and classes from 1",
}


def _coco_kind(path: str, data: bytes) -> str | None:
    """Return datumaro's name of a COCO format; None for other JSON."""
    try:
        content = json.loads(data)
    except ValueError:
        return None
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list) or not annotations or not isinstance(annotations[0], dict):
        return None
    if "segments_info" in annotations[0]:
        return "coco_panoptic"
    if "segmentation" not in annotations[0]:
        return None
    return "coco_stuff" if posixpath.basename(path).startswith("stuff") else "coco_instances"


def _checked_name(name: str | None, data_root: str, images: str) -> str:
    stated = name is not None
    if not stated:
        path = posixpath.join(data_root, images) if data_root else images
        name = PurePath(posixpath.dirname(path.rstrip("/"))).stem or "folder"
        name = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "folder"
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,100}", name):
        raise ValueError(
            f"name is {name!r}; it may hold letters, digits, '.', '-' and '_', 100 at most"
        )
    if name.lower() in _PUBLISHED:
        raise ValueError(
            f"{images}: a FolderDataset must not be called {name!r}, as a published data set is: "
            f"their scores would be ranked together; state another name="
        )
    return name


def _checked_classes(
    classes: Mapping[int, str] | Sequence[str], order: Sequence[str] | None, ignore: Sequence[int]
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Return the map from stored values to classes, and their names."""
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
            raise ValueError(f"the stored value {value!r} is no integer from 0 to 255")
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


def _checked_fractions(
    fractions: Mapping[str, float] | None, split: str | None
) -> dict[str, float] | None:
    if not fractions:
        return None
    if not isinstance(fractions, Mapping) or split not in fractions:
        raise ValueError(
            f"split is {split!r} and fractions is {fractions!r}; expected the name of a share, as "
            "in split='train', fractions={'train': 0.8, 'val': 0.2}"
        )
    for share, fraction in fractions.items():
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)):
            raise ValueError(f"fractions says {fraction!r} of {share!r}, expected a number")
        if not 0 < fraction <= 1:
            raise ValueError(f"fractions says {fraction!r} of {share!r}, expected above 0 to 1")
    if math.fsum(fractions.values()) > 1 + 1e-9:
        raise ValueError(
            f"fractions {dict(fractions)} are {math.fsum(fractions.values()):g} in all"
        )
    return {share: fractions[share] for share in sorted(fractions)}  # as a saved config has them


def _checked_group(group: str | None) -> re.Pattern | None:
    try:
        return None if group is None else re.compile(group)
    except re.error as error:
        raise ValueError(f"group={group!r} is no regular expression: {error}") from None


def _checked_palette(palette: Sequence[Sequence[int]], names: tuple[str, ...]) -> list[list[int]]:
    colours = [list(colour) for colour in palette]
    if len(colours) != len(names):
        raise ValueError(f"palette has {len(colours)} colours for {len(names)} classes")
    for colour in colours:
        if len(colour) != 3 or any(type(v) is not int or not 0 <= v <= 255 for v in colour):
            raise ValueError(f"palette has the colour {colour}, expected (R, G, B) of 0 to 255")
    return colours
