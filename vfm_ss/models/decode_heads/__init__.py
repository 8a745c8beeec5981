from .batch_norm_linear_head import BatchNormLinearHead
from .eomt_head import EoMTHead
from .linear_head import LinearHead
from .single_scale_mask2former_head import SingleScaleMask2FormerHead

__all__ = ["BatchNormLinearHead", "EoMTHead", "LinearHead", "SingleScaleMask2FormerHead"]
