import vfm_ss.registry  # noqa: F401  registers everything

from .miou import MeanIoUMetric

__all__ = ["MeanIoUMetric"]
