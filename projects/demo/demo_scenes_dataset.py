"""The demo's scenes as an mmseg dataset; its configs import this module."""

from typing import ClassVar

from demo_scenes import CLASSES
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from vfm_ss.datasets.raw_files import RawFilesMixin


@DATASETS.register_module()
class DemoScenesDataset(RawFilesMixin, BaseSegDataset):
    """The scenes of ``make_demo_scenes``, eight classes; the label 0 ("other") is ignored.

    Args:
        **kwargs: See mmseg's ``BaseSegDataset``.
    """

    DOWNLOAD = "the scenes that tools/demo.sh makes"
    METAINFO: ClassVar[dict] = {
        "classes": CLASSES,
        "palette": [
            [70, 130, 180],
            [120, 90, 60],
            [150, 200, 90],
            [128, 64, 128],
            [200, 160, 120],
            [30, 110, 30],
            [0, 0, 200],
            [220, 20, 60],
        ],
    }

    def __init__(self, **kwargs):
        defaults = {"img_suffix": ".jpg", "seg_map_suffix": ".png", "reduce_zero_label": True}
        super().__init__(**{**defaults, **kwargs})
