"""Transforms of the training and test pipelines, registered with mmseg."""

from .loading import LoadImage, LoadLabel
from .random_crop import LoadRandomCrop
from .resize import ResizeToCover

__all__ = ["LoadImage", "LoadLabel", "LoadRandomCrop", "ResizeToCover"]
