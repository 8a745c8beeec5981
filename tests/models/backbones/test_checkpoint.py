"""Published checkpoint layouts, written here from their authors' key names, and damaged files."""

import pickle
import re

import pytest
import torch
from mmseg.registry import MODELS
from safetensors.torch import save_file

from vfm_ss.protocol.vfms import VFMS


def junk(*keys):
    """Parts of a published file that a backbone has no use for."""
    return {key: torch.ones(3) for key in keys}


def dinov2(state):
    return {**state, "mask_token": torch.zeros(1, 768)}


def eva02(state):
    renamed = {}
    for key, value in state.items():
        key = key.replace("fc_norm.", "norm.").replace("q_proj.bias", "q_bias")
        key = key.replace("v_proj.bias", "v_bias").replace("mlp.norm", "mlp.ffn_ln")
        key = key.replace("mlp.fc1_g", "mlp.w1").replace("mlp.fc1_x", "mlp.w2")
        renamed[key.replace("mlp.fc2", "mlp.w3")] = value
    extra = junk("mask_token", "lm_head.weight", "lm_head.bias", "blocks.0.attn.rope.freqs_cos")
    return {"module": {**renamed, **extra, **junk("rope.freqs_cos", "rope.freqs_sin")}}


def eva02clip(state):
    renamed = {}
    for key, value in eva02(state)["module"].items():
        if key not in ("mask_token", "lm_head.weight", "lm_head.bias"):
            renamed["visual." + key.replace("attn.norm", "attn.inner_attn_ln")] = value
    return {**renamed, **junk("visual.head.weight", "visual.head.bias", "text.ln.weight")}


def beit3(state):
    renamed = {}

    def both(key, value):  # the vision expert is A; B is the language expert
        name, _, kind = key.rpartition(".")
        renamed[f"beit3.encoder.{name}.A.{kind}"] = value
        renamed[f"beit3.encoder.{name}.B.{kind}"] = torch.zeros_like(value)

    for key, value in state.items():
        if key == "cls_token":
            renamed["beit3.vision_embed.cls_token"] = value
        elif key.startswith("patch_embed."):
            renamed[key.replace("patch_embed.", "beit3.vision_embed.")] = value
        elif key == "pos_embed":  # two unused positions come first
            both("embed_positions.weight", torch.cat([torch.ones(2, value.shape[-1]), value[0]]))
        elif match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)", key):
            for name, part in zip("qkv", value.chunk(3), strict=True):
                both(f"layers.{match[1]}.self_attn.{name}_proj.{match[2]}", part)
        elif key.startswith("blocks."):
            key = key.replace("blocks.", "layers.").replace("attn.norm", "self_attn.inner_attn_ln")
            key = key.replace("attn.proj", "self_attn.out_proj")
            key = key.replace("norm1", "self_attn_layer_norm").replace("norm2", "final_layer_norm")
            if ".mlp." in key:  # the norm is inside the expert: ffn.A.ffn_layernorm.weight
                key = key.replace("mlp.norm", "mlp.ffn_layernorm")
                renamed["beit3.encoder." + key.replace(".mlp.", ".ffn.A.")] = value
            else:
                both(key, value)
        else:
            both(key.replace("norm.", "layer_norm.").replace("fc_", ""), value)
    extra = junk("beit3.text_embed.weight", "beit3.vision_embed.mask_token")
    heads = junk("mlm_head.weight", "mlm_head.bias", "mim_head.weight", "mim_head.bias")
    return {"model": {**renamed, **extra, **heads}}


def siglip(state):
    renamed = {f"visual.trunk.{key}": value for key, value in state.items()}
    return {**renamed, **junk("text.token_embedding.weight", "logit_scale", "logit_bias")}


