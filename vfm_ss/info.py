"""What is installed and what is missing; facts about a VFM. Works without torch and mmseg."""

import importlib.metadata as metadata
import os
import platform
from pathlib import Path

from vfm_ss.compat import stack
from vfm_ss.errors import UsageError
from vfm_ss.protocol.settings import SETTINGS, config_name, is_published
from vfm_ss.protocol.vfms import VFM, VFMS
from vfm_ss.version import __version__, commit

WEIGHTS_FILE = "model.safetensors"


def environment() -> dict[str, str]:
    """Describe what runs here: versions as installed, and devices as torch sees them."""
    here = commit()
    rows = {
        "vfm_ss": f"{__version__}{f', commit {here}' if here else ''}, in {Path(__file__).parent}",
        "Python": platform.python_version(),
        "stack": _stack(),
    }
    for module in ("torch", "timm", "mmengine", "mmcv", "mmseg"):
        rows[module] = _version(stack.installed(module), module)
    found = next(filter(None, map(_installed, ("onedl-mmpretrain", "mmpretrain"))), None)
    rows["mmpretrain"] = _version(found, "mmpretrain") + ("" if found else "; optional")
    return rows | {"devices": _devices()}


def _stack() -> str:
    found = [stack.installed(module) for module in ("mmengine", "mmcv", "mmseg")]
    names = [distribution for distribution, _ in filter(None, found)]
    families = {"OneDL" if name.startswith("onedl-") else "OpenMMLab" for name in names}
    if len(families) > 1:
        return f"a mixture of OneDL's and OpenMMLab's releases ({', '.join(names)})"
    return families.pop() if families else "not installed"


def _installed(distribution: str) -> tuple[str, str] | None:
    try:
        return distribution, metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _version(found: tuple[str, str] | None, module: str) -> str:
    if found is None:
        return "not installed"
    distribution, version = found
    return version if distribution == module else f"{version} ({distribution})"


def _devices() -> str:
    cpu = f"CPU with {os.cpu_count()} cores"
    try:
        import torch
    except Exception as error:  # a torch that is missing, or built for other libraries
        return f"{cpu}; torch cannot be imported ({type(error).__name__}: {error})"
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    if not gpus:
        return f"{cpu}; no GPU that torch {torch.__version__} can use"
    return "; ".join([cpu, *(f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus)])


def find_vfm(name: str) -> VFM:
    """Return the VFM of a key or of a backbone's name, in any case.

    Raises:
        UsageError: If there is none.
    """
    for vfm in VFMS.values():
        if name.lower() in (vfm.key.lower(), vfm.name.lower()):
            return vfm
    raise UsageError(f"no VFM is called {name!r}; there are {', '.join(VFMS)}")


def vfm_facts(vfm: VFM) -> dict[str, str]:
    """Describe a VFM: its pretraining, its input, its weights and configs."""
    rows = {
        "backbone": f"type={vfm.name!r}, arch={' or '.join(map(repr, vfm.archs))}",
        "paper": f"https://arxiv.org/abs/{vfm.paper} ({vfm.year})",
        "licence": vfm.licence,
        "data": vfm.data or "unknown",
        "objective": vfm.objective or "unknown",
        "supervision": vfm.supervision or "unknown",
        "tokens": vfm.tokens or "unknown",
        "mean (RGB, 0 to 1)": ", ".join(map(str, vfm.mean)),
        "std (RGB, 0 to 1)": ", ".join(map(str, vfm.std)),
    }
    for arch in vfm.archs:
        rows[f"{arch}: timm model"] = vfm.timm_name(arch)
        rows[f"{arch}: weights"] = _weights(vfm.timm_name(arch))
    settings = [setting for setting in SETTINGS if is_published(vfm.key, setting)]
    return rows | {"configs": ", ".join(config_name(vfm.key, s) for s in settings)}


def _weights(timm_name: str) -> str:
    """Say what pretrained=True downloads, and whether it is there."""
    try:
        import torch
        from huggingface_hub import try_to_load_from_cache
        from timm.models import create_model, get_pretrained_cfg
    except Exception:  # as for torch
        return "timm, which cannot be imported, knows where they are"
    cfg = get_pretrained_cfg(timm_name)
    with torch.device("meta"):
        vit = create_model(timm_name, num_classes=0)
    millions = sum(parameter.numel() for parameter in vit.parameters()) / 1e6
    size = f"{millions:.1f} M parameters, {4 * millions:.0f} MB in fp32"
    file = cfg.hf_hub_filename or WEIGHTS_FILE
    found = try_to_load_from_cache(cfg.hf_hub_id, file)
    state = f"downloaded: {found}" if isinstance(found, str) else "not downloaded yet"
    return f"https://huggingface.co/{cfg.hf_hub_id}, {file}, {size} ({state})"
