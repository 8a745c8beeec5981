from .record_hook import RecordHook

__all__ = ["RecordHook"]
