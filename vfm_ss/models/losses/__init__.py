from .mask2former_loss import Mask2FormerLoss
from .per_image_cross_entropy import PerImageCrossEntropyLoss

__all__ = ["Mask2FormerLoss", "PerImageCrossEntropyLoss"]
