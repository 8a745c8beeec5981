"""A data set of your own without a class of its own: images, masks, and what each value means."""

import hashlib
import logging
import posixpath
import unicodedata
from collections.abc import Mapping, Sequence
from typing import ClassVar

import mmengine.fileio as fileio
from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from .coco_json import coco_kind, coco_remedy
from .folder_arguments import (
    INSTEAD,
    checked_classes,
    checked_group,
    checked_name,
    checked_palette,
    checked_shares,
)
from .raw_files import RawFilesMixin
from .transforms.decode import EXTENSIONS


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
        split: Part of the data set: the name of a share in `shares`; otherwise a list of names,
            which ends in .txt, or a sub-folder of `images` and of `labels`. None takes all.
        shares: {name of a share: fraction of the images}, 1 together at most. Names of files
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
        shares: Mapping[str, float] | None = None,
        split_seed: int = 0,
        group: str | None = None,
        data_root: str = "",
        img_suffix: str = "",
        seg_map_suffix: str = "",
        **kwargs,
    ) -> None:
        for taken in ("data_prefix", "ann_file", "metainfo", "stored_ids", "reduce_zero_label"):
            if kwargs.get(taken):
                raise ValueError(f"FolderDataset takes no {taken}: {INSTEAD[taken]}")
        self.key = checked_name(name, data_root, images)
        stored, names = checked_classes(classes, order, ignore)
        self.shares = checked_shares(shares, split)
        self.split, self.split_seed = split, split_seed
        self._group = checked_group(group)
        listed = split is not None and not self.shares and split.endswith(".txt")
        if split is not None and not self.shares and not listed:
            images, labels = posixpath.join(images, split), posixpath.join(labels, split)
        metainfo = dict(classes=names)
        if palette is not None:
            metainfo["palette"] = checked_palette(palette, names)
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
        return self._share(samples) if self.shares else samples

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
        for share, fraction in self.shares.items():
            start, total = round(total * len(groups)), total + fraction
            ends[share] = start, round(total * len(groups))
        start, end = ends[self.split]
        mine = set(groups[start:end])
        chosen = [info for info in samples if keys[info["img_path"]] in mine]
        what = "image" if self._group is None else "group of images"
        if not chosen:
            raise ValueError(
                f"{folder}: the share {self.split!r}, {self.shares[self.split]:g} of "
                f"{len(groups)} {what}s, holds none; state larger shares, or another split"
            )
        text = "\n".join(sorted(mine)).encode("utf-8", "surrogatepass")
        grouped = "" if self._group is None else f" in {len(mine)} of {len(groups)} groups"
        print_log(
            f"{folder}: {self.split!r} is {len(chosen)} of {len(samples)} images{grouped}, by "
            f"shares {dict(self.shares)} of the names and split_seed {self.split_seed} "
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
        kind = coco_kind(path, fileio.get(path, self.backend_args))
        if kind is None:
            raise ValueError(
                f"{path}: labels are masks, images of one value per pixel, not JSON; export masks "
                "from the program that wrote it"
            )
        raise ValueError(coco_remedy(path, kind))
