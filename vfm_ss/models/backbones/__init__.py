from .beit3 import BEiT3
from .mmpretrain_vit import MMPretrainViT
from .sam import SAM
from .timm_vit import TimmViT
from .vfm import (
    DFN,
    EUPE,
    EVA02,
    EVA02CLIP,
    MAE,
    AIMv2,
    CRADIOv3,
    DeiT3IN1K,
    DeiT3IN21K,
    DINOv2,
    DINOv2Reg,
    DINOv3,
    LingBotVision,
    PECore,
    PESpatial,
    SigLIP,
    SigLIP2,
    TIPSv2,
)

__all__ = [
    "DFN",
    "EUPE",
    "EVA02",
    "EVA02CLIP",
    "MAE",
    "SAM",
    "AIMv2",
    "BEiT3",
    "CRADIOv3",
    "DINOv2",
    "DINOv2Reg",
    "DINOv3",
    "DeiT3IN1K",
    "DeiT3IN21K",
    "LingBotVision",
    "MMPretrainViT",
    "PECore",
    "PESpatial",
    "SigLIP",
    "SigLIP2",
    "TIPSv2",
    "TimmViT",
]
