"""Listing of images and labels, shared by all datasets: same archives, same checks, same errors."""

import logging
import posixpath
from collections import Counter
from typing import ClassVar

import mmengine.fileio as fileio
from mmengine.logging import print_log

from .check import probe_labels, published_count


class RawFilesMixin:
    """What the datasets add to mmseg's: archives, checked pairs, raw labels.

    Comes before a mmseg dataset in the bases. `data_root` is a folder, an archive or a URL.

    Args:
        backend_args: Storage backend; None reads folders, archives and fsspec's stores.
        probe: Whether to read a few labels at once and refuse what cannot be right.

    Attributes:
        ARCHIVES: First folder of a path in `data_prefix` -> published archive that holds it.
        DOWNLOAD: What to download, for error messages.
        PUBLISHED: End of the image folder or of `ann_file` -> published number of images.
        STORED_IDS: End of a label's file name -> map from the values it stores to classes.
        resize_label: Whether a label of another size than its image is resized.
    """

    ARCHIVES: ClassVar[dict[str, str]] = {}
    DOWNLOAD: ClassVar[str] = "the data set"
    PUBLISHED: ClassVar[dict[str, int]] = {}
    STORED_IDS: ClassVar[dict[str, dict[int, int]]] = {}
    resize_label: ClassVar[bool] = False

    def __init__(
        self, *args, backend_args: dict | None = None, probe: bool = True, **kwargs
    ) -> None:
        self.probe = probe
        super().__init__(*args, backend_args=backend_args or {"backend": "archive"}, **kwargs)

    def _join_prefix(self) -> None:
        self.ann_file = self._locate(self.ann_file) if self.ann_file else ""
        self.data_prefix = {
            key: None if prefix is None else self._locate(prefix)
            for key, prefix in self.data_prefix.items()
        }

    def _locate(self, path: str) -> str:
        """Find a path of the config below `data_root`, or in the archive that publishes it."""
        if "://" in path or posixpath.isabs(path):
            return path
        plain = posixpath.join(self.data_root, path)
        archive = self.ARCHIVES.get(path.split("/")[0])
        if archive is not None and not self._exists(plain):
            return posixpath.join(self.data_root, archive, path)
        return plain

    def _exists(self, path: str) -> bool:
        return fileio.exists(path, self.backend_args)

    def full_init(self) -> None:
        """List the files, and refuse labels that cannot be right before training starts on them."""
        if self._fully_initialized:
            return
        super().full_init()
        if not self.probe:
            return
        probe_labels(self)
        published = published_count(self)
        if self._indices is None and published not in (None, len(self)):
            print_log(
                f"{self.data_root} has {len(self)} samples of the published {published}: results "
                "will not be those of the benchmark; tools/check_data.py says what is there",
                logger="current",
                level=logging.WARNING,
            )

    def load_data_list(self) -> list[dict]:
        """List the samples.

        Raises:
            FileNotFoundError: If a folder or archive, the label of an image or the image of a label
                is missing.
            ValueError: If there are no images.
        """
        data_list = []
        for img_dir, ann_dir in self.folders():
            data_list += self._pairs(img_dir, ann_dir)
        if not data_list:
            raise ValueError(f"{self.ann_file or self.data_root}: no images are listed")
        return sorted(data_list, key=lambda info: info["img_path"])

    def folders(self) -> list[tuple[str, str | None]]:
        """Return the folders of images, each with the folder of its labels."""
        return [(self.data_prefix["img_path"], self.data_prefix.get("seg_map_path"))]

    def _pairs(self, img_dir: str, ann_dir: str | None) -> list[dict]:
        images = self._stems(img_dir, self.img_suffix)
        if self.ann_file:
            listed = self._listed()
            self._refuse_missing(listed - images, img_dir, self.img_suffix, self.ann_file)
            images = listed
        if ann_dir:
            labels = self._stems(ann_dir, self.seg_map_suffix)
            self._refuse_missing(images - labels, ann_dir, self.seg_map_suffix, img_dir)
            if not self.ann_file:
                self._refuse_missing(labels - images, img_dir, self.img_suffix, ann_dir)
        shared = dict(
            label_map=self._label_map(),
            reduce_zero_label=self.reduce_zero_label,
            num_classes=len(self._metainfo.get("classes") or ()) or None,
            resize_label=self.resize_label,
        )
        data_list = []
        for stem in images:
            info = dict(img_path=posixpath.join(img_dir, stem + self.img_suffix), **shared)
            if ann_dir:
                info["seg_map_path"] = posixpath.join(ann_dir, stem + self.seg_map_suffix)
            info["seg_fields"] = []
            data_list.append(info)
        return data_list

    def _stems(self, folder: str, suffix: str) -> set[str]:
        """Return the files of a folder without their suffix."""
        if not fileio.isdir(folder, self.backend_args):
            raise FileNotFoundError(
                f"{folder} does not exist: put {self.DOWNLOAD} there or set data_root (now "
                f"{self.data_root!r}) to the folder or archive that has it"
            )
        names = fileio.list_dir_or_file(
            folder, list_dir=False, recursive=True, backend_args=self.backend_args
        )
        names = list(names)
        stems = {name[: -len(suffix)] for name in names if name.endswith(suffix)}
        if not stems:
            kinds = Counter(posixpath.splitext(name)[1] or name for name in names)
            found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(3))
            raise ValueError(
                f"{folder}: no file ends in {suffix!r} (found: {found or 'nothing'}); complete the "
                "folder, or set img_suffix and seg_map_suffix of the dataset"
            )
        return stems

    def _listed(self) -> set[str]:
        if not fileio.isfile(self.ann_file, self.backend_args):
            raise FileNotFoundError(f"{self.ann_file} does not exist: put {self.DOWNLOAD} there")
        lines = fileio.get_text(self.ann_file, backend_args=self.backend_args).splitlines()
        return {line.strip() for line in lines if line.strip()}

    @staticmethod
    def _refuse_missing(stems: set[str], folder: str, suffix: str, partner: str) -> None:
        if not stems:
            return
        first = sorted(stems)[0]
        raise FileNotFoundError(
            f"{posixpath.join(folder, first + suffix)} is missing ({len(stems)} such files), but "
            f"{partner} has its counterpart: complete the data set or remove the counterparts"
        )

    def _label_map(self) -> dict[int, int] | None:
        """Combine the values a file stores with a choice of classes in `metainfo`."""
        stored = next(
            (ids for end, ids in self.STORED_IDS.items() if self.seg_map_suffix.endswith(end)), None
        )
        if stored is None or self.label_map is None:
            return stored or self.label_map
        return {value: self.label_map.get(known, known) for value, known in stored.items()}
