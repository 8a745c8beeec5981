"""Features equal mmpretrain's own at native size, and timm's at any, whatever the file's layout."""

import math
import pickle

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmseg.registry import MODELS

from vfm_ss.protocol.vfms import VFMS

mmpretrain_models = pytest.importorskip("mmpretrain.models")

TINY = {"embed_dims": 48, "num_layers": 3, "num_heads": 3, "feedforward_channels": 96}
SAM = {"arch": {**TINY, "global_attn_indexes": [2]}, "window_size": 3}
MODEL_ARGS = {
    "VisionTransformer": {"layer_scale_init_value": 1e-5},  # as DINOv2
    "DistilledVisionTransformer": {},
    "DeiT3": {},
    "BEiTViT": {},
    "ViTEVA02": {"sub_ln": True},
    "ViTSAM": SAM,
}


def randomise(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = parameter.ndim == 1 and not name.endswith("bias")
            parameter.copy_(1 + 0.2 * noise if scale else 0.05 * noise)
    model.eval()  # returns None in mmpretrain
    return model


def plain(model, size=64, patch=16, **kwargs):
    """Mmpretrain's own model, every parameter random."""
    kwargs = {"arch": TINY, "out_type": "featmap", **MODEL_ARGS.get(model, {}), **kwargs}
    if model == "ViTSAM":
        kwargs["out_channels"] = 0
    cls = getattr(mmpretrain_models, model)
    return randomise(cls(img_size=size, patch_size=patch, **kwargs))


def saved(path, state_dict, prefix="backbone."):
    """Save a checkpoint as mmengine's runner does, log history and optimiser included."""
    history = HistoryBuffer([1.0, 0.5], [1, 1])
    state_dict = {prefix + name: value for name, value in state_dict.items()}
    checkpoint = {"meta": {"epoch": 1}, "state_dict": state_dict, "optimizer": {"state": {}},
                  "message_hub": {"log_scalars": {"train/loss": history}}}  # fmt: skip
    torch.save(checkpoint, path)
    return path


def ours(model, pretrained, size=64, patch=16, **kwargs):
    kwargs = {"arch": TINY, **MODEL_ARGS.get(model, {}), **kwargs}
    cfg = dict(type="MMPretrainViT", model=model, img_size=size, patch_size=patch)
    return MODELS.build({**cfg, "pretrained": pretrained, **kwargs}).eval()


def image(*size):
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))


def relative_error(actual, expected):
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("model", MODEL_ARGS)
def test_features_equal_mmpretrains_own_at_native_size(model, tmp_path):
    own = plain(model, out_indices=[0, 2])
    backbone = ours(model, saved(tmp_path / "a.pth", own.state_dict()), out_indices=(0, 2))
    with torch.no_grad():
        actual, expected = backbone(image(64, 64)), own(image(64, 64))
    assert [out.shape for out in actual] == [(1, 48, 4, 4)] * 2
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a, e)


def test_features_equal_mmpretrains_own_at_real_size(tmp_path):
    own = plain("VisionTransformer", 224, arch="base", layer_scale_init_value=0.0)
    path = saved(tmp_path / "vit_b.pth", own.state_dict())
    backbone = ours("VisionTransformer", path, 224, arch="base", layer_scale_init_value=0.0)
    with torch.no_grad():
        (actual,), (expected,) = backbone(image(224, 224)), own(image(224, 224))
    assert backbone.arch == "base"
    assert actual.shape == (1, 768, 14, 14)
    assert torch.equal(actual, expected)


RENAMED = {  # timm: mmpretrain
    "patch_embed.proj.": "patch_embed.projection.",
    "blocks.": "layers.",
    "norm1.": "ln1.",
    "norm2.": "ln2.",
    "mlp.fc1.": "ffn.layers.0.0.",
    "mlp.fc2.": "ffn.layers.1.",
    "ls1.gamma": "attn.gamma1.weight",
    "ls2.gamma": "ffn.gamma2.weight",
    "neck.": "channel_reduction.",
}


def to_mmpretrain(state_dict):
    """Rename timm's weights as mmpretrain names them."""
    renamed = {}
    for name, value in state_dict.items():
        for timms, theirs in RENAMED.items():
            name = name.replace(timms, theirs)
        name = name.replace("norm.", "ln1.") if name.startswith("norm.") else name
        renamed[name] = value
    return renamed


# A benchmark VFM, mmpretrain's class for it, its arguments, and the tasks it is resized to.
TWINS = [
    ("dinov2", "VisionTransformer", {"layer_scale_init_value": 1e-5}, 512, 16),
    ("dinov2", "VisionTransformer", {"layer_scale_init_value": 1e-5}, 256, 8),
    ("mae", "VisionTransformer", {}, (256, 512), 16),
    ("deit3-in1k", "DeiT3", {}, 512, 16),
    ("sam", "ViTSAM", {}, 512, 16),
]


