"""LoRA and frozen blocks: the same features at first, and gradients where they are expected."""

import copy
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

import vfm_ss  # noqa: F401
from vfm_ss.engine.fingerprint import difference, fingerprint
from vfm_ss.engine.run_facts import count_parameters
from vfm_ss.models.backbones.late_weights import LATER, reading
from vfm_ss.models.backbones.lora import adapted_layers, merge_lora
from vfm_ss.protocol.identity import config_hash, identity

TINY = dict(
    type="TimmViT",
    model_name="vit_tiny_patch16_224",
    img_size=32,
    depth=3,
    embed_dim=48,
    num_heads=3,
    pretrained=False,
)
#: An architecture of each kind: fused and separate projections, biases added apart, SAM's own.
KINDS = {
    "vit": TINY,
    "eva02": dict(TINY, model_name="eva02_tiny_patch14_224"),
    "eva02clip": dict(type="EVA02CLIP", img_size=32, depth=1, pretrained=False),
    "beit": dict(TINY, model_name="beit_base_patch16_224"),
    "sam": dict(type="SAM", img_size=32, depth=1, pretrained=False, window_size=2),
}


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmseg")


def build(seed=0, **changes):
    torch.manual_seed(seed)
    return MODELS.build(changes if "type" in changes else {**TINY, **changes})


def images(seed=1):
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def loss_of(backbone):
    return sum(out.square().mean() for out in backbone(images()))


