"""The ten vision foundation models of the benchmark, as data.

One place names every VFM: its key in config names, its name in mmseg's registry, the timm models
behind it and the pretraining facts of the paper's Table 2 (arXiv 2404.12172). Standard library
only, so that ranking runs without torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class VFM:
    """One vision foundation model.

    Attributes:
        key: Name in config file names, records and tables, for example ``dinov2``.
        name: Name of the backbone in mmseg's ``MODELS`` registry, for example ``DINOv2``.
        base: timm model name (with pretrained tag) of the ViT-B.
        large: timm model name (with pretrained tag) of the ViT-L.
        data: Pretraining data (paper, Table 2).
        objective: Pretraining objective (paper, Table 2).
        supervision: Pretraining supervision (paper, Table 2).
        tokens: Number of patch tokens per image at pretraining (paper, Table 2).
        mean: Mean of each RGB channel, in [0, 1], that the weights were trained with.
        std: Standard deviation of each RGB channel, in [0, 1].
    """

    key: str
    name: str
    base: str
    large: str
    data: str
    objective: str
    supervision: str
    tokens: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def timm_name(self, arch: str) -> str:
        """Return the timm model name of ``arch`` (``'base'`` or ``'large'``).

        Raises:
            ValueError: If ``arch`` is neither.
        """
        if arch not in ("base", "large"):
            raise ValueError(f"arch must be 'base' or 'large', got {arch!r}")
        return self.base if arch == "base" else self.large


_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_INCEPTION = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_CLIP = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}

_TABLE = (
    VFM(
        key="eva02",
        name="EVA02",
        base="eva02_base_patch14_224.mim_in22k",
        large="eva02_large_patch14_224.mim_m38m",
        data="IN-21K (B), Merged-38M (L)",
        objective="MIM",
        supervision="CLIP teacher",
        tokens="196",
        **_CLIP,
    ),
    VFM(
        key="eva02clip",
        name="EVA02CLIP",
        base="eva02_base_patch16_clip_224.merged2b",
        large="eva02_large_patch14_clip_336.merged2b",
        data="IN-21K (B), Merged-38M (L), then Merged-2B",
        objective="MIM, then CLIP",
        supervision="CLIP teacher, then texts",
        tokens="196, then 196",
        **_CLIP,
    ),
    VFM(
        key="dinov2",
        name="DINOv2",
        base="vit_base_patch14_dinov2.lvd142m",
        large="vit_large_patch14_dinov2.lvd142m",
        data="LVD-142M",
        objective="MIM, discrimination",
        supervision="none",
        tokens="256, then 1369",
        **_IMAGENET,
    ),
    VFM(
        key="beit3",
        name="BEiT3",
        base="beit3_base_patch16_224.pt",
        large="beit3_large_patch16_224.pt",
        data="IN-21K, image-text, text",
        objective="MIM, MLM",
        supervision="CLIP teacher, texts",
        tokens="196",
        # The statistics of BEiT-3's own pretraining; timm's entry has ImageNet's.
        **_INCEPTION,
    ),
    VFM(
        key="siglip",
        name="SigLIP",
        base="vit_base_patch16_siglip_512.webli",
        large="vit_large_patch16_siglip_384.webli",
        data="WebLI",
        objective="LIP",
        supervision="texts",
        tokens="1024 (B), 576 (L)",
        **_INCEPTION,
    ),
    VFM(
        key="dfn",
        name="DFN",
        base="vit_base_patch16_clip_224.dfn2b",
        large="vit_large_patch14_clip_quickgelu_224.dfn2b",
        data="DFN-2B",
        objective="CLIP",
        supervision="texts",
        tokens="196",
        **_CLIP,
    ),
    VFM(
        key="deit3-in21k",
        name="DeiT3IN21K",
        base="deit3_base_patch16_384.fb_in22k_ft_in1k",
        large="deit3_large_patch16_384.fb_in22k_ft_in1k",
        data="IN-21K, then IN1K",
        objective="classification",
        supervision="classes",
        tokens="576",
        **_IMAGENET,
    ),
    VFM(
        key="deit3-in1k",
        name="DeiT3IN1K",
        base="deit3_base_patch16_384.fb_in1k",
        large="deit3_large_patch16_384.fb_in1k",
        data="IN1K",
        objective="classification",
        supervision="classes",
        tokens="576",
        **_IMAGENET,
    ),
    VFM(
        key="mae",
        name="MAE",
        base="vit_base_patch16_224.mae",
        large="vit_large_patch16_224.mae",
        data="IN1K",
        objective="MAE",
        supervision="none",
        tokens="196",
        **_IMAGENET,
    ),
    VFM(
        key="sam",
        name="SAM",
        base="samvit_base_patch16.sa1b",
        large="samvit_large_patch16.sa1b",
        data="IN1K, then SA-1B",
        objective="MAE, then promptable segmentation",
        supervision="none, then class-agnostic masks",
        tokens="196, then 4096",
        **_IMAGENET,
    ),
)

#: Every VFM by its key, in the order of the paper's Table 2.
VFMS = {vfm.key: vfm for vfm in _TABLE}
