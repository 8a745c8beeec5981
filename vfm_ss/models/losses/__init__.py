from .per_image_cross_entropy import PerImageCrossEntropyLoss

__all__ = ["PerImageCrossEntropyLoss"]
