"""Transforms of the training and test pipelines, registered with mmseg."""

from .loading import LoadImage, LoadLabel  # noqa: F401
from .random_crop import LoadRandomCrop  # noqa: F401
from .resize import ResizeToCover  # noqa: F401
