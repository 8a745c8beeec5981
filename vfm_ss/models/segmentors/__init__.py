from .averaging_tta import AveragingTTAModel
from .sliding_window import SlidingWindowEncoderDecoder
from .vfm_encoder_decoder import VFMEncoderDecoder

__all__ = ["AveragingTTAModel", "SlidingWindowEncoderDecoder", "VFMEncoderDecoder"]
