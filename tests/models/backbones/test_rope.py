"""Rotary embeddings at other sizes than the native one, against formulas written out here."""

import numpy as np
import pytest
from mmseg.registry import MODELS

from vfm_ss.protocol.vfms import VFMS

SIZES = [(512, 512), (1024, 1024), (512, 768)]


def build(key, size, patch=16, **kwargs):
    arch = VFMS[key].archs[0]
    cfg = dict(type=VFMS[key].name, arch=arch, pretrained=False, depth=1, **kwargs)
    return MODELS.build(dict(img_size=size, patch_size=patch, **cfg)).vit


def embedding_of(vit, grid):
    """Sines and cosines that the model uses for its grid, (tokens, head width) each."""
    embed = vit.rope.get_embed(shape=list(grid))
    sin, cos = embed.reshape(-1, embed.shape[-1]).double().numpy().reshape(
        grid[0] * grid[1], 2, -1).transpose(1, 0, 2)  # fmt: skip
    return sin, cos


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", ["dinov3", "eupe", "lingbot-vision"])
def test_coordinates_of_the_dinov3_architecture_span_minus_one_to_one(key, size):
    """DINOv3 (arXiv 2508.10104): pixel centres in [-1, 1] per axis, periods from 1 to 100."""
    vit = build(key, size)
    rows, columns = (side // 16 for side in size)
    width = vit.embed_dim // vit.blocks[0].attn.num_heads
    periods = 100.0 ** (np.arange(width // 4) * 4 / width)
    y = (np.arange(rows) + 0.5) / rows * 2 - 1
    x = (np.arange(columns) + 0.5) / columns * 2 - 1
    grid = np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
    angles = (2 * np.pi * grid[:, :, None] / periods).reshape(len(grid), -1)
    sin, cos = embedding_of(vit, (rows, columns))
    assert np.abs(sin - np.tile(np.sin(angles), 2)).max() < 1e-5
    assert np.abs(cos - np.tile(np.cos(angles), 2)).max() < 1e-5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("key", "reference"), [("pe-core", 24), ("pe-spatial", 32)])
def test_positions_of_perception_encoder_are_scaled_to_the_native_grid(key, reference, size):
    """timm's rule: position i of n is (i + 1) / n of the native grid; see docs/fidelity.md."""
    vit = build(key, size)
    rows, columns = (side // 16 for side in size)
    width = vit.embed_dim // vit.blocks[0].attn.num_heads
    rates = 1 / 10000.0 ** (np.arange(width // 4) * 4 / width)
    y = (np.arange(rows) + 1) / rows * reference
    x = (np.arange(columns) + 1) / columns * reference
    y, x = (axis.reshape(-1, 1) for axis in np.meshgrid(y, x, indexing="ij"))
    angles = np.concatenate([x * rates, y * rates], -1).repeat(2, -1)
    sin, cos = embedding_of(vit, (rows, columns))
    assert np.abs(sin - np.sin(angles)).max() < 1e-4
    assert np.abs(cos - np.cos(angles)).max() < 1e-4