def dfn(state):
    swaps = {
        "norm_pre.": "ln_pre.",
        "blocks.": "transformer.resblocks.",
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.qkv.": "attn.in_proj_",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    renamed = {}
    for key, value in state.items():
        if key == "cls_token":
            renamed["visual.class_embedding"] = value[0, 0]
        elif key == "pos_embed":
            renamed["visual.positional_embedding"] = value[0]
        elif key == "patch_embed.proj.weight":
            renamed["visual.conv1.weight"] = value
        else:
            key = re.sub(r"^norm\.", "ln_post.", key)
            for ours, theirs in swaps.items():
                key = key.replace(ours, theirs)
            renamed["visual." + key] = value
    text = junk("positional_embedding", "text_projection", "token_embedding.weight")
    return {**renamed, **text, "visual.proj": torch.ones(768, 512)}


def deit3(state):
    renamed = {re.sub(r"ls([12])\.gamma", r"gamma_\1", key): v for key, v in state.items()}
    return {"model": {**renamed, **junk("head.weight", "head.bias")}}


def mae(state):
    return {"model": {**state, **junk("mask_token", "decoder_pos_embed", "decoder_norm.weight")}}


def sam(state):
    renamed = {f"image_encoder.{k.replace('mlp.fc', 'mlp.lin')}": v for k, v in state.items()}
    return {**renamed, **junk("prompt_encoder.x.weight", "mask_decoder.iou_token.weight")}


LAYOUTS = {
    "eva02": eva02,
    "eva02clip": eva02clip,
    "dinov2": dinov2,
    "beit3": beit3,
    "siglip": siglip,
    "dfn": dfn,
    "deit3-in21k": deit3,
    "deit3-in1k": deit3,
    "mae": mae,
    "sam": sam,
}


def build(key, path, **kwargs):
    if key == "sam":
        kwargs["global_attn_indexes"] = [1]
    cfg = dict(type=VFMS[key].name, pretrained=path, depth=2, **kwargs)
    return MODELS.build(cfg).eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("key", LAYOUTS)
def test_published_layout_gives_the_weights_of_timms(key, suffix, small_vit, weights_of, tmp_path):
    plain = small_vit(VFMS[key].base)
    published = LAYOUTS[key](plain.state_dict())
    path = tmp_path / f"published{suffix}"
    if suffix == ".pth":
        torch.save(published, path)
    else:
        flat = published.get("model", published.get("module", published))
        save_file({k: v.contiguous().clone() for k, v in flat.items()}, path)
    actual = build(key, path).state_dict()
    expected = build(key, weights_of(plain)).state_dict()
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def test_beit3s_final_norm_is_loaded_from_every_layout(small_vit, tmp_path):
    plain = small_vit(VFMS["beit3"].base)
    norm = plain.state_dict()["fc_norm.weight"]
    torch.save(beit3(plain.state_dict()), tmp_path / "published.pth")
    torch.save(plain.state_dict(), tmp_path / "timm.pth")
    for name in ("published.pth", "timm.pth"):
        assert torch.equal(build("beit3", tmp_path / name).vit.norm.weight, norm)


def test_eva02_mim_has_no_final_norm_and_clip_has(small_vit, weights_of):
    plain = small_vit(VFMS["eva02"].base)
    assert not list(build("eva02", weights_of(plain)).vit.norm.parameters())
    plain = small_vit(VFMS["eva02clip"].base)
    norm = build("eva02clip", weights_of(plain)).vit.norm
    assert torch.equal(norm.weight, plain.norm.weight)


def edit(state, **changes):
    state = dict(state)
    for key, value in changes.items():
        key = key.replace("__", ".")
        if value is None:
            del state[key]
        else:
            state[key] = value
    return state


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm__weight": None}, "1 missing: norm.weight"),
        ({"extra__weight": torch.ones(2)}, "1 unexpected: extra.weight"),
        (
            {"norm__weight": torch.ones(7)},
            r"1 of another shape: norm.weight \(7,\) instead of \(768,\)",
        ),
        ({"norm__weight": 3}, r"1 of another shape: norm.weight int instead of \(768,\)"),
        (
            {"norm__weight": torch.ones(768).to_sparse()},
            r"1 of another shape: norm.weight torch.sparse_coo instead of \(768,\)",
        ),
        (
            {"norm__weight": torch.ones(768, dtype=torch.int8)},
            "1 of numbers that are no weights: norm.weight torch.int8",
        ),
    ],
)
def test_every_key_that_does_not_match_is_listed(changes, message, small_vit, tmp_path):
    path = tmp_path / "bad.pth"
    torch.save(edit(small_vit(VFMS["mae"].base).state_dict(), **changes), path)
    with pytest.raises(ValueError, match=message) as error:
        build("mae", path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_key_that_is_no_text_is_listed(small_vit, tmp_path):
    path = tmp_path / "bad.pth"
    weights = {**small_vit(VFMS["mae"].base).state_dict(), ("a",): torch.ones(2)}
    torch.save({"state_dict": {"model": weights}}, path)
    with pytest.raises(ValueError, match=r"Keys 1 unexpected: \('a',\)"):
        build("mae", path)


TINY = dict(type="TimmViT", model_name="vit_tiny_patch16_224", depth=2, img_size=224)


@pytest.mark.parametrize(
    ("prefix", "told"),
    [
        ("net.tower.", "All unknown keys of the file start with 'net.tower.': save them"),
        ("tower.", "30 of 32 unknown keys of the file start with 'tower.': save them"),
        ("module.", None),  # that of DistributedDataParallel is removed
    ],
)
def test_the_prefix_of_a_files_keys_is_named(prefix, told, small_vit, tmp_path):
    state = small_vit("vit_tiny_patch16_224").state_dict()
    renamed = {f"{prefix}{name}": value for name, value in state.items()}
    if prefix == "tower.":
        renamed.update({"student.x.weight": torch.ones(1), "student.y.weight": torch.ones(1)})
    torch.save(renamed, tmp_path / "prefixed.pth")
    cfg = {**TINY, "pretrained": tmp_path / "prefixed.pth"}
    if told is None:
        assert torch.equal(MODELS.build(cfg).vit.pos_embed, state["pos_embed"])
        return
    with pytest.raises(ValueError, match="does not fit vit_tiny_patch16_224") as error:
        MODELS.build(cfg)
    message = str(error.value)
    assert message.endswith(f"{told} without it")
    assert "30 missing: cls_token, pos_embed, patch_embed.proj.weight and 27 more;" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("file", "model"),
    [
        ("vit_small_patch14_reg4_dinov2", "vit_small_patch14_dinov2"),
        ("vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"),
        ("vit_tiny_patch16_224", "beit_base_patch16_224"),
        ("eva02_tiny_patch14_224", "vit_tiny_patch16_224"),
    ],
)
@pytest.mark.parametrize("size", [224, 256])
def test_a_file_of_another_architecture_is_one_line(file, model, size, small_vit, weights_of):
    path = weights_of(small_vit(file, depth=1, embed_dim=48, num_heads=3))
    with pytest.raises(ValueError, match=f"does not fit {model}, check arch and the file") as error:
        MODELS.build(dict(type="TimmViT", model_name=model, depth=1, embed_dim=48, num_heads=3,
                          img_size=size, pretrained=path))  # fmt: skip
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 800


