import vfm_ss.registry  # noqa: F401  registers everything

from .backbones import *  # noqa: F403
from .data_preprocessor import PaddingSegDataPreProcessor  # noqa: F401
from .decode_heads import *  # noqa: F403
from .losses import *  # noqa: F403
from .segmentors import *  # noqa: F403
