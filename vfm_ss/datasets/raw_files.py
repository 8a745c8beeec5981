"""Images and labels as downloaded, for all datasets: same archives, same checks, same errors."""

import logging
import posixpath
from collections import Counter
from typing import ClassVar

import mmengine.fileio as fileio
from mmengine.logging import print_log

from vfm_ss.compat.mmseg_datasets import OpenDatasetMixin

from .probe import probe


class RawFilesMixin(OpenDatasetMixin):
    """What the datasets add to mmseg's: archives, checked pairs, raw labels.

    Comes before a mmseg dataset in the bases. `data_root` is a folder, an archive or a URL.

    Args:
        backend_args: Storage backend; None reads folders, archives and fsspec's stores.
        probe: Whether to read a few files at once and refuse what cannot be right.
        bit_depth: Bits that the images' values use; above 8, images hold 16-bit integers, of which
            0 to 2**bit_depth - 1 becomes 0 to 255.
        stored_ids: Map from stored label values to classes or 255 (ignored), in place of the
            class's `STORED_IDS`; `metainfo['label_map']` is the same. It may name 255.
        metainfo: See mmseg's ``BaseSegDataset``.

    Attributes:
        notes: What is odd about the files and worth saying.
        ARCHIVES: First folder of a path in `data_prefix` -> published archive that holds it, or
            several, of which one does; `{split}` stands for the last folder of the path.
        DOWNLOAD: What to download, for error messages.
        PUBLISHED: End of the image folder or of `ann_file` -> published number of images.
        STORED_IDS: End of a label's file name -> map from the values it stores to classes.
        resize_label: Whether a label of another size than its image is resized.
        key: Optional; name in records and config names, instead of the class's name.
    """

    ARCHIVES: ClassVar[dict[str, str | tuple[str, ...]]] = {}
    DOWNLOAD: ClassVar[str] = "the data set"
    PUBLISHED: ClassVar[dict[str, int]] = {}
    STORED_IDS: ClassVar[dict[str, dict[int, int]]] = {}
    resize_label: ClassVar[bool] = False

    def __init__(
        self,
        *args,
        backend_args: dict | None = None,
        probe: bool = True,
        bit_depth: int = 8,
        stored_ids: dict[int, int] | None = None,
        metainfo: dict | None = None,
        **kwargs,
    ) -> None:
        if bit_depth not in range(8, 17):
            raise ValueError(f"bit_depth is {bit_depth!r}, it can be 8 to 16")
        self.probe = probe
        self.bit_depth = bit_depth
        self.notes: list[str] = []
        metainfo = dict(metainfo or {})
        # mmseg overwrites this key with a map of its own.
        self.stored_ids = metainfo.pop("label_map", None) if stored_ids is None else stored_ids
        super().__init__(
            *args,
            backend_args=backend_args or {"backend": "archive"},
            metainfo=metainfo,
            **kwargs,
        )

    def join_prefix(self) -> None:
        """Find the folders and lists below `data_root`, or in the archives that publish them."""
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
        names = self.ARCHIVES.get(path.split("/")[0], ())
        names = (names,) if isinstance(names, str) else names
        if not names or self._exists(plain):
            return plain
        archives = [
            posixpath.join(self.data_root, name.format(split=posixpath.basename(path)))
            for name in names
        ]
        archive = next((one for one in archives if self._exists(one)), archives[0])
        return posixpath.join(archive, path)

    def _exists(self, path: str) -> bool:
        return fileio.exists(path, self.backend_args)

    def full_init(self) -> None:
        """List the files, and refuse labels that cannot be right before training starts on them."""
        if self.is_listed:
            return
        super().full_init()
        if not self.probe:
            return
        probe(self)
        published = self.published
        if not self.is_subset and published not in (None, len(self)):
            self.notes.append(
                f"{self.data_root} has {len(self)} samples of the published {published}: results "
                "will not be those of the benchmark; tools/check_data.py says what is there"
            )
        for note in self.notes:
            print_log(note, logger="current", level=logging.WARNING)

    @property
    def published(self) -> int | None:
        """Published number of samples of this split, None where it is not known."""
        place = self.ann_file or self.data_prefix["img_path"]
        return next((count for end, count in self.PUBLISHED.items() if place.endswith(end)), None)

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
        if ann_dir == img_dir and self.img_suffix == self.seg_map_suffix:
            raise ValueError(
                f"{img_dir}: the files that end in {self.img_suffix!r} would be images and labels "
                "at once; set seg_map_suffix to the end of the labels' names, '_mask.png' for "
                "a.png and a_mask.png, or data_prefix.seg_map_path to their folder"
            )
        images = self._files(img_dir, self.img_suffix, ann_dir)
        if ann_dir == img_dir:
            # A label beside its image, a.png and a_mask.png, ends like an image.
            end = self.seg_map_suffix
            images = {stem: name for stem, name in images.items() if not name.endswith(end)}
        listed = self._listed(images) if self.ann_file else set(images)
        self._refuse_missing(listed - images.keys(), img_dir, self.img_suffix, self.ann_file)
        labels = {}
        if ann_dir:
            labels = self._files(ann_dir, self.seg_map_suffix, img_dir)
            self._refuse_missing(listed - labels.keys(), ann_dir, self.seg_map_suffix, img_dir)
            if not self.ann_file:
                self._refuse_missing(labels.keys() - listed, img_dir, self.img_suffix, ann_dir)
        shared = dict(
            **self.label_rules(), resize_label=self.resize_label, bit_depth=self.bit_depth
        )
        data_list = []
        for stem in listed:
            info = dict(img_path=posixpath.join(img_dir, images[stem]), **shared)
            if ann_dir:
                info["seg_map_path"] = posixpath.join(ann_dir, labels[stem])
            info["seg_fields"] = []
            data_list.append(info)
        return data_list

    def _files(self, folder: str, suffix: str, other: str | None = None) -> dict[str, str]:
        """Return the files of a folder, but not those of the `other` in it, by name without end."""
        if not fileio.isdir(folder, self.backend_args):
            raise FileNotFoundError(
                f"{folder} does not exist: put {self.DOWNLOAD} there or set data_root (now "
                f"{self.data_root!r}) to the folder or archive that has it"
            )
        names = self._names(folder)
        if other and other.startswith(f"{folder}/"):
            inner = other[len(folder) + 1 :].rstrip("/") + "/"
            names = [name for name in names if not name.startswith(inner)]
        files = self.chosen(names, suffix, folder)
        if not files:
            kinds = Counter(posixpath.splitext(name)[1] or name for name in names)
            found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(3))
            wanted = f"no file ends in {suffix!r}" if suffix else "no image"
            raise ValueError(
                f"{folder}: {wanted} (found: {found or 'nothing'}); complete the folder, or set "
                "img_suffix and seg_map_suffix of the dataset"
            )
        return files

    def chosen(self, names: list[str], suffix: str, folder: str) -> dict[str, str]:
        """Return the files that end in a suffix, by their names without it."""
        return {name[: -len(suffix)]: name for name in names if name.endswith(suffix)}

    def _names(self, folder: str) -> list[str]:
        return list(
            fileio.list_dir_or_file(
                folder, list_dir=False, recursive=True, backend_args=self.backend_args
            )
        )

    def _listed(self, images: dict[str, str]) -> set[str]:
        """Read the list of samples; a line that is repeated counts once, and is noted.

        Args:
            images: The files that there are, by their names without end.
        """
        if not fileio.isfile(self.ann_file, self.backend_args):
            raise FileNotFoundError(f"{self.ann_file} does not exist: put {self.DOWNLOAD} there")
        data = fileio.get(self.ann_file, self.backend_args)
        try:
            text = data.decode("utf-8-sig")
            if "\0" in text:
                raise ValueError("it holds zero bytes")
        except ValueError as error:  # UnicodeDecodeError is one
            raise ValueError(
                f"{self.ann_file}: the list is not UTF-8 text ({error}); save it as UTF-8"
            ) from None
        found = self.named(images)
        lines = (line.strip() for line in text.splitlines())
        lines = Counter(found.get(line, line) for line in lines if line)
        again = {line: count for line, count in lines.items() if count > 1}
        if again:
            self.notes.append(
                f"{self.ann_file}: {sum(again.values()) - len(again)} repeated lines (first: "
                f"{next(iter(again))}); each image is used once"
            )
        return set(lines)

    def named(self, images: dict[str, str]) -> dict[str, str]:
        """Return other names by which a list may call the images."""
        return {}

    def _refuse_missing(self, stems: set[str], folder: str, suffix: str, partner: str) -> None:
        """Refuse files without their counterpart, with a hint at names that nearly fit."""
        if not stems:
            return
        first = min(stems)
        names = sorted(self._names(folder))
        ends = [name.removeprefix(first) for name in names if name.startswith(first)]
        hint = "complete the data set or remove the counterparts"
        if suffix and first.endswith(suffix) and partner == self.ann_file:
            hint = f"write the lines of the list without {suffix!r}"
        elif ends:
            hint = (
                f"there is {first + ends[0]}: if that is it, set "
                f"{'img_suffix' if suffix == self.img_suffix else 'seg_map_suffix'} to the end "
                f"{ends[0]!r}"
            )
        elif partner == self.ann_file:
            known = min(self.chosen(names, suffix, folder))
            hint = f"a line of the list is the name of an image in this folder, such as {known}"
        raise FileNotFoundError(
            f"{posixpath.join(folder, first + suffix)} is missing ({len(stems)} such files), but "
            f"{partner} has its counterpart: {hint}"
        )

    def label_rules(self) -> dict:
        """Return what `label_table` needs to know, without looking at any file."""
        return dict(
            label_map=self._label_map(),
            reduce_zero_label=self.reduce_zero_label,
            num_classes=len(self.metainfo.get("classes") or ()) or None,
        )

    def _label_map(self) -> dict[int, int] | None:
        """Combine the values a file stores with a choice of classes in `metainfo`."""
        stored = self.stored_ids
        if stored is None:
            ends = (end for end in self.STORED_IDS if self.seg_map_suffix.endswith(end))
            stored = self.STORED_IDS.get(next(ends, None))
        if stored is None:
            return self.label_map
        if self.reduce_zero_label:
            raise ValueError(
                f"{self.data_root}: stored_ids (STORED_IDS) says what each stored value is; set "
                "reduce_zero_label=False beside it"
            )
        chosen = self.label_map or {}
        return {value: chosen.get(k, k) for value, k in stored.items()}
