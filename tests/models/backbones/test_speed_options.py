"""Options that change how a backbone computes, never what."""

import pytest
import torch
from mmseg.registry import MODELS
from timm.models.vision_transformer_sam import Attention

from vfm_ss.models.backbones.rel_pos_attention import FusedRelPosAttention
from vfm_ss.protocol.vfms import VFMS


def build(key, **kwargs):
    torch.manual_seed(0)
    if key == "sam":
        kwargs = {"global_attn_indexes": [1], "window_size": 2, **kwargs}
    arch = "base" if VFMS[key].base else VFMS[key].archs[0]
    cfg = dict(type=VFMS[key].name, arch=arch, pretrained=False, depth=2, img_size=64, **kwargs)
    backbone = MODELS.build(cfg)
    with torch.no_grad():  # relative positions and others start at 0
        for parameter in backbone.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return backbone.train()


def outputs_and_gradients(backbone, x):
    (out,) = backbone(x)
    return [out, *torch.autograd.grad(out.square().mean(), list(backbone.parameters()))]


@pytest.mark.parametrize("key", VFMS)
def test_checkpointing_and_compiling_change_neither_features_nor_gradients(key):
    x = torch.randn(2, 3, 64, 64)
    plain, checkpointed = build(key), build(key, with_cp=True)
    compiled = build(key, compile=dict(backend="aot_eager"))
    assert compiled._compiled_call_impl is not None
    assert list(compiled.state_dict()) == list(plain.state_dict())
    expected = outputs_and_gradients(plain, x)
    for backbone in (checkpointed, compiled):
        for actual, value in zip(outputs_and_gradients(backbone, x), expected, strict=True):
            torch.testing.assert_close(actual, value, rtol=1e-4, atol=1e-5)


def saved_bytes(backbone, x):
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        (out,) = backbone(x)
    return sum(kept.values()), out


@pytest.mark.parametrize("key", ["dinov2", "eva02", "sam"])
def test_checkpointing_keeps_less_and_a_frozen_backbone_nothing(key):
    x = torch.randn(2, 3, 64, 64)
    plain, _ = saved_bytes(build(key), x)
    checkpointed, _ = saved_bytes(build(key, with_cp=True), x)
    assert checkpointed < plain / 3
    for option in ({}, {"with_cp": True}):
        frozen, out = saved_bytes(build(key, frozen=True, **option), x)
        assert frozen == 0
        assert out.grad_fn is None


@pytest.mark.parametrize("key", VFMS)
def test_every_vfm_uses_torchs_fused_attention(key, monkeypatch):
    calls = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def counted(query, *args, attn_mask=None, **kwargs):
        calls.append((query.ndim, attn_mask))
        return attention(query, *args, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", counted)
    build(key)(torch.randn(1, 3, 64, 64))
    assert calls == [(4, None)] * 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [(4, 4), (3, 7)])
def test_attention_with_relative_positions_equals_timms(size, dtype):
    torch.manual_seed(1)
    options = dict(dim=48, num_heads=3, use_rel_pos=True, input_size=size, dtype=dtype)
    timms, ours = Attention(**options), FusedRelPosAttention(Attention(**options))
    with torch.no_grad():
        for parameter in timms.parameters():
            parameter.normal_(std=0.3)
    ours.load_state_dict(timms.state_dict())
    x = torch.randn(5, *size, 48, dtype=dtype, requires_grad=True)
    results = []
    for attention in (ours, timms):
        out = attention(x)
        leaves = [x, *attention.parameters()]
        results.append([out, *torch.autograd.grad(out.sin().sum(), leaves)])
    tolerance = (
        dict(rtol=1e-9, atol=1e-10) if dtype == torch.float64 else dict(rtol=1e-3, atol=1e-4)
    )
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, **tolerance)
