"""Pretrained weights: never asked for where a checkpoint follows, never random ones instead."""

import copy

import pytest
import timm.models
import torch
from mmengine.model import BaseModule
from mmengine.runner import load_state_dict
from mmseg.registry import MODELS
from torch import nn

from vfm_ss.models.backbones.late_weights import IF_THERE, LATER, NOW, expect_checkpoint, reading

NAME = "vit_tiny_patch16_224"
IMAGE = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)


def build(pretrained=True, **kwargs):
    options = dict(type="TimmViT", model_name=NAME, depth=3, img_size=64, out_indices=1)
    return MODELS.build(options | dict(pretrained=pretrained) | kwargs).eval()


def segmentor(backbone):
    return MODELS.build(
        dict(
            type="VFMEncoderDecoder",
            backbone=dict(
                type="TimmViT", model_name=NAME, depth=3, img_size=64, out_indices=1, **backbone
            ),
            decode_head=dict(type="LinearHead", num_classes=3),
            test_cfg=dict(mode="slide"),
        )
    ).eval()


@pytest.fixture
def hub(small_vit, monkeypatch):
    """The Hugging Face Hub, with one model; counts downloads."""
    calls = []
    plain = small_vit(NAME, depth=3)

    def read(*args, **kwargs):
        calls.append(args)
        return plain.state_dict()

    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", read)
    return calls


def same(model, other):
    ours, theirs = dict(model.named_parameters()), dict(other.named_parameters())
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_backbone_by_itself_has_its_weights_when_it_is_built(hub):
    backbone = build()
    assert len(hub) == 1
    assert not backbone.unread
    assert backbone.weights.startswith("model.safetensors of https://huggingface.co/timm/vit_tiny")


USES = {
    "init_weights": lambda model: model.init_weights(),
    "features": lambda model: model.backbone(IMAGE),
    "features of the library": lambda model: model.backbone.vit.forward_features(IMAGE),
    "features in inference mode": torch.inference_mode()(lambda model: model.backbone(IMAGE)),
    "prediction": lambda model: model.predict(IMAGE),
    "saving": lambda model: model.state_dict(),
}


@pytest.mark.parametrize("use", USES)
def test_a_segmentors_are_read_before_they_are_used(hub, use):
    expected = build()
    model = segmentor(dict(pretrained=True, compile=dict(backend="eager")))
    assert len(hub) == 1
    assert model.backbone.weights == "unread"
    assert not same(model.backbone, expected)
    before = torch.random.get_rng_state()
    USES[use](model)
    assert torch.equal(before, torch.random.get_rng_state()) or use == "init_weights"
    assert len(hub) == 2
    assert same(model.backbone, expected)
    assert torch.equal(model.backbone(IMAGE)[0], expected(IMAGE)[0])
    USES[use](model)
    assert len(hub) == 2
    assert model.backbone.weights == expected.weights


def test_a_copy_reads_its_own(hub):
    model = segmentor(dict(pretrained=True))
    copied = copy.deepcopy(model)
    copied.backbone(IMAGE)
    assert model.backbone.unread
    assert not copied.backbone.unread
    assert same(copied.backbone, build())


@pytest.mark.parametrize("load", [load_state_dict, lambda m, s: m.load_state_dict(s, strict=False)])
class TestACheckpoint:
    def test_in_place_of_pretrained_weights(self, hub, load):
        other = segmentor(dict(pretrained=False))
        model = segmentor(dict(pretrained=True))
        load(model, other.state_dict())
        model.backbone(IMAGE)
        model.init_weights()
        assert hub == []
        assert same(model.backbone, other.backbone)
        assert (model.backbone.weights, model.backbone.weights_files) == ("a checkpoint", [])

    def test_of_the_backbone_alone(self, hub, load):
        other = build(pretrained=False)
        with reading(LATER):
            backbone = build()
        load(backbone, other.state_dict())
        assert hub == []
        assert same(backbone, other)

    @pytest.mark.parametrize("left", ["decode_head", "backbone.vit.blocks.0"])
    def test_of_a_part_leaves_the_rest_pretrained(self, hub, load, left):
        other = segmentor(dict(pretrained=False))
        state = {k: v for k, v in other.state_dict().items() if k.startswith(left)}
        model = segmentor(dict(pretrained=True))
        load(model, state)
        assert len(hub) == 1
        pretrained = dict(build().named_parameters())
        for name, value in model.backbone.named_parameters():
            expected = state.get(f"backbone.{name}", pretrained[name])
            assert torch.equal(value, expected), name


