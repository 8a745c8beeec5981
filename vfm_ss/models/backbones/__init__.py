from .beit3 import BEiT3
from .mmpretrain_vit import MMPretrainViT
from .sam import SAM
from .timm_vit import TimmViT
from .vfm import DFN, EVA02, EVA02CLIP, MAE, DeiT3IN1K, DeiT3IN21K, DINOv2, SigLIP

__all__ = [
    "DFN",
    "EVA02",
    "EVA02CLIP",
    "MAE",
    "SAM",
    "BEiT3",
    "DINOv2",
    "DeiT3IN1K",
    "DeiT3IN21K",
    "MMPretrainViT",
    "SigLIP",
    "TimmViT",
]
