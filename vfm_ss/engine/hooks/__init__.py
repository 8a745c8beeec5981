from vfm_ss.compat.runner import use_monotonic_timer

from .checkpoint_hook import AtomicCheckpointHook
from .prediction_hooks import PaintPredictionsHook, SaveLabelsHook
from .record_hook import RecordHook
from .runtime_info_hook import AsyncRuntimeInfoHook

__all__ = [
    "AsyncRuntimeInfoHook",
    "AtomicCheckpointHook",
    "PaintPredictionsHook",
    "RecordHook",
    "SaveLabelsHook",
]

use_monotonic_timer()
