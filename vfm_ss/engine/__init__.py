import vfm_ss.registry  # noqa: F401  registers everything

from .hooks import *  # noqa: F403
from .optim_constructor import GroupedOptimWrapperConstructor
from .optim_wrapper import MixedPrecisionOptimWrapper
from .sampler import PositionSampler
from .schedulers import FullPolyLR, WarmupOneCycleLR
from .train_loop import OptimStepTrainLoop

__all__ = [
    "FullPolyLR",
    "GroupedOptimWrapperConstructor",
    "MixedPrecisionOptimWrapper",
    "OptimStepTrainLoop",
    "PositionSampler",
    "WarmupOneCycleLR",
]
