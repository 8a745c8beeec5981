"""mmseg's datasets, read as they are published."""

import posixpath
from collections.abc import Sequence
from typing import ClassVar

from mmseg.datasets import (
    ADE20KDataset,
    BaseSegDataset,
    BDD100KDataset,
    CityscapesDataset,
    PascalVOCDataset,
)
from mmseg.registry import DATASETS

from .label_ids import CITYSCAPES_TRAIN_IDS
from .raw_files import RawFilesMixin


@DATASETS.register_module()
class RawADE20KDataset(RawFilesMixin, ADE20KDataset):
    """ADE20K; `data_root` is ADEChallengeData2016.zip or the folder in it."""

    key = "ade20k"
    DOWNLOAD = "ADEChallengeData2016.zip (data.csail.mit.edu/places/ADEchallenge)"
    PUBLISHED: ClassVar = {"images/training": 20210, "images/validation": 2000}


@DATASETS.register_module()
class RawVOC2012Dataset(RawFilesMixin, BaseSegDataset):
    """PASCAL VOC 2012; `data_root` is VOCtrainval_11-May-2012.tar or VOCdevkit/VOC2012.

    Not derived from mmseg's PascalVOCDataset, whose constructor wants `ann_file` on the local disk.
    """

    key = "voc2012"
    METAINFO = PascalVOCDataset.METAINFO
    DOWNLOAD = "VOCtrainval_11-May-2012.tar (host.robots.ox.ac.uk/pascal/VOC/voc2012)"
    PUBLISHED: ClassVar = {"Segmentation/train.txt": 1464, "Segmentation/val.txt": 1449}


@DATASETS.register_module()
class RawCityscapesDataset(RawFilesMixin, CityscapesDataset):
    """Cityscapes; `data_root` holds the two zips or the folders leftImg8bit and gtFine.

    Labels are the published `labelIds`, or with seg_map_suffix='_gtFine_labelTrainIds.png' the
    converted ones.
    """

    key = "cityscapes"
    ARCHIVES: ClassVar = {
        "leftImg8bit": "leftImg8bit_trainvaltest.zip",
        "gtFine": "gtFine_trainvaltest.zip",
    }
    DOWNLOAD = "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip (cityscapes-dataset.com)"
    PUBLISHED: ClassVar = {"leftImg8bit/train": 2975, "leftImg8bit/val": 500}
    STORED_IDS: ClassVar = {"_labelIds.png": CITYSCAPES_TRAIN_IDS}

    def __init__(self, seg_map_suffix: str = "_gtFine_labelIds.png", **kwargs) -> None:
        super().__init__(seg_map_suffix=seg_map_suffix, **kwargs)


@DATASETS.register_module()
class RawBDD100KDataset(RawFilesMixin, BDD100KDataset):
    """The 10,000 images of BDD100K with masks, in the 19 classes of Cityscapes.

    `data_root` holds the archives of the "10K Images", one or one for each split, and of the
    "Segmentation" labels, or the folders images and labels in them. Masks store Cityscapes' train
    ids and 255.
    """

    key = "bdd100k"
    ARCHIVES: ClassVar = {
        "images": ("bdd100k_images_10k.zip", "10k_images_{split}.zip"),
        "labels": "bdd100k_sem_seg_labels_trainval.zip",
    }
    DOWNLOAD = (
        "bdd100k_images_10k.zip (or 10k_images_train.zip and 10k_images_val.zip) and "
        "bdd100k_sem_seg_labels_trainval.zip (bdd-data.berkeley.edu)"
    )
    PUBLISHED: ClassVar = {"images/10k/train": 7000, "images/10k/val": 1000}


@DATASETS.register_module()
class RawACDCDataset(RawFilesMixin, CityscapesDataset):
    """ACDC: fog, night, rain and snow in the 19 classes of Cityscapes.

    `data_root` holds the two zips or the folders rgb_anon and gt in them. The reference images in
    good weather have no labels and are not used.

    Args:
        split: `'train'` or `'val'`.
        conditions: Those that are used; records call some of them `acdc-night`, all `acdc`.
        seg_map_suffix: End of the labels' names, `'_gt_labelIds.png'` for the others.
        data_prefix: Folders of the images and of the labels, above those of the conditions.
        **kwargs: See ``RawFilesMixin`` and mmseg's ``BaseSegDataset``.

    Raises:
        ValueError: If the split or a condition is unknown.
    """

    ARCHIVES: ClassVar = {"rgb_anon": "rgb_anon_trainvaltest.zip", "gt": "gt_trainval.zip"}
    DOWNLOAD = "rgb_anon_trainvaltest.zip and gt_trainval.zip (acdc.vision.ee.ethz.ch)"
    STORED_IDS: ClassVar = {"_labelIds.png": CITYSCAPES_TRAIN_IDS}
    # Images of each condition: Sakaridis et al., ICCV 2021, section 3.
    COUNTS: ClassVar = {
        "train": dict(fog=400, night=400, rain=400, snow=400),
        "val": dict(fog=100, night=106, rain=100, snow=100),
    }

    def __init__(
        self,
        split: str = "val",
        conditions: Sequence[str] = ("fog", "night", "rain", "snow"),
        seg_map_suffix: str = "_gt_labelTrainIds.png",
        data_prefix: dict = {"img_path": "rgb_anon", "seg_map_path": "gt"},  # noqa: B006  read only
        **kwargs,
    ) -> None:
        known = self.COUNTS.get(split, {})
        conditions = [conditions] if isinstance(conditions, str) else list(conditions)
        if not conditions or not set(conditions) <= set(known):
            raise ValueError(
                f"ACDC has no {conditions} of split {split!r}; splits are train and val, "
                "conditions fog, night, rain and snow"
            )
        self.split = split
        self.conditions = [name for name in known if name in conditions]
        self.key = "acdc"
        if len(self.conditions) < len(known):
            self.key += "-" + "-".join(self.conditions)
        super().__init__(
            img_suffix="_rgb_anon.png",
            seg_map_suffix=seg_map_suffix,
            data_prefix=data_prefix,
            **kwargs,
        )

    @property
    def published(self) -> int:
        """Published number of images of the split under these conditions."""
        return sum(self.COUNTS[self.split][name] for name in self.conditions)

    def folders(self) -> list[tuple[str, str | None]]:
        """Return the folders of the conditions, each with that of its labels."""
        roots = self.data_prefix["img_path"], self.data_prefix["seg_map_path"]
        return [
            tuple(posixpath.join(root, name, self.split) for root in roots)
            for name in self.conditions
        ]
