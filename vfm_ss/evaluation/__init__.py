from .miou import MeanIoUMetric  # noqa: F401
