from .sampler import PositionSampler  # noqa: F401
