from .checkpoint_hook import AtomicCheckpointHook
from .record_hook import RecordHook

__all__ = ["AtomicCheckpointHook", "RecordHook"]
