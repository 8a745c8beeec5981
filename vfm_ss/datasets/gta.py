"""GTA V: "Playing for Data" (Richter et al., ECCV 2016), with Cityscapes' classes."""

import posixpath
from typing import ClassVar

import mmengine.fileio as fileio
from mmseg.datasets import CityscapesDataset
from mmseg.registry import DATASETS

from .label_ids import CITYSCAPES_TRAIN_IDS
from .raw_files import RawFilesMixin

PARTS = [f"{part:02}" for part in range(1, 11)]


@DATASETS.register_module()
class GTADataset(RawFilesMixin, CityscapesDataset):
    """All 24,966 frames of GTA V in the 19 classes of Cityscapes.

    `data_root` holds 01_images.zip to 10_labels.zip, or the folders images and labels. Labels are
    the published palette images, whose indices are Cityscapes' label ids; the few whose size
    differs from their image's are resized.
    """

    key = "gta"
    DOWNLOAD = "01_images.zip, 01_labels.zip to 10_labels.zip (download.visinf.tu-darmstadt.de)"
    PUBLISHED: ClassVar = {"": 24966}
    STORED_IDS: ClassVar = {".png": CITYSCAPES_TRAIN_IDS}
    resize_label = True

    def __init__(
        self,
        img_suffix: str = ".png",
        seg_map_suffix: str = ".png",
        data_prefix: dict = {"img_path": "images", "seg_map_path": "labels"},  # noqa: B006  read only
        **kwargs,
    ) -> None:
        super().__init__(
            img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, data_prefix=data_prefix, **kwargs
        )

    def folders(self) -> list[tuple[str, str | None]]:
        """Return the two folders, or those in the ten pairs of archives.

        Raises:
            FileNotFoundError: If an archive is missing; the message lists all that are.
        """
        if fileio.isdir(self.data_prefix["img_path"], self.backend_args):
            return super().folders()
        names = [f"{part}_{kind}.zip" for part in PARTS for kind in ("images", "labels")]
        missing = [
            name
            for name in names
            if not fileio.exists(posixpath.join(self.data_root, name), self.backend_args)
        ]
        if missing:
            raise FileNotFoundError(
                f"{self.data_root} has neither {self.data_prefix['img_path']} nor all archives "
                f"(missing: {', '.join(missing)}): put {self.DOWNLOAD} there or set data_root"
            )
        return [
            tuple(posixpath.join(self.data_root, f"{part}_{kind}.zip", kind) for kind in kinds)
            for part in PARTS
            for kinds in [("images", "labels")]
        ]
