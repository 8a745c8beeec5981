import pytest
import torch
from mmseg.registry import MODELS

from vfm_ss.protocol.vfms import VFMS


def build(key, **kwargs):
    arch = "base" if VFMS[key].base else VFMS[key].archs[0]
    backbone = dict(type=VFMS[key].name, arch=arch, depth=2, img_size=64, pretrained=False)
    if key == "sam":
        backbone.update(img_size=512, global_attn_indexes=[1])
    return MODELS.build(
        dict(
            type="VFMEncoderDecoder",
            backbone=backbone,
            decode_head=dict(type="LinearHead", num_classes=5),
            **{"test_cfg": dict(mode="slide"), **kwargs},
        )
    )


@pytest.mark.parametrize("key", VFMS)
def test_the_data_preprocessor_normalises_with_the_backbones_statistics(key):
    with torch.device("meta"):
        backbone_size = build(key).backbone.img_size
    model = build(key, data_preprocessor=dict(bgr_to_rgb=True))
    image = torch.randint(0, 256, (3, *backbone_size), dtype=torch.uint8)
    out = model.data_preprocessor({"inputs": [image]})["inputs"][0]
    rgb = image[[2, 1, 0]].double() / 255
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (VFMS[key].mean, VFMS[key].std))
    torch.testing.assert_close(out.double(), (rgb - mean) / std, rtol=1e-4, atol=1e-4)


def test_stated_statistics_that_contradict_the_backbone_are_refused():
    with pytest.raises(ValueError, match=r"data_preprocessor.mean is \[1, 2, 3\], but the weights"):
        build("mae", data_preprocessor=dict(mean=[1, 2, 3]))


def test_sizes_and_widths_come_from_the_backbone():
    model = build("mae")
    assert model.data_preprocessor.size == (64, 64)
    assert model.test_cfg.crop_size == (64, 64)
    assert model.decode_head.in_channels == 768


def test_windows_run_in_the_precision_of_the_test_cfg():
    seen = []
    x = torch.randn(1, 3, 32, 48)
    predictions = []
    for precision in (None, "fp32", "bf16", "auto"):
        cfg = dict(mode="slide", **({"precision": precision} if precision else {}))
        torch.manual_seed(0)
        model = MODELS.build(
            dict(
                type="VFMEncoderDecoder",
                backbone=dict(
                    type="TimmViT",
                    model_name="vit_tiny_patch16_224",
                    depth=1,
                    img_size=32,
                    pretrained=False,
                ),
                decode_head=dict(type="LinearHead", num_classes=4),
                test_cfg=cfg,
            )
        ).eval()
        model.decode_head.register_forward_hook(lambda m, args, out: seen.append(out.dtype))
        with torch.no_grad():
            predictions.append(model.slide_inference(x, [{}]))
    assert seen == [torch.float32, torch.float32, torch.bfloat16, torch.float32]
    assert all(logits.dtype == torch.float32 for logits in predictions)
    torch.testing.assert_close(predictions[2], predictions[0], rtol=0.05, atol=0.05)
    assert torch.equal(predictions[3], predictions[0])


def test_an_unknown_precision_is_refused():
    model = MODELS.build(
        dict(
            type="VFMEncoderDecoder",
            backbone=dict(
                type="TimmViT",
                model_name="vit_tiny_patch16_224",
                depth=1,
                img_size=32,
                pretrained=False,
            ),
            decode_head=dict(type="LinearHead", num_classes=4),
            test_cfg=dict(mode="slide", precision="fp8"),
        )
    )
    with pytest.raises(ValueError, match=r"test_cfg.precision must be auto, .* bf16, got 'fp8'"):
        model.slide_inference(torch.zeros(1, 3, 32, 32), [{}])
