"""mmseg's datasets, read as they are published."""

from typing import ClassVar

from mmseg.datasets import ADE20KDataset, BaseSegDataset, CityscapesDataset, PascalVOCDataset
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
