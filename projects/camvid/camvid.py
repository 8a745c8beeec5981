"""CamVid as an mmseg dataset: the kind of module that any mmseg project brings along."""

from typing import ClassVar

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid with the eleven classes of SegNet; the label 11 (unlabelled) is ignored."""

    METAINFO: ClassVar[dict] = {
        "classes": (
            "sky",
            "building",
            "pole",
            "road",
            "pavement",
            "tree",
            "sign",
            "fence",
            "car",
            "pedestrian",
            "bicyclist",
            "unlabelled",
        ),
        "palette": [
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [0, 0, 192],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
            [0, 0, 0],
        ],
    }

    def __init__(self, **kwargs):
        kwargs.setdefault("metainfo", {"classes": self.METAINFO["classes"][:-1]})
        super().__init__(img_suffix=".jpg", seg_map_suffix=".png", **kwargs)