def test_weights_of_the_other_size_are_refused(small_vit, weights_of):
    path = weights_of(small_vit(VFMS["mae"].base))
    with pytest.raises(ValueError, match="does not fit vit_large_patch16_224, check arch"):
        build("mae", path, arch="large")


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: p.write_bytes(pickle.dumps({"model": Bomb()})), "refused: it holds pickled"),
        (lambda p: torch.save({"model": Bomb()}, p), "refused: it holds pickled objects"),
        (lambda p: p.write_bytes(b""), "cannot be read as a checkpoint"),
        (lambda p: p.write_bytes(b"not a checkpoint"), "cannot be read|refused"),
        (lambda p: torch.save([1, 2], p), "cannot be read as a checkpoint"),
    ],
)
def test_a_file_that_is_no_state_dict_is_refused_and_not_executed(write, message, tmp_path):
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(ValueError, match=message) as error:
        build("mae", path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_named(suffix, small_vit, weights_of, tmp_path):
    vit = small_vit(VFMS["mae"].base)
    path = tmp_path / f"cut{suffix}"
    if suffix == ".pth":
        torch.save(vit.state_dict(), path)
    else:
        path = weights_of(vit, path.name)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        build("mae", path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth do not exist; give the path"):
        build("mae", tmp_path / "nowhere.pth")


def test_without_network_the_file_and_the_remedy_are_named(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        build("dinov2", True)
    message = str(error.value)
    assert "model.safetensors of https://huggingface.co/timm/vit_base_patch14_dinov2" in message
    assert "pass pretrained='/path/to/model.safetensors'" in message
    assert "\n" not in message


def test_the_download_itself_is_loaded_and_resized(small_vit, weights_of, monkeypatch):
    """The Hub's own client is replaced by a file; all behind it is what a user runs."""
    import timm.models._hub as hub

    plain = small_vit(VFMS["siglip"].base)
    asked = []

    def download(repo_id, filename, **kwargs):
        asked.append((repo_id, filename))
        return str(weights_of(plain))

    monkeypatch.setattr(hub, "hf_hub_download", download)
    backbone = build("siglip", True, img_size=256)
    assert asked == [("timm/vit_base_patch16_siglip_512.webli", "model.safetensors")]
    assert torch.equal(backbone.vit.norm.weight, plain.norm.weight)
    assert backbone.vit.pos_embed.shape == (1, 256, 768)


def test_a_model_without_published_weights_says_so():
    with pytest.raises(ValueError, match="timm publishes no weights for vit_small_patch16_36x1"):
        MODELS.build(dict(type="TimmViT", model_name="vit_small_patch16_36x1_224", depth=1))
