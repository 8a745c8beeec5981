"""Datasets, their storage and transforms, registered with mmseg and mmengine."""

from .demo_scenes_dataset import DemoScenesDataset  # noqa: F401
from .gta import GTADataset  # noqa: F401
from .published import (  # noqa: F401
    PairedADE20KDataset,
    PairedCityscapesDataset,
    PairedVOC2012Dataset,
)
from .storage import ArchiveBackend  # noqa: F401
from .transforms import LoadImage, LoadLabel, LoadRandomCrop, ResizeToCover  # noqa: F401
