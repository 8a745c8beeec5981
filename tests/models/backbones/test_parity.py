"""Features equal plain timm's, at native size and against resizes written without timm."""

import math

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS

from vfm_ss.protocol.vfms import FAMILIES, VFMS

CASES = [(vfm.key, arch) for vfm in VFMS.values() for arch in vfm.archs]
PAPER = [(key, arch) for key in FAMILIES["paper"] for arch in ("base", "large")]


def ours(key, arch, pretrained, depth=2, **kwargs):
    if key == "sam":
        kwargs["global_attn_indexes"] = [depth - 1]
    cfg = dict(type=VFMS[key].name, arch=arch, pretrained=pretrained, depth=depth, **kwargs)
    return MODELS.build(cfg).eval()


def dense_features(vit, x):
    """Dense features of a plain timm model, by its own `forward_features`: (B, C, h, w)."""
    if hasattr(vit, "neck"):
        vit.neck = torch.nn.Identity()
        return vit.forward_features(x)
    tokens = vit.forward_features(x)[:, vit.num_prefix_tokens :]
    height, width = vit.patch_embed.grid_size
    return tokens.transpose(1, 2).unflatten(2, (height, width))


def relative_error(actual, expected):
    return ((actual - expected).norm() / expected.norm()).item()


def build_plain(small_vit, key, arch, depth=2, **kwargs):
    if key == "beit3":
        kwargs["global_pool"] = "token"  # its final norm on every token
    return small_vit(VFMS[key].timm_name(arch), depth=depth, **kwargs)


