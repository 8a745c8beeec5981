from .vfm_encoder_decoder import VFMEncoderDecoder

__all__ = ["VFMEncoderDecoder"]
