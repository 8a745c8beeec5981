from .single_scale_mask2former_head import SingleScaleMask2FormerHead

__all__ = ["SingleScaleMask2FormerHead"]
