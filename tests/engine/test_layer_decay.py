"""Layer-wise decay of the learning rate: timm's rates, mmpretrain's layers, nothing in silence."""

import pytest
import timm
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from timm.optim import param_groups_layer_decay
from torch import nn

from vfm_ss.protocol.vfms import VFMS

OURS = "GroupedOptimWrapperConstructor"
DEPTH, LR, DECAY = 3, 1e-4, 0.65


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmseg")


class Model(nn.Module):
    def __init__(self, **backbone):
        super().__init__()
        self.backbone = MODELS.build(dict(img_size=64, pretrained=False, **backbone))
        self.decode_head = nn.Conv2d(self.backbone.embed_dim, 2, 1)


def build(model, constructor=OURS, lr=LR, **paramwise):
    optimizer = dict(type="AdamW", weight_decay=0.05)
    if lr is not None:
        optimizer["lr"] = lr
    cfg = dict(type="OptimWrapper", optimizer=optimizer, constructor=constructor)
    return build_optim_wrapper(model, {**cfg, "paramwise_cfg": paramwise})


def rates(model, wrapper):
    groups = {p: group["lr"] for group in wrapper.optimizer.param_groups for p in group["params"]}
    return {name: groups[p] for name, p in model.named_parameters() if p in groups}


def timms(name, **kwargs):
    """timm's own scale of each parameter, in a model with a classifier for the decode head."""
    if name.startswith("beit3"):
        kwargs["global_pool"] = "token"  # the final norm on every token
    vit = timm.create_model(name, num_classes=2, depth=DEPTH, **kwargs)
    groups = param_groups_layer_decay(vit, layer_decay=DECAY)
    scales = {p: group["lr_scale"] for group in groups for p in group["params"]}
    return {name: scales[p] for name, p in vit.named_parameters()}


CASES = [
    *(
        (dict(type=vfm.name, arch=arch), vfm.timm_name(arch))
        for vfm in VFMS.values()
        for arch in ["base" if vfm.base else "large"]
    ),
    *(
        (dict(type="TimmViT", model_name=name), name)
        for name in (
            "deit_tiny_distilled_patch16_224",
            "vit_small_patch14_reg4_dinov2",
            "vit_small_patch16_dinov3",
            "vit_small_patch16_rope_mixed_ape_224",  # learned frequencies: timm's last layer
            "beit_base_patch16_224",
        )
    ),
]


@pytest.mark.parametrize(("backbone", "name"), CASES, ids=[name for _, name in CASES])
def test_rates_are_timms(backbone, name):
    kwargs = {"global_attn_indexes": [1], "window_size": 2} if name.startswith("samvit") else {}
    model = Model(**backbone, depth=DEPTH, **kwargs)
    actual = rates(model, build(model, layer_decay=DECAY))
    expected = timms(name, **kwargs)
    for parameter, rate in actual.items():
        scale = expected[parameter[13:]] if parameter.startswith("backbone.vit.") else 1
        assert rate == pytest.approx(LR * scale, rel=1e-9), parameter
    assert len(actual) == len(list(model.parameters()))
    assert min(actual.values()) == pytest.approx(LR * DECAY ** (DEPTH + 1))


def test_it_multiplies_the_other_settings_and_makes_a_group_for_each_layer():
    model = Model(type="MAE", depth=DEPTH, embed_dim=48, num_heads=3)
    keys = {"backbone": dict(lr_mult=0.1), "pos_embed": dict(lr_mult=1.0, decay_mult=0.0)}
    wrapper = build(model, layer_decay=DECAY, custom_keys=keys)
    actual = rates(model, wrapper)
    assert actual["backbone.vit.pos_embed"] == pytest.approx(LR * DECAY**4)
    assert actual["backbone.vit.cls_token"] == pytest.approx(0.1 * LR * DECAY**4)
    assert actual["backbone.vit.blocks.1.mlp.fc1.bias"] == pytest.approx(0.1 * LR * DECAY**2)
    assert actual["backbone.vit.norm.weight"] == pytest.approx(0.1 * LR * DECAY)
    assert actual["decode_head.weight"] == LR
    assert len(wrapper.optimizer.param_groups) == 1 + DEPTH + 1 + 1
    decays = {p: g["weight_decay"] for g in wrapper.optimizer.param_groups for p in g["params"]}
    assert decays[model.backbone.vit.pos_embed] == 0.0
    assert decays[model.backbone.vit.cls_token] == 0.05


@pytest.mark.parametrize("paramwise", [{}, {"layer_decay": 1.0}, {"layer_decay": None}])
def test_without_decay_there_is_one_rate(paramwise):
    model = Model(type="MAE", depth=1, embed_dim=48, num_heads=3)
    assert set(rates(model, build(model, **paramwise)).values()) == {LR}


def test_layers_count_from_the_last_block_that_is_left():
    model = Model(type="MAE", depth=4, embed_dim=48, num_heads=3, out_indices=(0, 1))
    actual = rates(model, build(model, layer_decay=DECAY))
    assert actual["backbone.vit.blocks.1.norm1.weight"] == pytest.approx(LR * DECAY)
    assert actual["backbone.vit.cls_token"] == pytest.approx(LR * DECAY**3)


