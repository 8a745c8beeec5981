from vfm_ss.compat.runner import use_monotonic_timer

from .checkpoint_hook import AtomicCheckpointHook
from .examples_hook import SaveExamplesHook
from .image_size_hook import ImageSizeHook
from .prediction_hooks import PaintPredictionsHook, SaveLabelsHook
from .record_hook import RecordHook
from .runtime_info_hook import AsyncRuntimeInfoHook

__all__ = [
    "AsyncRuntimeInfoHook",
    "AtomicCheckpointHook",
    "ImageSizeHook",
    "PaintPredictionsHook",
    "RecordHook",
    "SaveExamplesHook",
    "SaveLabelsHook",
]

use_monotonic_timer()
