"""Every family of timm's plain ViTs: weights as timm loads them, training as timm evaluates."""

import pytest
import timm
import torch
from mmseg.registry import MODELS

SMALL = {"depth": 2, "embed_dim": 96, "num_heads": 3}

# A model of each module, filter and layout of timm's; its native patch size; the task's size.
FAMILIES = [
    ("vit_tiny_patch16_224", {}, 128, 8),
    ("vit_base_patch14_dinov2", {}, 256, 16),
    ("vit_small_patch14_reg4_dinov2", {}, (256, 128), 16),
    ("vit_base_patch14_reg1_tipsv2", {}, 256, 16),
    ("vit_base_patch16_siglip_224", {}, 128, 8),
    ("vit_base_patch16_clip_quickgelu_224", {}, 128, 8),
    ("aimv2_large_patch14_224", {}, 256, 16),
    ("flexivit_small", {}, 512, 16),
    ("flexivit_small", {}, 256, 8),
    ("vit_base_patch16_radio_v3", {}, 512, 16),  # align_corners
    ("vit_base_patch16_radio_v3", {}, (128, 256), 8),
    ("vit_so400m_patch16_radio_v4", {}, 256, 16),  # no align_corners
    ("beit3_base_patch16_224", {"global_pool": "token"}, 128, 8),
    ("deit_tiny_patch16_224", {}, 128, 8),
    ("deit_tiny_distilled_patch16_224", {}, 128, 8),
    ("deit3_small_patch16_224", {}, 128, 8),
    ("beit_base_patch16_224", {}, (128, 256), 16),
    ("eva02_tiny_patch14_224", {}, 256, 16),
    ("eva02_base_patch16_clip_224", {}, 128, 8),
    ("eva_large_patch14_196", {}, 256, 16),
    ("vit_pe_core_tiny_patch16_384", {}, 128, 8),
    ("vit_pe_spatial_tiny_patch16_512", {}, 256, 16),
    ("vit_small_patch16_dinov3", {}, 128, 8),
    ("vit_base_patch16_sapiens2", {"num_kv_heads": 3}, 128, 8),
    ("vit_small_patch16_lingbot", {}, 128, 8),
    ("vit_small_patch16_rope_mixed_ape_224", {}, 128, 8),
    ("samvit_base_patch16", {"global_attn_indexes": [1], "window_size": 14}, 1024, 16),
]


def options(kwargs):
    return {**SMALL, **kwargs}


@pytest.mark.parametrize(("name", "kwargs", "size", "patch"), FAMILIES)
def test_loaded_weights_are_timms_bit_for_bit(name, kwargs, size, patch, small_vit, weights_of):
    """timm's own loading of the same file, at the same image and patch size."""
    path = weights_of(small_vit(name, **options(kwargs)))
    task = {"img_size": size, "patch_size": patch, **options(kwargs)}
    file = {"pretrained_cfg_overlay": {"file": str(path)}}
    expected = timm.create_model(name, pretrained=True, num_classes=0, **file, **task).state_dict()
    backbone = MODELS.build(dict(type="TimmViT", model_name=name, pretrained=path, **task))
    actual = backbone.vit.state_dict()
    heads = ("attn_pool.", "fc_norm.", "neck.", "head.")
    assert {k for k in expected if not k.startswith(heads)} == actual.keys()
    for key, value in actual.items():
        assert torch.equal(value, expected[key]), key


def test_another_thread_may_load_weights_meanwhile(monkeypatch, small_vit, weights_of):
    """The filter is found by replacing a function of timm's; only this thread sees it."""
    from concurrent.futures import ThreadPoolExecutor

    name = "vit_tiny_patch16_224"
    plain = small_vit(name, depth=1)
    file = {"pretrained_cfg_overlay": {"file": str(weights_of(plain))}}
    create = timm.create_model
    loaded = []

    def create_in_both(*args, **kwargs):
        with ThreadPoolExecutor(1) as pool:
            loaded.append(
                pool.submit(create, name, pretrained=True, num_classes=0, depth=1, **file).result()
            )
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", create_in_both)
    MODELS.build(dict(type="TimmViT", model_name=name, depth=1, img_size=64, pretrained=False))
    assert torch.equal(loaded[0].pos_embed, plain.pos_embed)


@pytest.mark.parametrize(
    "name",
    ["vit_base_patch16_sapiens2", "vit_small_patch16_dinov3", "vit_pe_core_tiny_patch16_384"],
)
def test_training_computes_what_evaluation_does(name):
    kwargs = options({"num_kv_heads": 3} if "sapiens" in name else {})
    cfg = dict(type="TimmViT", model_name=name, img_size=64, pretrained=False, **kwargs)
    backbone = MODELS.build(cfg)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        (first,), (second,) = backbone.train()(x), backbone(x)
        (evaluated,) = backbone.eval()(x)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, evaluated, rtol=1e-5, atol=1e-6)


def test_rope_augmentation_is_on_where_it_is_asked_for():
    kwargs = options({"num_kv_heads": 3, "rope_rescale_coords": 2.0})
    name = "vit_base_patch16_sapiens2"
    cfg = dict(type="TimmViT", model_name=name, img_size=64, pretrained=False, **kwargs)
    backbone = MODELS.build(cfg).train()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(backbone(x)[0], backbone(x)[0])


def test_sam_built_by_its_timm_name_ends_before_its_neck():
    cfg = dict(img_size=64, pretrained=False, depth=2, global_attn_indexes=[1], window_size=2)
    by_name = MODELS.build(dict(type="TimmViT", model_name="samvit_base_patch16", **cfg))
    sam = MODELS.build(dict(type="SAM", **cfg))
    sam.load_state_dict(by_name.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(by_name(x), sam(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_base_mci_224", 224, "cannot build 'vit_base_mci_224' as a ViT: AssertionError"),
        ("vit_base_mci_224", 512, r"\(32, 32\) patches of 16 pixels, timm builds \(2, 2\) of"),
        ("vit_base_r50_s16_224", 256, r"asked for \(16, 16\) patches of 16 pixels, timm builds"),
        ("vit_relpos_small_patch16_224", 224, "lacks timm's blocks, patch_embed or pos_embed"),
        ("naflexvit_base_patch16_gap", 224, "naflexvit_base_patch16_gap"),
    ],
)
def test_a_vit_with_a_stem_of_its_own_is_refused_when_built(name, size, message):
    cfg = dict(type="TimmViT", model_name=name, img_size=size, pretrained=False, depth=1)
    with pytest.raises(ValueError, match=message) as error:
        MODELS.build(cfg)
    assert "\n" not in str(error.value)
