"""Checkpoints of transformers and of training code, against transformers' own networks."""

import argparse
import json

import pytest
import timm
import torch
import transformers
from mmseg.registry import MODELS
from safetensors.torch import save_file

from vfm_ss.models.backbones.layouts import unwrap

SMALL = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256)


def randomise(network, seed=0):
    """Give every parameter a value of its own, norms and layer scales around 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            around_one = parameter.ndim == 1 and not name.endswith("bias")
            parameter.copy_(1 + 0.2 * noise if around_one else 0.1 * noise)
    return network.eval()


# Family: config, network, arguments, timm model of the same architecture, its arguments, prefix
# tokens in the output.
FAMILIES = {
    "dinov2": ("Dinov2", "Dinov2Model", dict(patch_size=14, image_size=56, mlp_ratio=4),
               "vit_base_patch14_dinov2.lvd142m", {}, 1),
    "dinov2-reg": ("Dinov2WithRegisters", "Dinov2WithRegistersModel",
                   dict(patch_size=14, image_size=56, mlp_ratio=4),
                   "vit_base_patch14_reg4_dinov2.lvd142m", {}, 5),
    "dinov3": ("DINOv3ViT", "DINOv3ViTModel",
               dict(patch_size=14, image_size=56, num_register_tokens=4, key_bias=False),
               "vit_base_patch16_dinov3_qkvb.lvd1689m", {}, 5),
    "vit": ("ViT", "ViTModel", dict(patch_size=14, image_size=56, layer_norm_eps=1e-6),
            "vit_base_patch16_224.mae", {}, 1),
    "mae": ("ViTMAE", "ViTMAEModel",
            dict(patch_size=14, image_size=56, layer_norm_eps=1e-6, mask_ratio=0.0),
            "vit_base_patch16_224.mae", {}, 1),
    "clip": ("CLIPVision", "CLIPVisionModel",
             dict(patch_size=14, image_size=56, hidden_act="gelu"),
             "vit_base_patch16_clip_224.dfn2b", {}, 1),
    "siglip": ("SiglipVision", "SiglipVisionModel", dict(patch_size=14, image_size=56),
               "vit_base_patch16_siglip_512.v2_webli", dict(act_layer="gelu_tanh"), 0),
    "aimv2": ("Aimv2Vision", "Aimv2VisionModel", dict(patch_size=14, image_size=56),
              "aimv2_large_patch14_448.apple_pt", dict(mlp_ratio=4), 0),
}  # fmt: skip


@pytest.mark.parametrize("in_memory", [False, True], ids=["saved", "in memory"])
@pytest.mark.parametrize("family", FAMILIES)
def test_features_equal_those_of_transformers(family, in_memory, tmp_path):
    config, network, kwargs, timm_name, timm_kwargs, prefix = FAMILIES[family]
    theirs = getattr(transformers, network)(
        getattr(transformers, f"{config}Config")(**SMALL, **kwargs)
    )
    theirs = randomise(theirs)
    if in_memory:
        path = tmp_path / "weights.safetensors"
        save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, path)
    else:
        theirs.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
    backbone = MODELS.build(
        dict(type="TimmViT", model_name=timm_name, pretrained=path, img_size=56, patch_size=14,
             embed_dim=64, depth=2, num_heads=2, **timm_kwargs)
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (actual,) = backbone(x)
        extra = dict(noise=torch.arange(16.0).expand(2, -1)) if family == "mae" else {}
        output = theirs(pixel_values=x, **extra).last_hidden_state
        if family in ("clip",):
            output = theirs.post_layernorm(output)
    expected = output[:, prefix:].transpose(1, 2).unflatten(2, (4, 4))
    assert ((actual - expected).norm() / expected.norm()).item() < 1e-5


def plain():
    return randomise(
        timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1, img_size=32)
    ).state_dict()


@pytest.mark.parametrize(
    ("prefix", "others"),
    [
        ("module.", ()),
        ("model.", ("model.head.weight",)),
        ("backbone.", ("decode_head.conv_seg.weight", "data_preprocessor.mean")),
        ("backbone.vit.", ("decode_head.classifier.weight",)),
        ("model.backbone.", ()),
        ("teacher.backbone.", ("teacher.dino_head.mlp.0.weight", "student.backbone.cls_token")),
        ("student.", ()),
        ("module.student.backbone.", ("module.student.ibot_head.last.weight",)),
    ],
)
def test_a_wrapped_backbone_is_found(prefix, others):
    weights = plain()
    wrapped = {prefix + name: value for name, value in weights.items()}
    wrapped |= dict.fromkeys(others, torch.zeros(1))
    found, what = unwrap(wrapped)
    expected = set(weights) | ({"head.weight"} if prefix == "model." else set())
    assert set(found) == expected
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert prefix in what
    for name in others:
        assert prefix == "model." or name.split(".")[-2] in what or name.split(".")[0] in what


def test_what_may_be_part_of_a_backbone_is_never_left_out():
    weights = {f"backbone.{name}": value for name, value in plain().items()}
    weights["adapter.weight"] = torch.zeros(1)
    found, what = unwrap(weights)
    assert set(found) == set(weights)
    assert what == ""


def published_pe(state):
    """Perception Encoder's published layout (perception_models), from timm's names."""
    names = {
        "patch_embed.proj": "conv1",
        "norm_pre": "ln_pre",
        "blocks.": "transformer.resblocks.",
        ".norm1": ".ln_1",
        ".norm2": ".ln_2",
        "gamma_": "ls_",
        "attn.qkv.": "attn.in_proj_",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    published = {}
    for name, value in state.items():
        if name == "pos_embed":
            name, value = "positional_embedding", value[0]
        elif name == "cls_token":
            name, value = "class_embedding", value[0, 0]
        elif name.startswith("norm."):
            name = name.replace("norm.", "ln_post.")
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if ".ls_" in name:
            name += ".gamma"
        published[name] = value.clone()
    return published


@pytest.mark.parametrize("prefix", ["", "visual."])
@pytest.mark.parametrize(("size", "patch"), [(512, 16), (256, 16), (256, 8)])
def test_perception_encoder_is_resized_from_its_published_layout(prefix, size, patch, tmp_path):
    """timm resizes its own layout; the same weights in Meta's have to come out the same."""
    plain = randomise(
        timm.create_model("vit_pe_spatial_tiny_patch16_512.fb", num_classes=0, depth=1)
    ).state_dict()
    save_file({k: v.contiguous() for k, v in plain.items()}, tmp_path / "timm.safetensors")
    published = {f"{prefix}{name}": value for name, value in published_pe(plain).items()}
    torch.save(published, tmp_path / "published.pt")
    expected, actual = (
        MODELS.build(
            dict(type="TimmViT", model_name="vit_pe_spatial_tiny_patch16_512.fb", depth=1,
                 img_size=size, patch_size=patch, pretrained=tmp_path / name)
        ).state_dict()
        for name in ("timm.safetensors", "published.pt")
    )  # fmt: skip
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def test_biases_are_never_dropped_in_silence(tmp_path):
    """timm drops DINOv3's attention biases for a model without them, whatever they hold."""
    config = transformers.DINOv3ViTConfig(
        **SMALL, patch_size=16, image_size=64, num_register_tokens=4, key_bias=False
    )
    randomise(transformers.DINOv3ViTModel(config)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"attn\.qkv\.bias is not zero; use the model with biases"):
        MODELS.build(
            dict(
                type="TimmViT",
                model_name="vit_base_patch16_dinov3.lvd1689m",
                pretrained=tmp_path / "model.safetensors",
                img_size=64,
                depth=2,
                embed_dim=64,
                num_heads=2,
            )
        )


