"""The vision foundation models of the benchmark, as data.

One place names every VFM: its key in config names, its name in mmseg's registry, the timm models
behind it and the facts that reports show. Facts of the paper's ten are those of its Table 2 (arXiv
2404.12172); those of newer ones come from their papers and model cards. Licences are those that
timm 1.0.31 states for the weights. Standard library only, so that ranking runs without torch.
"""

from dataclasses import dataclass

#: Sizes by their letter in config names.
SIZES = {"s": "small", "b": "base", "l": "large"}


@dataclass(frozen=True)
class VFM:
    """One vision foundation model. A fact that we have not read in a source is None.

    Attributes:
        key: Name in config file names, records and tables, for example ``dinov2``.
        name: Name of the backbone in mmseg's ``MODELS`` registry, for example ``DINOv2``.
        family: ``'paper'`` for the ten of the paper, ``'next'`` for those published later.
        year: Year of its paper.
        paper: arXiv id of its paper.
        licence: Licence of the weights.
        mean: Mean of each RGB channel, in [0, 1], that the weights were trained with.
        std: Standard deviation of each RGB channel, in [0, 1].
        small: timm model name (with pretrained tag) of the ViT-S; None where there is none.
        base: The same of the ViT-B.
        large: The same of the ViT-L.
        data: Pretraining data.
        objective: Pretraining objective.
        supervision: Pretraining supervision.
        tokens: Number of patch tokens per image at pretraining.
    """

    key: str
    name: str
    family: str
    year: int
    paper: str
    licence: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    small: str | None = None
    base: str | None = None
    large: str | None = None
    data: str | None = None
    objective: str | None = None
    supervision: str | None = None
    tokens: str | None = None

    @property
    def archs(self) -> tuple[str, ...]:
        """The published sizes, of ``'small'``, ``'base'`` and ``'large'``."""
        return tuple(arch for arch in SIZES.values() if getattr(self, arch))

    def timm_name(self, arch: str) -> str:
        """Return the timm model name of ``arch`` (``'small'``, ``'base'`` or ``'large'``).

        Raises:
            ValueError: If there is no such size of this VFM.
        """
        if arch not in self.archs:
            raise ValueError(
                f"arch of {self.name} must be {' or '.join(map(repr, self.archs))}, got {arch!r}"
            )
        return getattr(self, arch)


_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_CLIP = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}

_NONE = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