@pytest.mark.parametrize(("key", "model", "kwargs", "size", "patch"), TWINS)
def test_both_layouts_give_the_same_features(
    key, model, kwargs, size, patch, small_vit, weights_of, tmp_path
):
    vit = small_vit(VFMS[key].base)
    if key == "deit3-in1k":  # mmpretrain's uses the first norm twice
        for block in vit.blocks:
            block.norm2.load_state_dict(block.norm1.state_dict())
    arch = {"embed_dims": 768, "num_layers": 2, "num_heads": 12, "feedforward_channels": 3072}
    timm_kwargs = {}
    if key == "sam":
        arch["global_attn_indexes"] = timm_kwargs["global_attn_indexes"] = [1]
    path = saved(tmp_path / "mmpretrain.pth", to_mmpretrain(vit.state_dict()))
    twin = MODELS.build(
        dict(type="MMPretrainViT", model=model, arch=arch, img_size=size, patch_size=patch,
             pretrained=path, **kwargs)
    ).eval()  # fmt: skip
    backbone = MODELS.build(
        dict(type=VFMS[key].name, img_size=size, patch_size=patch, depth=2,
             pretrained=weights_of(vit), **timm_kwargs)
    ).eval()  # fmt: skip
    x = image(*backbone.img_size)
    with torch.no_grad():
        (actual,), (expected,) = twin(x), backbone(x)
    assert relative_error(actual, expected) < 1e-5


def beit_of_timm(size, **kwargs):
    import timm

    return timm.create_model(
        "beit_base_patch16_224", num_classes=0, depth=2, embed_dim=48, num_heads=3, img_size=size,
        mlp_ratio=2, init_values=0.1, global_pool="token", **kwargs
    )  # fmt: skip


@pytest.mark.parametrize("size", [(96, 96), (64, 128)])
def test_beits_relative_positions_are_resized_as_timms(size, tmp_path):
    from timm.models.beit import checkpoint_filter_fn

    small = randomise(beit_of_timm(64))
    target = beit_of_timm(size).eval()
    target.load_state_dict(checkpoint_filter_fn(dict(small.state_dict()), target), strict=True)
    arch = {**TINY, "num_layers": 2}
    path = saved(tmp_path / "beit.pth", to_mmpretrain(small.state_dict()))
    backbone = ours("BEiTViT", path, size, arch=arch, final_norm=True)
    with torch.no_grad():
        (actual,) = backbone(image(*size))
        expected = target.forward_features(image(*size))[:, 1:]
    assert relative_error(actual.flatten(2).transpose(1, 2), expected) < 1e-5


def test_a_shared_relative_position_table_is_given_to_every_block(tmp_path):
    shared = plain("BEiTViT", use_rel_pos_bias=False, use_shared_rel_pos_bias=True)
    path = saved(tmp_path / "beit.pth", shared.state_dict())
    backbone = ours("BEiTViT", path)
    with torch.no_grad():
        (actual,), (expected,) = backbone(image(64, 64)), shared(image(64, 64))
    torch.testing.assert_close(actual, expected)


def test_eva02s_rotary_embedding_follows_mmpretrains_rule_on_the_new_grid(tmp_path):
    path = saved(tmp_path / "eva02.pth", plain("ViTEVA02").state_dict())
    rope = ours("ViTEVA02", path, (64, 96)).vit.rope
    half = 48 // 3 // 2
    bands = 10000.0 ** -(torch.arange(0, half, 2) / half)
    rows, columns = torch.meshgrid(
        torch.arange(4) / 4 * half, torch.arange(6) / 6 * half, indexing="ij"
    )
    angles = [(axis.reshape(-1, 1) * bands).repeat(1, 2) for axis in (rows, columns)]
    torch.testing.assert_close(rope.freqs_cos, torch.cat(angles, 1).cos())


SELFSUP_PARTS = {
    "neck.decoder.weight": torch.ones(2),
    "head.weight": torch.ones(2),
    "target_generator.x": torch.ones(2),
    "data_preprocessor.mean": torch.ones(3),
    "momentum_encoder.steps": torch.tensor(1),
}