def test_a_classifier_that_norms_the_average_leaves_the_tokens_as_they_are(tmp_path):
    kwargs = dict(img_size=64, num_classes=10, depth=1)
    tuned = randomise(timm.create_model("vit_tiny_patch16_224", global_pool="avg", **kwargs))
    path = tmp_path / "tuned.safetensors"
    save_file({k: v.contiguous() for k, v in tuned.state_dict().items()}, path)
    backbone = MODELS.build(
        dict(
            type="TimmViT", model_name="vit_tiny_patch16_224", pretrained=path, depth=1, img_size=64
        )
    ).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = tuned.forward_features(x)[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
        assert torch.equal(backbone(x)[0], expected)


def test_beit_of_transformers_equals_timms_layout(tmp_path):
    """BEiT has a table of relative positions, separate biases and no bias of the keys."""
    config = transformers.BeitConfig(
        **SMALL, image_size=64, patch_size=16, use_relative_position_bias=True
    )
    theirs = randomise(transformers.BeitForImageClassification(config))
    theirs.save_pretrained(tmp_path)
    backbone = MODELS.build(
        dict(
            type="TimmViT",
            model_name="beit_base_patch16_224",
            pretrained=tmp_path / "model.safetensors",
            img_size=64,
            embed_dim=64,
            depth=2,
            num_heads=2,
        )
    ).eval()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (actual,) = backbone(x)
        output = theirs.beit(pixel_values=x).last_hidden_state
    expected = output[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    assert ((actual - expected).norm() / expected.norm()).item() < 1e-5


def test_sam_of_transformers(tmp_path):
    config = transformers.SamVisionConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=1024, patch_size=16,
        mlp_ratio=4.0, global_attn_indexes=[1], window_size=14, output_channels=16,
    )  # fmt: skip
    theirs = randomise(transformers.SamVisionModel(config))
    theirs.save_pretrained(tmp_path)
    backbone = MODELS.build(
        dict(type="SAM", pretrained=tmp_path / "model.safetensors", img_size=1024, embed_dim=64,
             depth=2, num_heads=2, global_attn_indexes=(1,))
    ).eval()  # fmt: skip
    x = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (actual,) = backbone(x)
        hidden = theirs(pixel_values=x, output_hidden_states=True).hidden_states[-1]
    expected = hidden.permute(0, 3, 1, 2)
    assert ((actual - expected).norm() / expected.norm()).item() < 1e-5


def dinov2_folder(folder, **kwargs):
    config = transformers.Dinov2Config(**SMALL, image_size=56, patch_size=14, mlp_ratio=4)
    randomise(transformers.Dinov2Model(config)).save_pretrained(folder, **kwargs)
    return folder


def dinov2_of(pretrained):
    return MODELS.build(
        dict(type="TimmViT", model_name="vit_base_patch14_dinov2.lvd142m", pretrained=pretrained,
             img_size=56, patch_size=14, embed_dim=64, depth=2, num_heads=2)
    ).state_dict()  # fmt: skip


def test_a_folder_of_the_hub_and_weights_in_pieces_are_read(tmp_path):
    whole = dinov2_of(dinov2_folder(tmp_path / "whole") / "model.safetensors")
    pieces = dinov2_folder(tmp_path / "pieces", max_shard_size="100KB")
    assert len(list(pieces.glob("*.safetensors"))) > 1
    for pretrained in (tmp_path / "whole", pieces, pieces / "model.safetensors.index.json"):
        found = dinov2_of(pretrained)
        assert all(torch.equal(found[name], value) for name, value in whole.items())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"num_attention_heads": 4},
            "says num_attention_heads=4, the model has 2; pass num_heads=4",
        ),
        ({"hidden_act": "quick_gelu"}, "the model has GELU; choose the model with 'quickgelu'"),
        ({"vision_config": {"hidden_act": "quick_gelu"}}, "the model has GELU"),
    ],
)
def test_what_no_weight_shows_is_held_against_the_folders_config(changed, message, tmp_path):
    folder = dinov2_folder(tmp_path / "hub")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    for pretrained in (folder, folder / "model.safetensors"):
        with pytest.raises(ValueError, match=message) as error:
            dinov2_of(pretrained)
        assert str(pretrained) in str(error.value)
    (folder / "model.safetensors").rename(tmp_path / "mine.safetensors")
    dinov2_of(tmp_path / "mine.safetensors")


