from .sliding_window import SlidingWindowEncoderDecoder
from .vfm_encoder_decoder import VFMEncoderDecoder

__all__ = ["SlidingWindowEncoderDecoder", "VFMEncoderDecoder"]
