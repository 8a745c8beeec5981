from .data_preprocessor import PaddingSegDataPreProcessor  # noqa: F401
