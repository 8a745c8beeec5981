"""Contract 1 of the backbones: outputs, freezing, gradients, parameter counts, bad input."""

import pytest
import torch
from mmengine.runner import Runner
from mmseg.registry import MODELS

from vfm_ss.models.backbones.sam import scaled_window
from vfm_ss.protocol.vfms import VFMS


def tiny(**kwargs):
    cfg = dict(model_name="vit_tiny_patch16_224", depth=3, img_size=64, pretrained=False)
    return MODELS.build(dict(type="TimmViT", **{**cfg, **kwargs}))


CASES = [(row.key, arch) for row in VFMS.values() for arch in row.archs]


def vfm(key, **kwargs):
    if key == "sam":
        kwargs = {"global_attn_indexes": [1], "img_size": 512, **kwargs}
    cfg = dict(type=VFMS[key].name, depth=2, img_size=64, pretrained=False)
    return MODELS.build({**cfg, **kwargs})


@pytest.mark.parametrize(("key", "arch"), CASES)
def test_every_parameter_has_a_gradient(key, arch):
    backbone = vfm(key, arch=arch)
    (out,) = backbone(torch.randn(1, 3, *backbone.img_size))
    out.square().sum().backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("out_indices", [(0,), (0, 1), (0, 2)])
def test_blocks_and_norm_behind_the_last_output_are_removed(out_indices):
    backbone = tiny(out_indices=out_indices)
    sum(out.square().sum() for out in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert len(backbone.vit.blocks) == out_indices[-1] + 1
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


def test_out_indices_return_each_block_and_norm_the_last_only():
    torch.manual_seed(0)
    backbone = tiny(out_indices=(-3, 1, -1)).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(std=0.1)
        x = torch.randn(2, 3, 64, 64)
        outs = backbone(x)
        vit = backbone.vit
        tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(x)))
        for index, block in enumerate(vit.blocks):
            tokens = block(tokens)
            expected = vit.norm(tokens) if index == 2 else tokens
            expected = expected[:, 1:].transpose(1, 2).reshape(2, 192, 4, 4)
            torch.testing.assert_close(outs[index], expected)


def test_frozen_backbone_never_trains():
    backbone = tiny(frozen=True, proj_drop_rate=0.5)
    backbone.train()
    assert not any(module.training for module in backbone.modules())
    x = torch.randn(1, 3, 64, 64)
    (first,), (second,) = backbone(x), backbone(x)
    assert torch.equal(first, second), "dropout is on"
    assert not first.requires_grad
    assert first.grad_fn is None
    assert not any(p.requires_grad for p in backbone.parameters())


def test_a_frozen_backbones_output_trains_what_follows():
    head = torch.nn.Conv2d(192, 2, 1)
    head(tiny(frozen=True)(torch.randn(1, 3, 64, 64))[0]).sum().backward()
    assert head.weight.grad.abs().sum() > 0


def test_a_runners_weight_initialisation_keeps_loaded_weights(small_vit, weights_of, tmp_path):
    plain = small_vit("vit_tiny_patch16_224", depth=1)
    model = MODELS.build(
        dict(
            type="VFMEncoderDecoder",
            backbone=dict(
                type="TimmViT",
                model_name="vit_tiny_patch16_224",
                depth=1,
                img_size=224,
                pretrained=weights_of(plain),
            ),
            decode_head=dict(type="LinearHead", num_classes=3),
        )
    )
    Runner(model=model, work_dir=str(tmp_path))._init_model_weights()
    for name, value in model.backbone.vit.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name


@pytest.mark.parametrize(("key", "arch"), CASES)
def test_statistics_are_those_of_timm_but_for_beit3(key, arch):
    import timm

    cfg = timm.get_pretrained_cfg(VFMS[key].timm_name(arch))
    expected = ((0.5,) * 3, (0.5,) * 3) if key == "beit3" else (cfg.mean, cfg.std)
    with torch.device("meta"):
        backbone = vfm(key, arch=arch, depth=2)
    assert (backbone.mean, backbone.std) == expected


def test_given_statistics_win():
    backbone = tiny(mean=(0.1, 0.2, 0.3), std=[0.4, 0.5, 0.6])
    assert (backbone.mean, backbone.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert tiny(mean=(0.1, 0.2, 0.3)).std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("config", "trainable"),  # millions, the paper's Table 3
    [
        (dict(), 86.6),
        (dict(frozen=True), 0.1),
        (dict(arch="large"), 304),
        (dict(patch_size=8), 88.5),
    ],
)
def test_trainable_parameters_with_dinov2_are_the_papers(config, trainable):
    with torch.device("meta"):
        model = MODELS.build(
            dict(
                type="VFMEncoderDecoder",
                backbone=dict(type="DINOv2", img_size=512, pretrained=False, **config),
                decode_head=dict(type="LinearHead", num_classes=150),
            )
        )
    count = sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6
    digits = 1 if trainable < 100 else 0
    assert round(count, digits) == trainable


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tiny(img_size=100), r"img_size \(100, 100\) must be a multiple of patch_size 16"),
        (lambda: tiny(patch_size=0), "must be a multiple of patch_size 0"),
        (lambda: tiny(mean=(123.7, 116.3, 103.5)), r"mean must be three numbers in \[0, 1\]"),
        (lambda: tiny(std=(0.5, 0.5)), "std must be three numbers"),
        (lambda: tiny(out_indices=3), "out_indices 3 must be ascending block numbers below 3"),
        (lambda: tiny(out_indices=(1, 0)), "ascending"),
        (lambda: tiny(out_indices=()), "ascending"),
        (lambda: tiny(model_name="vit_tiny_patch61"), "cannot build 'vit_tiny_patch61'"),
        (lambda: tiny(model_name="resnet18"), "cannot build 'resnet18' as a ViT"),
        (lambda: vfm("mae", arch="huge"), "arch of MAE must be 'base' or 'large', got 'huge'"),
        (lambda: vfm("sam", img_size=400), "must be a multiple of 512: 512, 1024, 1536"),
        (lambda: vfm("sam", img_size=400, patch_size=8), "multiple of 256: 256, 512, 768"),
        (lambda: tiny()(torch.zeros(1, 3, 64, 80)), r"got an image of \(64, 80\) pixels"),
    ],
)
def test_bad_input_is_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("grid", "window"), [((64, 64), 14), ((32, 32), 7), ((32, 64), 7), ((128, 96), 21)]
)
def test_sams_windows_scale_with_the_shorter_side(grid, window):
    assert scaled_window(grid, 16) == window


def test_mmsegs_mae_stays_available():
    from mmseg.models.backbones import MAE as MMSEG_MAE

    assert MODELS.get("MMSegMAE") is MMSEG_MAE
    assert MODELS.get("MAE").key == "mae"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "arch", "patch", "tokens"), [("dinov2", "base", 16, 32), ("sam", "large", 8, 64)]
)
def test_real_sizes_run(key, arch, patch, tokens):
    cfg = dict(type=VFMS[key].name, arch=arch, patch_size=patch, pretrained=False)
    backbone = MODELS.build(cfg).eval()
    with torch.no_grad():
        (out,) = backbone(torch.randn(1, 3, 512, 512))
    assert out.shape == (1, backbone.embed_dim, tokens, tokens)
    assert len(backbone.vit.blocks) == {"base": 12, "large": 24}[arch]
    assert torch.isfinite(out).all()
    assert out.std() > 0
