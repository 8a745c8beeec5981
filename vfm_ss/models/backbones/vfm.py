"""The VFMs that timm builds and resizes without help from us."""

from typing import ClassVar

import mmseg.models
from mmseg.registry import MODELS

from vfm_ss.protocol.vfms import VFMS

from .timm_vit import TimmViT


class VFMBackbone(TimmViT):
    """One of the benchmark's VFMs: a timm model chosen by size, with its own statistics.

    Args:
        arch: ``'small'``, ``'base'`` or ``'large'``, where the VFM is published in that size.
        *args: As of :class:`TimmViT`, from ``patch_size`` on.
        **kwargs: See :class:`TimmViT`.
    """

    #: Key in ``vfm_ss.protocol.vfms.VFMS``.
    key: ClassVar[str]

    def __init__(self, arch: str = "base", *args, **kwargs):
        super().__init__(VFMS[self.key].timm_name(arch), *args, **kwargs)
        self.arch = arch

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return VFMS[self.key].mean, VFMS[self.key].std


@MODELS.register_module()
class EVA02(VFMBackbone):
    """EVA-02 pretrained by masked image modelling: rotary embeddings, no final norm."""

    key = "eva02"


@MODELS.register_module()
class EVA02CLIP(VFMBackbone):
    """The image tower of EVA-02-CLIP, with its final norm."""

    key = "eva02clip"


@MODELS.register_module()
class DINOv2(VFMBackbone):
    """DINOv2, without registers."""

    key = "dinov2"


@MODELS.register_module()
class SigLIP(VFMBackbone):
    """The image tower of SigLIP, without its attention pool."""

    key = "siglip"


@MODELS.register_module()
class DFN(VFMBackbone):
    """The image tower of a CLIP trained on DFN-2B.

    The large one is timm's QuickGELU model, the activation its weights were trained with; the
    paper's code uses the GELU one.
    """

    key = "dfn"


@MODELS.register_module()
class DeiT3IN21K(VFMBackbone):
    """DeiT III trained on ImageNet-21K, then ImageNet-1K."""

    key = "deit3-in21k"


@MODELS.register_module()
class DeiT3IN1K(VFMBackbone):
    """DeiT III trained on ImageNet-1K."""

    key = "deit3-in1k"


# mmseg has a backbone of this name, too. Once vfm_ss is imported, the name stands for the
# benchmark's; mmseg's stays available as `MMSegMAE`.
MODELS.register_module(name="MMSegMAE", module=mmseg.models.backbones.MAE)


@MODELS.register_module(force=True)
class MAE(VFMBackbone):
    """The encoder of a masked autoencoder.

    Replaces mmseg's backbone of the same name, which is registered as ``MMSegMAE``.
    """

    key = "mae"


@MODELS.register_module()
class DINOv2Reg(VFMBackbone):
    """DINOv2 with four registers, which the features leave out."""

    key = "dinov2-reg"


@MODELS.register_module()
class DINOv3(VFMBackbone):
    """DINOv3, distilled from its 7B model: rotary embeddings on coordinates in [-1, 1]."""

    key = "dinov3"


@MODELS.register_module()
class SigLIP2(VFMBackbone):
    """The image tower of SigLIP 2, without its attention pool."""

    key = "siglip2"


@MODELS.register_module()
class TIPSv2(VFMBackbone):
    """The image tower of TIPSv2, which takes images in [0, 1] without further normalisation."""

    key = "tipsv2"


@MODELS.register_module()
class PECore(VFMBackbone):
    """Perception Encoder Core, with its final norm and without its attention pool."""

    key = "pe-core"


@MODELS.register_module()
class PESpatial(VFMBackbone):
    """Perception Encoder Spatial, which has no final norm."""

    key = "pe-spatial"


@MODELS.register_module()
class CRADIOv3(VFMBackbone):
    """C-RADIOv3, which has no final norm; its position grid of 128x128 is resized bilinearly."""

    key = "c-radiov3"


@MODELS.register_module()
class EUPE(VFMBackbone):
    """EUPE, in the architecture of DINOv3."""

    key = "eupe"


@MODELS.register_module()
class LingBotVision(VFMBackbone):
    """LingBot-Vision, in the architecture of DINOv3."""

    key = "lingbot-vision"


@MODELS.register_module()
class AIMv2(VFMBackbone):
    """AIMv2, published as ViT-L only."""

    key = "aimv2"