_TABLE = (
    VFM(
        key="eva02",
        name="EVA02",
        family="paper",
        year=2023,
        paper="2303.11331",
        licence="mit",
        small="eva02_small_patch14_224.mim_in22k",
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
        family="paper",
        year=2023,
        paper="2303.15389",
        licence="mit",
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
        family="paper",
        year=2023,
        paper="2304.07193",
        licence="apache-2.0",
        small="vit_small_patch14_dinov2.lvd142m",
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
        family="paper",
        year=2022,
        paper="2208.10442",
        licence="apache-2.0",
        base="beit3_base_patch16_224.pt",
        large="beit3_large_patch16_224.pt",
        data="IN-21K, image-text, text",
        objective="MIM, MLM",
        supervision="CLIP teacher, texts",
        tokens="196",
        # The statistics of BEiT-3's own pretraining; timm's entry has ImageNet's.
        **_HALF,
    ),
    VFM(
        key="siglip",
        name="SigLIP",
        family="paper",
        year=2023,
        paper="2303.15343",
        licence="apache-2.0",
        base="vit_base_patch16_siglip_512.webli",
        large="vit_large_patch16_siglip_384.webli",
        data="WebLI",
        objective="LIP",
        supervision="texts",
        tokens="1024 (B), 576 (L)",
        **_HALF,
    ),
    VFM(
        key="dfn",
        name="DFN",
        family="paper",
        year=2023,
        paper="2309.17425",
        licence="apple-ascl",
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
        family="paper",
        year=2022,
        paper="2204.07118",
        licence="apache-2.0",
        small="deit3_small_patch16_384.fb_in22k_ft_in1k",
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
        family="paper",
        year=2022,
        paper="2204.07118",
        licence="apache-2.0",
        small="deit3_small_patch16_384.fb_in1k",
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
        family="paper",
        year=2021,
        paper="2111.06377",
        licence="cc-by-nc-4.0",
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
        family="paper",
        year=2023,
        paper="2304.02643",
        licence="apache-2.0",
        base="samvit_base_patch16.sa1b",
        large="samvit_large_patch16.sa1b",
        data="IN1K, then SA-1B",
        objective="MAE, then promptable segmentation",
        supervision="none, then class-agnostic masks",
        tokens="196, then 4096",
        **_IMAGENET,
    ),
    VFM(
        key="dinov2-reg",
        name="DINOv2Reg",
        family="next",
        year=2023,
        paper="2309.16588",
        licence="apache-2.0",
        small="vit_small_patch14_reg4_dinov2.lvd142m",
        base="vit_base_patch14_reg4_dinov2.lvd142m",
        large="vit_large_patch14_reg4_dinov2.lvd142m",
        data="LVD-142M",
        objective="MIM, discrimination",
        supervision="none",
        tokens="256, then 1369",
        **_IMAGENET,
    ),
    VFM(
        key="dinov3",
        name="DINOv3",
        family="next",
        year=2025,
        paper="2508.10104",
        licence="dinov3-license",
        small="vit_small_patch16_dinov3.lvd1689m",
        base="vit_base_patch16_dinov3.lvd1689m",
        large="vit_large_patch16_dinov3.lvd1689m",
        data="LVD-1689M",
        objective="MIM, discrimination, Gram anchoring, distilled",
        supervision="none",
        tokens="256",
        **_IMAGENET,
    ),
    VFM(
        key="siglip2",
        name="SigLIP2",
        family="next",
        year=2025,
        paper="2502.14786",
        licence="apache-2.0",
        base="vit_base_patch16_siglip_512.v2_webli",
        large="vit_large_patch16_siglip_512.v2_webli",
        data="WebLI",
        objective="LIP, captioning, self-distillation, MIM",
        supervision="texts",
        tokens="1024",
        **_HALF,
    ),
    VFM(
        key="tipsv2",
        name="TIPSv2",
        family="next",
        year=2026,
        paper="2604.12012",
        licence="apache-2.0",
        base="vit_base_patch14_reg1_tipsv2.webli",
        large="vit_large_patch14_reg1_tipsv2.webli",
        data="WebLI",
        objective="CLIP, self-distillation, MIM",
        supervision="texts, synthetic captions",
        tokens="1024",
        **_NONE,
    ),
    VFM(
        key="pe-core",
        name="PECore",
        family="next",
        year=2025,
        paper="2504.13181",
        licence="apache-2.0",
        small="vit_pe_core_small_patch16_384.fb",
        base="vit_pe_core_base_patch16_224.fb",
        large="vit_pe_core_large_patch14_336.fb",
        objective="CLIP",
        supervision="texts",
        tokens="576 (S), 196 (B), 576 (L)",
        **_HALF,
    ),
    VFM(
        key="pe-spatial",
        name="PESpatial",
        family="next",
        year=2025,
        paper="2504.13181",
        licence="apache-2.0",
        small="vit_pe_spatial_small_patch16_512.fb",
        base="vit_pe_spatial_base_patch16_512.fb",
        large="vit_pe_spatial_large_patch14_448.fb",
        objective="CLIP, then self-distillation and SAM 2.1 mask logits",
        supervision="texts, then masks of SAM 2.1",
        tokens="1024",
        **_HALF,
    ),
    VFM(
        key="c-radiov3",
        name="CRADIOv3",
        family="next",
        year=2024,
        paper="2412.07679",
        licence="nvidia-open-model-license",
        base="vit_base_patch16_radio_v3.c_radio",
        large="vit_large_patch16_radio_v3.c_radio",
        objective="multi-teacher distillation",
        supervision="teachers",
        tokens="1024",
        **_CLIP,
    ),
    VFM(
        key="eupe",
        name="EUPE",
        family="next",
        year=2026,
        paper="2603.22387",
        licence="fair-noncommercial-research-license",
        small="vit_small_patch16_dinov3_qkvb.eupe_lvd1689m",
        base="vit_base_patch16_dinov3_qkvb.eupe_lvd1689m",
        data="LVD-1689M",
        objective="distilled from a proxy of PE-Core, PE-Lang and DINOv3",
        supervision="teachers",
        tokens="256",
        **_IMAGENET,
    ),
    VFM(
        key="lingbot-vision",
        name="LingBotVision",
        family="next",
        year=2026,
        paper="2607.05247",
        licence="apache-2.0",
        small="vit_small_patch16_lingbot.robbyant",
        base="vit_base_patch16_lingbot.robbyant",
        large="vit_large_patch16_lingbot.robbyant",
        tokens="1024",
        **_IMAGENET,
    ),
    VFM(
        key="aimv2",
        name="AIMv2",
        family="next",
        year=2024,
        paper="2411.14402",
        licence="apple-ascl",
        large="aimv2_large_patch14_448.apple_pt",
        objective="autoregression of pixels and texts",
        supervision="texts",
        tokens="1024",
        **_CLIP,
    ),
)

#: Every VFM by its key: the paper's in the order of its Table 2, then the newer ones.
VFMS = {vfm.key: vfm for vfm in _TABLE}

#: The keys of each family.
FAMILIES = {
    family: tuple(vfm.key for vfm in _TABLE if vfm.family == family) for family in ("paper", "next")
}
