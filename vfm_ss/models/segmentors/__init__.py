from .sliding_window import SlidingWindowEncoderDecoder  # noqa: F401