@pytest.mark.parametrize(("key", "arch"), CASES)
def test_features_equal_plain_timm_at_native_size(key, arch, small_vit, weights_of):
    plain = build_plain(small_vit, key, arch)
    size, patch = plain.pretrained_cfg["input_size"][-1], plain.patch_embed.patch_size[0]
    backbone = ours(key, arch, weights_of(plain), img_size=size, patch_size=patch)
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (actual,) = backbone(x)
        expected = dense_features(plain, x)
    assert actual.shape == (1, backbone.embed_dim, size // patch, size // patch)
    assert relative_error(actual, expected) < 1e-4


def resize_kernel(kernel, patch, pillow_resize):
    """FlexiViT's pseudo-inverse resize (arXiv 2212.08013, Eq. 4) in float64, by Pillow's bicubic.

    B maps a patch to its resized one; the new kernel w' minimises |<B x, w'> - <x, w>| over x.
    """
    old = kernel.shape[-1]
    units = np.eye(old * old, dtype=np.float32).reshape(-1, old, old)
    matrix = pillow_resize(units, (patch, patch)).reshape(old * old, -1).T.astype(np.float64)
    flat = kernel.double().numpy().reshape(-1, old * old)
    return torch.from_numpy(flat @ np.linalg.pinv(matrix)).reshape(*kernel.shape[:2], patch, patch)


def resize_position(pos_embed, grid, prefix, pillow_resize):
    if pos_embed.ndim == 4:  # SAM: (1, h, w, C)
        maps = pos_embed[0].permute(2, 0, 1).contiguous().numpy()
        return torch.from_numpy(pillow_resize(maps, grid)).permute(1, 2, 0)[None]
    tokens = pos_embed[0, prefix:]
    old = math.isqrt(len(tokens))
    maps = tokens.T.reshape(-1, old, old).contiguous().numpy()
    resized = torch.from_numpy(pillow_resize(maps, grid)).flatten(1).T
    return torch.cat([pos_embed[0, :prefix], resized])[None]


def resize_relative(rel_pos, length):
    """Linear interpolation with half-pixel centres, by numpy."""
    old = len(rel_pos)
    where = (np.arange(length) + 0.5) * old / length - 0.5
    columns = [np.interp(where, np.arange(old), column) for column in rel_pos.T.double().numpy()]
    return torch.from_numpy(np.stack(columns, 1))


def resized_state_dict(plain, target, pillow_resize):
    state, new = plain.state_dict(), target.state_dict()
    prefix = (
        0 if getattr(plain, "no_embed_class", False) else getattr(plain, "num_prefix_tokens", 0)
    )
    patch = new["patch_embed.proj.weight"].shape[-1]
    for key, value in state.items():
        if value.shape == new[key].shape:
            new[key] = value
        elif key == "patch_embed.proj.weight":
            new[key] = resize_kernel(value, patch, pillow_resize)
        elif key == "pos_embed":
            grid = target.patch_embed.grid_size
            new[key] = resize_position(value, grid, prefix, pillow_resize)
        else:
            new[key] = resize_relative(value, len(new[key]))
    return new


RESIZED = [
    *[(key, arch, (512, 512), 16) for key, arch in PAPER],
    *[(key, "base", (512, 512), 8) for key in FAMILIES["paper"]],
    # C-RADIO's position grid is not resized bicubically, see test_filters.py.
    *[(k, VFMS[k].archs[0], (512, 512), 16) for k in FAMILIES["next"] if k != "c-radiov3"],
    ("mae", "base", (256, 512), 16),
    ("deit3-in1k", "base", (256, 512), 16),
    ("eva02", "base", (512, 256), 16),
    ("siglip", "base", (512, 256), 16),
    ("sam", "base", (512, 1024), 16),
]


@pytest.mark.parametrize(("key", "arch", "size", "patch"), RESIZED)
def test_features_equal_an_independent_resize(
    key, arch, size, patch, small_vit, weights_of, pillow_resize
):
    depth = 2 if patch == 16 and arch == "base" else 1
    plain = build_plain(small_vit, key, arch, depth)
    options = {"img_size": size, "patch_size": patch}
    if key == "sam":
        options["window_size"] = 14 * min(size) // patch // 64
    target = build_plain(small_vit, key, arch, depth, **options)
    target.load_state_dict(resized_state_dict(plain, target, pillow_resize))
    backbone = ours(key, arch, weights_of(plain), depth, img_size=size, patch_size=patch)
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (actual,) = backbone(x)
        expected = dense_features(target, x)
    assert actual.shape[2:] == (size[0] // patch, size[1] // patch)
    assert relative_error(actual, expected) < 1e-4


@pytest.mark.parametrize(("old", "new"), [(14, 16), (16, 32), (8, 14)])
def test_patch_embedding_stays_when_patch_and_kernel_are_resized_together(
    old, new, small_vit, weights_of, pillow_resize
):
    grid = 4
    plain = small_vit("vit_tiny_patch16_224", depth=1, img_size=grid * old, patch_size=old)
    cfg = {"img_size": grid * new, "patch_size": new, "pretrained": weights_of(plain)}
    resized = MODELS.build(dict(type="TimmViT", model_name="vit_tiny_patch16_224", depth=1, **cfg))
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((grid * grid * 3, old, old)).astype(np.float32)

    def embed(vit, patches, side):
        image = torch.from_numpy(patches).reshape(grid, grid, 3, side, side)
        image = image.permute(2, 0, 3, 1, 4).reshape(1, 3, grid * side, grid * side)
        with torch.no_grad():
            return vit.patch_embed(image)

    expected = embed(plain, patches, old)
    actual = embed(resized.vit, pillow_resize(patches, (new, new)), new)
    assert relative_error(actual, expected) < 1e-4


@pytest.mark.parametrize("grid", [(32, 32), (16, 32)])
def test_eva02_rotary_embedding_covers_the_new_grid(grid):
    """Position i of g lies at 16 i / g, on the pretraining grid of 16 (EVA-02's own rule)."""
    size = (grid[0] * 16, grid[1] * 16)
    backbone = ours("eva02", "base", False, depth=1, img_size=size)
    head_dim = 64
    bands = 10000.0 ** -(np.arange(0, head_dim // 2, 2) / (head_dim // 2))
    rows, columns = np.meshgrid(*(np.arange(g) / g * 16 for g in grid), indexing="ij")
    angles = np.concatenate(
        [(axis.reshape(-1, 1) * bands).repeat(2, axis=1) for axis in (rows, columns)], axis=1
    )
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(backbone.vit.rope.get_embed().numpy(), expected, atol=1e-5)


def test_later_training_updates_the_resized_position_embedding(small_vit, weights_of):
    plain = small_vit("vit_tiny_patch16_224", depth=1)
    backbone = MODELS.build(
        dict(
            type="TimmViT",
            model_name="vit_tiny_patch16_224",
            depth=1,
            img_size=64,
            patch_size=8,
            pretrained=weights_of(plain),
        )
    )
    assert backbone.vit.pos_embed.shape == (1, 65, 192)
    backbone(torch.randn(1, 3, 64, 64))[0].sum().backward()
    assert backbone.vit.pos_embed.grad.abs().sum() > 0