@pytest.mark.parametrize("layout", ["whole model", "backbone", "bare", "safetensors"])
def test_every_layout_that_mmpretrain_saves_is_read(layout, tmp_path):
    from safetensors.torch import save_file

    own = plain("VisionTransformer")
    state = own.state_dict()
    path = tmp_path / "weights.pth"
    if layout == "whole model":
        extra = {**SELFSUP_PARTS, "backbone.mask_token": torch.ones(1, 1, 48)}
        path = saved(path, {**{f"backbone.{k}": v for k, v in state.items()}, **extra}, prefix="")
    elif layout == "backbone":
        path = saved(path, state, prefix="")
    elif layout == "bare":
        torch.save(state, path)
    else:
        path = tmp_path / "weights.safetensors"
        save_file({f"backbone.{k}": v.contiguous() for k, v in state.items()}, path)
    backbone = ours("VisionTransformer", path)
    for name, value in backbone.vit.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("model", MODEL_ARGS)
@pytest.mark.parametrize("out_indices", [(1,), (0, -1)])
def test_every_parameter_has_a_gradient(model, out_indices):
    torch.manual_seed(0)
    backbone = ours(model, False, out_indices=out_indices)
    sum(out.square().sum() for out in backbone(image(64, 64))).backward()
    assert len(backbone.vit.layers) == (2 if out_indices == (1,) else 3)
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("model", MODEL_ARGS)
def test_checkpointing_changes_neither_features_nor_gradients(model):
    plain, checkpointed = (ours(model, False, with_cp=with_cp) for with_cp in (False, True))
    checkpointed.load_state_dict(randomise(plain).state_dict())
    x = image(64, 64)
    kept = []
    for backbone in (plain, checkpointed):
        saved = set()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, saved=saved: saved.add(tensor.data_ptr()) or tensor, lambda x: x
        ):
            (out,) = backbone(x)
        out.square().mean().backward()
        kept.append(len(saved))
    assert kept[1] < kept[0] / 2
    for (name, a), b in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, msg=name)


def test_it_trains_in_the_benchmarks_segmentor_with_its_own_statistics():
    model = MODELS.build(
        dict(
            type="VFMEncoderDecoder",
            backbone=dict(
                type="MMPretrainViT", model="VisionTransformer", arch=TINY, img_size=64,
                pretrained=False, frozen=True, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
            ),
            decode_head=dict(type="LinearHead", num_classes=3),
        )
    )  # fmt: skip
    assert model.data_preprocessor.mean.flatten().tolist() == [127.5] * 3
    assert model.decode_head.in_channels == 48
    model.train()
    assert not model.backbone.vit.training
    assert not any(p.requires_grad for p in model.backbone.parameters())


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: torch.save({"state_dict": {"a": Bomb()}}, p), "refused: it holds"),
        (lambda p: p.write_bytes(pickle.dumps({"state_dict": Bomb()})), "refused|cannot be read"),
        (lambda p: torch.save({"state_dict": {"a": 1}}, p), "holds no state dict"),
        (lambda p: torch.save([1], p), "holds no state dict"),
        (lambda p: p.write_bytes(b""), "cannot be read"),
        (lambda p: saved(p, {"cls_token": torch.ones(1, 1, 48)}), "missing: pos_embed, "),
        (lambda p: saved(p, {"backbone.cls_token": torch.ones(1), "roi_head.x": torch.ones(1)}, ""),
         r"1 keys beside the backbone's that are not mmpretrain's \(roi_head.x\)"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_with_one_line(write, message, tmp_path):
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(ValueError, match=message) as error:
        ours("VisionTransformer", path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(model="SwinTransformer"), "'SwinTransformer' is not a plain ViT of mmpretrain"),
        (dict(arch="gigantic"), "mmpretrain cannot build VisionTransformer: Arch gigantic"),
        (dict(nonsense=1), "mmpretrain cannot build VisionTransformer: .*nonsense"),
        (dict(pretrained=True), "pass pretrained='/path/to/checkpoint.pth'"),
        (dict(img_size=65), "must be a multiple of patch_size 16"),
        (dict(out_indices=7), "must be ascending block numbers below 3"),
    ],
)
def test_bad_arguments_are_one_clear_line(kwargs, message):
    cfg = dict(model="VisionTransformer", arch=TINY, img_size=64, pretrained=False)
    with pytest.raises(ValueError, match=message) as error:
        MODELS.build(dict(type="MMPretrainViT", **{**cfg, **kwargs}))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth do not exist"):
        ours("VisionTransformer", "nowhere.pth")


def test_positions_of_as_many_tokens_on_another_grid_are_resized_too(tmp_path):
    """4 x 4 and 2 x 8 tokens are 16 both."""
    own = plain("VisionTransformer")
    path = saved(tmp_path / "a.pth", own.state_dict())
    pos_embed = ours("VisionTransformer", path, (32, 128)).vit.pos_embed
    assert math.prod(pos_embed.shape[:2]) == 17
    assert not torch.equal(pos_embed, own.pos_embed)
