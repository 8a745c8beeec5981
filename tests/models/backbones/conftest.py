"""Tools of the backbone tests: small timm models with rich weights, and Pillow's resize."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file


def _small(name: str, depth: int = 2, seed: int = 0, **kwargs):
    """Build a timm model with few blocks whose every parameter is random, norms included."""
    if name.startswith("samvit"):
        kwargs.setdefault("global_attn_indexes", [depth - 1])
    vit = timm.create_model(name, pretrained=False, num_classes=0, depth=depth, **kwargs).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in vit.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            # Norm weights and layer scales spread around 1, all else around 0.
            scale = parameter.ndim == 1 and key.endswith(("weight", "gamma"))
            parameter.copy_(1 + 0.2 * noise if scale else 0.05 * noise)
    return vit


@pytest.fixture(scope="session")
def small_vit():
    """`small_vit(timm_name, depth=2, seed=0)`: see `_small`."""
    return _small


@pytest.fixture
def weights_of(tmp_path):
    """`weights_of(vit)`: the path of a file with its weights."""

    def save(vit, name: str = "weights.safetensors"):
        path = tmp_path / name
        save_file({k: v.contiguous() for k, v in vit.state_dict().items()}, path)
        return path

    return save


def _pillow_resize(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (N, H, W) maps bicubically with Pillow, which timm and torch have no part in."""
    height, width = size
    return np.stack(
        [np.asarray(Image.fromarray(m).resize((width, height), Image.BICUBIC)) for m in maps]
    )


@pytest.fixture(scope="session")
def pillow_resize():
    """`pillow_resize(maps, size)`: see `_pillow_resize`."""
    return _pillow_resize