def test_where_a_checkpoint_is_expected_nothing_is_read_before_it(hub):
    model = segmentor(dict(pretrained=True))
    expect_checkpoint(model)
    model.init_weights()
    model.state_dict()
    assert hub == []
    model.backbone(IMAGE)  # it did not come
    assert len(hub) == 1
    assert same(model.backbone, build())


def test_the_outermost_says_when(hub, weights_of, small_vit, tmp_path):
    file = weights_of(small_vit(NAME, depth=3))
    with reading(NOW):
        assert not segmentor(dict(pretrained=True)).backbone.unread
    with reading(IF_THERE):
        assert segmentor(dict(pretrained=True)).backbone.unread
        assert not segmentor(dict(pretrained=file)).backbone.unread
        assert segmentor(dict(pretrained=tmp_path / "nowhere.safetensors")).backbone.unread
        file.write_bytes(b"damaged")
        model = segmentor(dict(pretrained=file))
    with pytest.raises(ValueError, match=r"weights\.safetensors"):
        model.backbone(IMAGE)
    assert model.backbone.unread, "and again the next time"
    with pytest.raises(FileNotFoundError, match=r"nowhere.*do not exist"):
        segmentor(dict(pretrained=tmp_path / "nowhere.safetensors")).backbone(IMAGE)


class TestAStructureThatTheWeightsDecide:
    """A classifier that norms the average of the tokens: its backbone has no final norm."""

    @pytest.fixture
    def file(self, small_vit, weights_of):
        vit = small_vit(NAME, depth=2, global_pool="avg")
        assert "fc_norm.weight" in vit.state_dict()
        return weights_of(vit)

    @pytest.fixture
    def options(self, file):
        return dict(pretrained=file, depth=2, out_indices=-1)

    def model(self, options):
        backbone = dict(type="TimmViT", model_name=NAME, img_size=64, **options)
        head = dict(type="LinearHead", num_classes=3)
        return MODELS.build(
            dict(type="VFMEncoderDecoder", backbone=backbone, decode_head=head)
        ).eval()

    @pytest.mark.parametrize("initialise", [False, True])
    def test_read_late(self, options, initialise):
        model = self.model(options)
        expected = build(**options)
        if initialise:
            model.init_weights()
        assert isinstance(expected.vit.norm, nn.Identity)
        assert torch.equal(model.backbone(IMAGE)[0], expected(IMAGE)[0])
        assert same(model.backbone, expected)

    def test_from_a_checkpoint(self, options, file):
        with reading(NOW):
            trained = self.model(options)
        file.unlink()
        model = self.model(options)
        load_state_dict(model, trained.state_dict())
        assert torch.equal(model.backbone(IMAGE)[0], trained.backbone(IMAGE)[0])


def test_in_any_module_that_initialises_as_mmengine_does(hub):
    class Holder(BaseModule):
        def __init__(self):
            super().__init__()
            with reading(LATER):
                self.body = build()

    holder = Holder()
    holder.init_weights()
    assert len(hub) == 1
    assert same(holder.body, build())


def test_mmpretrains_too(tmp_path):
    pytest.importorskip("mmpretrain")
    options = dict(
        type="MMPretrainViT", model="VisionTransformer", img_size=64, out_indices=1,
        arch=dict(embed_dims=48, num_layers=3, num_heads=3, feedforward_channels=96),
    )  # fmt: skip
    whole = MODELS.build(options | dict(pretrained=False, out_indices=2))
    file = tmp_path / "x.pth"
    torch.save({f"backbone.{k}": v for k, v in whole.vit.state_dict().items()}, file)
    expected = MODELS.build(options | dict(pretrained=str(file))).eval()
    with reading(LATER):
        late = MODELS.build(options | dict(pretrained=str(file))).eval()
    assert late.unread
    assert not same(late, expected)
    assert torch.equal(late(IMAGE)[0], expected(IMAGE)[0])
    assert same(late, expected)
