"""The list of the published configs that OpenMMLab's mim and mmengine's hub read.

``python -m vfm_ss.deploy.metafile configs/vfm/metafile.yml`` writes it again after a VFM or a
setting was added. It has no scores: nothing was trained with these configs yet.
"""

import sys
from pathlib import Path

import yaml
from timm.models import model_entrypoint

from vfm_ss.protocol.identity import EFFECTIVE_BATCH
from vfm_ss.protocol.settings import SETTINGS, Setting, config_name, is_published
from vfm_ss.protocol.vfms import SIZES, VFM, VFMS

#: The benchmark's paper.
PAPER = "https://arxiv.org/abs/2404.12172"
# Where the architectures are implemented.
_TIMM = "https://github.com/huggingface/pytorch-image-models/blob/main/"
_DATA = {
    "ade20k": "ADE20K",
    "voc2012": "PASCAL VOC 2012",
    "cityscapes": "Cityscapes",
    "gta": "GTA V",
}
_DECODERS = {
    "linear": "linear decoder",
    "probe": "linear decoder, frozen encoder",
    "mask2former": "single-scale Mask2Former",
}


def metafile() -> dict:
    """Return collections (VFMs) and models (configs) in the form of mmseg's metafiles."""
    return {
        "Collections": [_collection(vfm) for vfm in VFMS.values()],
        "Models": [
            _model(vfm, setting)
            for vfm in VFMS.values()
            for setting in SETTINGS.values()
            if is_published(vfm.key, setting.name)
        ],
    }


def _collection(vfm: VFM) -> dict:
    return {"Name": vfm.name, "License": vfm.licence, "Paper": _paper(vfm), "Code": _code(vfm)}


def _model(vfm: VFM, setting: Setting) -> dict:
    name, arch = config_name(vfm.key, setting.name), SIZES[setting.size]
    size = f"ViT-{setting.size.upper()}, {setting.patch}x{setting.patch} patches"
    return {
        "Name": name,
        "In Collection": vfm.name,
        "Config": f"configs/vfm/{name}.py",
        "Metadata": {
            "Architecture": [size, _DECODERS[setting.decoder]],
            "Pretrained Model": vfm.timm_name(arch),
            "Training Data": _DATA[setting.data.train],
            "Batch Size": EFFECTIVE_BATCH,
            "Iterations": setting.data.steps,
            "Crop Size": setting.data.crop_size,
        },
        "Results": [{"Task": "Semantic Segmentation", "Dataset": _DATA[setting.data.eval]}],
        "Paper": [_paper(vfm), PAPER],
        "Code": _code(vfm),
    }


def _paper(vfm: VFM) -> str:
    return f"https://arxiv.org/abs/{vfm.paper}"


def _code(vfm: VFM) -> str:
    architecture = vfm.timm_name(vfm.archs[0]).partition(".")[0]
    return _TIMM + model_entrypoint(architecture).__module__.replace(".", "/") + ".py"


def write(path: str) -> None:
    """Write the metafile."""
    text = yaml.safe_dump(metafile(), sort_keys=False, width=100)
    Path(path).write_text(f"# Written by: python -m {__spec__.name} {path}\n{text}", "utf-8")


if __name__ == "__main__":
    write(*sys.argv[1:])