TINY = {"embed_dims": 48, "num_layers": DEPTH, "num_heads": 3, "feedforward_channels": 96}


@pytest.mark.parametrize("cls", ["VisionTransformer", "BEiTViT", "ViTSAM"])
@pytest.mark.parametrize("ours", ["MMPretrainViT", "TimmViT"])
def test_mmpretrains_constructor_sees_the_same_layers(cls, ours):
    """In a model that asks its backbone, as mmpretrain's classifier does."""
    engine = pytest.importorskip("mmpretrain.engine")
    arch = {**TINY, "global_attn_indexes": [1]} if cls == "ViTSAM" else TINY
    if ours == "MMPretrainViT":
        extra = {"window_size": 2} if cls == "ViTSAM" else {}
        model = Model(type=ours, model=cls, arch=arch, **extra)
    else:
        model = Model(type=ours, model_name="vit_tiny_patch16_224", depth=DEPTH)
    model.get_layer_depth = lambda name: model.backbone.get_layer_depth(name, "backbone.")
    theirs = engine.LearningRateDecayOptimWrapperConstructor(
        dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=LR, weight_decay=0.05)),
        dict(layer_decay_rate=DECAY),
    )(model)
    assert rates(model, theirs) == pytest.approx(rates(model, build(model, layer_decay=DECAY)))
    if ours == "MMPretrainViT":  # and those of mmpretrain's own model
        for name, _ in model.backbone.vit.named_parameters():
            expected = model.backbone.vit.get_layer_depth(name)
            assert model.backbone.get_layer_depth(f"backbone.vit.{name}", "backbone.") == expected


def no_layers():
    model = nn.Module()
    model.backbone = nn.Linear(2, 2)
    return model


def frozen():
    return Model(type="MAE", depth=1, embed_dim=48, num_heads=3, frozen=True)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (no_layers, dict(layer_decay=DECAY), r"a backbone that says .*\(get_layer_depth\); Linear"),
        (frozen, dict(layer_decay=DECAY), "layer_decay does nothing: the backbone is frozen"),
        (no_layers, dict(layer_decay=0), r"must be in \(0, 1\], got 0"),
        (no_layers, dict(layer_decay=65), r"must be in \(0, 1\], got 65"),
        (no_layers, dict(layer_decay=DECAY, lr=None), "set optimizer.lr"),
        (no_layers, dict(decay_rate=0.9, num_layers=12), "no decay_rate, num_layers; it takes .*"
         "custom_keys, .* layer_decay$"),
        (no_layers, dict(layer_decay_rate=0.9), "no layer_decay_rate; it takes"),
    ],
)  # fmt: skip
def test_what_would_do_nothing_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message) as error:
        build(model(), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["mae", "beit3", "dinov2"])
def test_mmsegs_constructor_is_refused_for_our_backbones(key):
    model = Model(type=VFMS[key].name, depth=1)
    with pytest.raises(ValueError, match="use constructor='GroupedOptimWrapperConstructor'") as e:
        build(model, "LearningRateDecayOptimizerConstructor", decay_rate=0.9, num_layers=1)
    assert f"the layers of {VFMS[key].name}" in str(e.value)


def test_mmsegs_constructor_still_serves_mmsegs_backbones():
    model = nn.Module()
    model.backbone = MODELS.build(
        dict(type="MMSegMAE", img_size=32, patch_size=16, embed_dims=48, num_layers=2, num_heads=3)
    )
    options = dict(decay_rate=DECAY, decay_type="layer_wise", num_layers=2)
    actual = rates(model, build(model, "LearningRateDecayOptimizerConstructor", **options))
    assert actual["backbone.cls_token"] == pytest.approx(LR * DECAY**3)
    assert actual["backbone.layers.1.ln1.weight"] == pytest.approx(LR * DECAY)


def test_mmpretrains_constructor_is_refused_for_the_benchmarks_segmentor():
    engine = pytest.importorskip("mmpretrain.engine")
    backbone = dict(type="MAE", img_size=64, pretrained=False, depth=1, embed_dim=48, num_heads=3)
    head = dict(type="LinearHead", num_classes=3)
    model = MODELS.build(dict(type="VFMEncoderDecoder", backbone=backbone, decode_head=head))
    cfg = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=LR))
    constructor = engine.LearningRateDecayOptimWrapperConstructor(cfg, dict(layer_decay_rate=0.9))
    with pytest.raises(ValueError, match="ignores lr_mult; use constructor='GroupedOptim"):
        constructor(model)


def test_training_moves_early_layers_less():
    torch.manual_seed(0)
    model = Model(type="MAE", depth=DEPTH, embed_dim=48, num_heads=3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapper = build(model, layer_decay=0.1)
    wrapper.update_params(model.decode_head(model.backbone(torch.randn(2, 3, 64, 64))[0]).sum())
    moved = [
        (model.get_parameter(name) - before[name]).abs().max().item()
        for name in (
            *(f"backbone.vit.blocks.{i}.mlp.fc2.weight" for i in range(DEPTH)),
            "decode_head.weight",
        )
    ]
    # Adam's first step is the learning rate, up to the weight decay.
    assert moved == pytest.approx([LR * 1e-3, LR * 1e-2, LR * 1e-1, LR], rel=0.1)
