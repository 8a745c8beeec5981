"""Datasets, their storage and transforms, registered with mmseg and mmengine."""

import vfm_ss.registry  # noqa: F401  registers everything

from .folder import FolderDataset
from .gta import GTADataset
from .published import (
    RawACDCDataset,
    RawADE20KDataset,
    RawBDD100KDataset,
    RawCityscapesDataset,
    RawVOC2012Dataset,
)
from .storage import ArchiveBackend
from .transforms import LoadImage, LoadLabel, LoadRandomCrop, ResizeToCover

__all__ = [
    "ArchiveBackend",
    "FolderDataset",
    "GTADataset",
    "LoadImage",
    "LoadLabel",
    "LoadRandomCrop",
    "RawACDCDataset",
    "RawADE20KDataset",
    "RawBDD100KDataset",
    "RawCityscapesDataset",
    "RawVOC2012Dataset",
    "ResizeToCover",
]