def test_pieces_that_do_not_match_their_index_are_refused(tmp_path):
    pieces = dinov2_folder(tmp_path / "pieces", max_shard_size="100KB")
    first = min(pieces.glob("*.safetensors"))
    first.rename(pieces / "kept")
    with pytest.raises(FileNotFoundError, match=f"{first.name} do not exist"):
        dinov2_of(pieces)
    save_file({"embeddings.cls_token": torch.zeros(1, 1, 64)}, first)
    with pytest.raises(
        ValueError, match=rf"{first.name} cannot be read .*it (lacks|holds) \S+, against"
    ):
        dinov2_of(pieces)
    index = pieces / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"norm.weight": "../secret.safetensors"}}')
    with pytest.raises(ValueError, match="it has no weight_map of files next to it"):
        dinov2_of(pieces)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no weights: expected one of model"):
        dinov2_of(tmp_path)


def test_the_backbone_of_a_trained_model_is_read(tmp_path):
    """A checkpoint of mmengine's Runner, at the same size, goes in again bit for bit."""
    model = MODELS.build(
        dict(
            type="VFMEncoderDecoder",
            backbone=dict(type="TimmViT", model_name="vit_tiny_patch16_224", depth=1, img_size=32,
                          pretrained=False),
            decode_head=dict(type="LinearHead", num_classes=3),
        )
    )  # fmt: skip
    randomise(model)
    path = tmp_path / "iter_1.pth"
    torch.save({"meta": {}, "state_dict": model.state_dict(), "optimizer": {}}, path)
    again = MODELS.build(
        dict(
            type="TimmViT", model_name="vit_tiny_patch16_224", depth=1, img_size=32, pretrained=path
        )
    )
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_trained_backbone_lacks_the_norm_of_pooled_tokens(tmp_path):
    kwargs = dict(type="TimmViT", model_name="eva02_tiny_patch14_224", depth=1, img_size=(32, 128))
    trained = randomise(MODELS.build(dict(pretrained=False, **kwargs)))
    torch.save({"state_dict": below("backbone.", trained.state_dict())}, tmp_path / "iter_1.pth")
    again = MODELS.build(dict(pretrained=tmp_path / "iter_1.pth", **kwargs)).state_dict()
    assert again.keys() == trained.state_dict().keys()
    assert all(torch.equal(again[name], value) for name, value in trained.state_dict().items())


