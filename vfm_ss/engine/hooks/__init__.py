import time
from types import SimpleNamespace

from mmengine.hooks import iter_timer_hook

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

# mmengine's timer takes differences of the wall clock, which may be set back within a run.
iter_timer_hook.time = SimpleNamespace(time=time.monotonic)
