from .mask2former_loss import Mask2FormerLoss

__all__ = ["Mask2FormerLoss"]