def test_positions_of_a_square_are_resized_to_a_grid_of_as_many(tmp_path):
    weights = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=64).state_dict()
    weights["pos_embed"] = torch.randn(1, 1 + 4 * 4, 192)
    torch.save(weights, tmp_path / "w.pth")
    backbone = MODELS.build(
        dict(type="TimmViT", model_name="vit_tiny_patch16_224", depth=1, img_size=(32, 128),
             pretrained=tmp_path / "w.pth")
    )  # fmt: skip
    square = weights["pos_embed"][:, 1:].reshape(1, 4, 4, 192).permute(0, 3, 1, 2)
    wide = torch.nn.functional.interpolate(square, (2, 8), mode="bicubic", antialias=True)
    found = backbone.vit.pos_embed
    assert torch.equal(found[:, 0], weights["pos_embed"][:, 0])
    torch.testing.assert_close(found[:, 1:], wide.flatten(2).transpose(1, 2))


def test_the_arguments_of_a_training_script_are_no_obstacle(tmp_path):
    """timm's, DeiT's and MAE's scripts save their parsed command line with the weights."""
    weights = plain()
    arguments = argparse.Namespace(lr=1e-3, model="vit_tiny_patch16_224", clip_grad=None)
    torch.save({"model": weights, "args": arguments, "epoch": 3}, tmp_path / "tuned.pth")
    backbone = MODELS.build(
        dict(type="TimmViT", model_name="vit_tiny_patch16_224", depth=1, img_size=32,
             pretrained=tmp_path / "tuned.pth")
    )  # fmt: skip
    assert torch.equal(backbone.vit.pos_embed, weights["pos_embed"])


def below(prefix, state):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "pack",
    [
        lambda good, bad: {"state_dict": bad, "state_dict_ema": good, "epoch": 3},
        lambda good, bad: {"model": bad, "model_ema": good},
        lambda good, bad: {
            "teacher": below("backbone.", good) | {"head.bias": bad["norm.bias"]},
            "student": below("module.backbone.", bad),
            "epoch": 3,
        },
        lambda good, bad: {"state_dict": below("model._orig_mod.", good)},
    ],
)
def test_the_average_and_the_teacher_are_taken_from_what_a_script_saves(pack, tmp_path):
    weights, path = plain(), tmp_path / "w.pth"
    torch.save(pack(weights, {k: torch.zeros_like(v) for k, v in weights.items()}), path)
    backbone = MODELS.build(
        dict(
            type="TimmViT", model_name="vit_tiny_patch16_224", depth=1, img_size=32, pretrained=path
        )
    )
    for name, value in backbone.vit.state_dict().items():
        assert torch.equal(value, weights[name]), name
