from .miou import MeanIoUMetric

__all__ = ["MeanIoUMetric"]