def trained(backbone):
    return {name for name, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_lora_begins_as_the_plain_model_and_trains_adapters_alone(kind):
    plain = build(**KINDS[kind]).eval()
    backbone = build(**KINDS[kind], lora=dict(r=4, lora_alpha=8))
    names = backbone.state_dict().keys()
    assert {n.replace("base_layer.", "") for n in names if "lora_" not in n} == set(
        plain.state_dict()
    )
    backbone.load_state_dict(plain.state_dict(), strict=False)  # of a model without adapters
    backbone.eval()
    with torch.no_grad():
        torch.testing.assert_close(backbone(images()), plain(images()), rtol=0, atol=1e-6)
    backbone.train()
    for step in range(2):  # A's gradient is 0 while B is
        if step:
            with torch.no_grad():
                for _, layer in adapted_layers(backbone):
                    layer.lora_B["default"].weight.normal_(std=0.1)
            backbone.zero_grad()
        loss_of(backbone).backward()
    adapters = {name for name, _ in backbone.named_parameters() if "lora_" in name}
    assert trained(backbone) == adapters
    assert all(p.grad.abs().sum() > 0 for n, p in backbone.named_parameters() if n in adapters)
    expected = sum(
        4 * (layer.in_features + layer.out_features) for _, layer in adapted_layers(backbone)
    )
    assert count_parameters(backbone, trainable=True) == expected > 0


def test_merging_is_the_paper_s_sum():
    """W + alpha / r * B A, and the names of the model without adapters."""
    backbone = build(lora=dict(r=4, lora_alpha=8, target_modules=["qkv", "fc1"])).eval()
    for _, layer in adapted_layers(backbone):
        torch.nn.init.normal_(layer.lora_B["default"].weight)
    layer = backbone.vit.blocks[1].mlp.fc1
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    weight = (layer.base_layer.weight.double() + 8 / 4 * b.double() @ a.double()).float()
    with torch.no_grad():
        before = backbone(images())[0]
        assert merge_lora(backbone) == 6
        torch.testing.assert_close(backbone(images())[0], before, rtol=0, atol=1e-4)
    torch.testing.assert_close(backbone.vit.blocks[1].mlp.fc1.weight, weight)
    assert backbone.state_dict().keys() == build().state_dict().keys()
    assert merge_lora(backbone) == 0


def test_a_layer_that_is_not_called_is_seen():
    backbone = build(lora=dict(r=2))
    attn = backbone.vit.blocks[1].attn
    attn.forward = lambda x, **_: torch.nn.functional.linear(x, attn.qkv.weight[:48])
    backbone(images())
    with pytest.raises(ValueError, match=r"lora has no effect on blocks\.1\.attn\.qkv \(1 layer"):
        backbone(images())
    backbone = build(lora=dict(r=2))
    for _ in range(3):
        backbone(images())
    assert not any(m._forward_pre_hooks for _, m in adapted_layers(backbone))


def test_a_model_with_adapters_can_be_copied():
    """As mmengine's EMA and an export in fp16 do, before and after the first pass."""
    backbone = build(lora=dict(r=2)).train()
    for _ in range(3):
        copied = copy.deepcopy(backbone)
        for _ in range(3):
            assert torch.equal(copied(images())[0], backbone(images())[0])


def test_lora_gets_pretrained_weights_early_and_late(tmp_path):
    plain = build(seed=5).eval()
    path = tmp_path / "plain.pth"
    torch.save({n.removeprefix("vit."): v for n, v in plain.state_dict().items()}, path)
    with torch.no_grad():
        expected = plain(images())[0]
        early = build(pretrained=str(path), lora=dict(r=2)).eval()
        assert torch.equal(early(images())[0], expected)
        with reading(LATER):
            late = build(pretrained=str(path), lora=dict(r=2)).eval()
        assert late.unread
        assert torch.equal(late(images())[0], expected)
        with reading(LATER):  # the weights of a checkpoint, with adapters and without
            late = build(pretrained=str(tmp_path / "gone.pth"), lora=dict(r=2)).eval()
        late.load_state_dict(plain.state_dict(), strict=False)
        assert torch.equal(late(images())[0], expected)
        with reading(LATER):
            late = build(pretrained=str(tmp_path / "gone.pth"), lora=dict(r=2)).eval()
        late.load_state_dict(early.state_dict())
        assert torch.equal(late(images())[0], expected)


@pytest.mark.parametrize("blocks", [0, 2])
@pytest.mark.parametrize("kind", ["vit", "eva02", "registers"])
def test_frozen_stages(kind, blocks):
    registers = dict(TINY, model_name="vit_small_patch14_reg4_dinov2")
    kwargs = registers if kind == "registers" else KINDS[kind]
    backbone = build(**kwargs, frozen_stages=blocks, drop_path_rate=0.5).train()
    assert not any(m.training for block in backbone.blocks[:blocks] for m in block.modules())
    assert not any(m.training for m in backbone.vit.patch_embed.modules())
    assert all(m.training for block in backbone.blocks[blocks:] for m in block.modules())
    torch.manual_seed(3)
    loss_of(backbone.eval()).backward()
    behind = ("vit.norm.", *(f"vit.blocks.{k}." for k in range(blocks, 3)))
    assert trained(backbone) == {n for n, _ in backbone.named_parameters() if n.startswith(behind)}
    plain = build(**kwargs, drop_path_rate=0.5).eval()
    assert torch.equal(backbone(images())[0], plain(images())[0])
    before = copy.deepcopy(backbone.state_dict())
    wrapper = build_optim_wrapper(
        backbone,
        dict(
            constructor="GroupedOptimWrapperConstructor",
            optimizer=dict(type="AdamW", lr=0.1, weight_decay=0.5),
            paramwise_cfg=dict(norm_decay_mult=0.0),
        ),
    )
    wrapper.step()
    changed = {n for n, v in backbone.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == trained(backbone)  # no weight decay of what is frozen


def test_lora_is_trained_by_the_grouped_optimiser_alone():
    backbone = build(lora=dict(r=2)).train()
    wrapper = build_optim_wrapper(
        backbone,
        dict(
            constructor="GroupedOptimWrapperConstructor",
            optimizer=dict(type="AdamW", lr=0.1, weight_decay=0.5),
        ),
    )
    before = copy.deepcopy(backbone.state_dict())
    wrapper.update_params(loss_of(backbone))
    changed = {n for n, v in backbone.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {n for n, _ in backbone.named_parameters() if "lora_" in n}


def test_an_optimiser_knows_the_layer_of_an_adapter():
    backbone = build(lora=dict(r=2))
    layer = backbone.get_layer_depth(
        "backbone.vit.blocks.1.attn.qkv.lora_A.default.weight", "backbone."
    )
    assert layer == build().get_layer_depth("backbone.vit.blocks.1.attn.qkv.weight", "backbone.")


def test_identity_and_fingerprint_tell_them_apart():
    base = dict(type="X", pretrained=False)
    variants = [
        base,
        dict(base, frozen_stages=1),
        dict(base, frozen_stages=2),
        dict(base, lora=dict(r=4)),
        dict(base, lora=dict(r=8)),
        dict(base, lora=dict(r=8, target_modules=["fc1"])),
    ]
    cfgs = [Config(dict(model=dict(backbone=backbone))) for backbone in variants]
    assert len({config_hash(identity(cfg)) for cfg in cfgs}) == len(cfgs)
    for a in cfgs:
        for b in cfgs:
            assert bool(difference(fingerprint(a), fingerprint(b))) == (a is not b)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (dict(frozen_stages=3), r"frozen_stages must be -1 .* to 2 of the 3 blocks, got 3"),
        (dict(frozen_stages=1, frozen=True), "give one of them"),
        (dict(frozen=True, lora=dict(r=2)), "give one of them"),
        (dict(lora=dict(rank=2)), r"lora has no rank; it takes r, lora_alpha"),
        (dict(lora=dict(r=2, use_dora=True)), "lora has no use_dora"),
        (dict(lora=dict(r=0)), "peft cannot adapt the backbone"),
        (dict(lora=dict(target_modules=["query"])), r"layers are called fc1, fc2, proj, qkv"),
    ],
)
def test_wrong_options(options, text):
    with pytest.raises(ValueError, match=text):
        build(**options)


def test_without_peft_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    build()
    with pytest.raises(ImportError, match=r"install it with: pip install 'vfm_ss\[lora\]'"):
        build(lora=dict(r=2))
