"""All predictions of EoMT equal those of Hugging Face transformers, with the same weights."""

import pytest
import torch
from mmseg.registry import MODELS
from transformers import (
    AttentionInterface,
    EomtConfig,
    EomtDinov3Config,
    EomtDinov3ForUniversalSegmentation,
    EomtForUniversalSegmentation,
)

from vfm_ss.models.decode_heads import EoMTHead

WIDTH, HEADS, DEPTH, BLOCKS, QUERIES, CLASSES, SIZE, REGISTERS = 48, 3, 4, 2, 7, 5, 64, 4


def attention_in_double(module, query, key, value, attention_mask, scaling, **kwargs):
    """transformers' own has a softmax in float32."""
    scores = query @ key.transpose(-1, -2) * scaling
    scores = scores if attention_mask is None else scores + attention_mask
    return (scores.softmax(-1) @ value).transpose(1, 2), None


AttentionInterface.register("double", attention_in_double)
SHARED = {
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "num_hidden_layers": DEPTH,
    "num_blocks": BLOCKS,
    "num_queries": QUERIES,
    "num_labels": CLASSES,
    "image_size": SIZE,
    "num_register_tokens": REGISTERS,
    "attn_implementation": "double",
}


def dinov2():
    theirs = EomtForUniversalSegmentation(EomtConfig(**SHARED))
    return theirs, "vit_small_patch14_reg4_dinov2", "out_proj"


def dinov3():
    config = EomtDinov3Config(
        **SHARED,
        intermediate_size=4 * WIDTH,
        layer_norm_eps=1e-5,
        query_bias=False,
        value_bias=False,
        pos_embed_rescale=None,
    )
    return EomtDinov3ForUniversalSegmentation(config), "vit_small_patch16_dinov3", "o_proj"


def copied(theirs, model_name, out_proj):
    """Make our model with their weights, every one of which is used."""
    backbone = MODELS.build(
        dict(type="TimmViT", model_name=model_name, pretrained=False, depth=DEPTH, embed_dim=WIDTH,
             num_heads=HEADS, img_size=SIZE, open_blocks=BLOCKS)
    )  # fmt: skip
    head = EoMTHead(WIDTH, CLASSES, QUERIES)
    state = dict(theirs.state_dict())
    for i in range(DEPTH):
        own = f"layers.{i}.attention."
        for kind in ("weight", "bias"):
            parts = [state.pop(f"{own}{x}_proj.{kind}", None) for x in "qkv"]
            if parts[0] is not None:
                state[f"layers.{i}.attn.qkv.{kind}"] = torch.cat(parts)
    renamed = {
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "embeddings.patch_embeddings": "patch_embed.proj",
        "embeddings.cls_token": "cls_token",
        "embeddings.register_tokens": "reg_token",
        "embeddings.position_embeddings.weight": "pos_embed",
        f"attention.{out_proj}": "attn.proj",
        "layer_scale1.lambda1": "ls1.gamma" if "dinov2" in model_name else "gamma_1",
        "layer_scale2.lambda1": "ls2.gamma" if "dinov2" in model_name else "gamma_2",
        "mlp.up_proj": "mlp.fc1",
        "mlp.down_proj": "mlp.fc2",
        "layers.": "blocks.",
        "layernorm.": "norm.",
        "query.": "decoder.queries.",
        "upscale_block.block.": "decoder.upscale.",
        ".conv1.": ".0.",
        ".conv2.": ".2.",
        ".layernorm2d.": ".3.",
        "mask_head.fc1": "decoder.mask_mlp.0",
        "mask_head.fc2": "decoder.mask_mlp.2",
        "mask_head.fc3": "decoder.mask_mlp.4",
        "class_predictor": "decoder.class_layer",
    }
    ours = {}
    for name, value in state.items():
        for old, new in renamed.items():
            if new == "norm." and not name.startswith(old):
                continue
            name = name.replace(old, new)
        ours[name] = value[None] if name == "pos_embed" else value
    for name in ("attn_mask_probs", "criterion.empty_weight", "embeddings.mask_token"):
        ours.pop(name, None)
    in_head = {k: ours.pop(k) for k in list(ours) if k.startswith("decoder.")}
    head.load_state_dict(in_head)
    backbone.vit.load_state_dict(ours)
    return backbone, head


def randomise(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = "norm" in name or "lambda" in name
            parameter.copy_((1 if scale and name.endswith(("weight", "1")) else 0) + 0.2 * noise)


def predictions_of(theirs, images):
    """Every prediction of their forward, which returns the last one only."""
    found = []
    predict = theirs.predict
    theirs.predict = lambda x: found.append(predict(x)) or found[-1]
    theirs(images)
    return [torch.stack(logits) for logits in zip(*found, strict=True)][::-1]


def assert_close(actual, expected, bound):
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.shape == theirs.shape
        error = (ours - theirs).abs().max() / theirs.abs().max()
        assert error < bound, error.item()


# Both compute DINOv3's rotary embedding in float32.
@pytest.mark.parametrize("probabilities", [None, (1, 1), (0.5, 1), (0, 0.4), (0, 0)])
@pytest.mark.parametrize(("model", "bound"), [(dinov2, 1e-13), (dinov3, 1e-7)])
@torch.no_grad()
def test_every_prediction_is_theirs(model, bound, probabilities):
    theirs, *names = model()
    randomise(theirs)
    theirs = theirs.double()
    backbone, head = (part.double() for part in copied(theirs, *names))
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).double()
    if probabilities is None:  # as published: no mask in evaluation
        theirs.attn_mask_probs.zero_()
        assert_close(head(backbone(images)), predictions_of(theirs.eval(), images), bound)
        return
    theirs.attn_mask_probs.copy_(torch.tensor(probabilities))
    masked = []
    torch.manual_seed(2)  # they draw for each block that is annealed
    for p in theirs.attn_mask_probs:
        draws = torch.rand(len(images), QUERIES) if p < 1 else torch.zeros(len(images), QUERIES)
        masked.append(draws <= p)
    torch.manual_seed(2)
    expected = predictions_of(theirs.train(), images)
    blocks = backbone.train()(images)[0]
    actual = head.decoder(blocks, torch.stack(masked), every_block=True)
    assert len(actual[0]) == BLOCKS + 1
    assert_close(actual, expected, bound)
    if probabilities == (1, 1):
        inside = torch.nn.functional.interpolate(expected[1][0], (4, 4), mode="bilinear") > 0
        assert 0.01 < inside.double().mean() < 0.99
        unmasked = head.decoder(blocks, every_block=True)
        assert (unmasked[1][-1] - actual[1][-1]).abs().max() > 1e-3 * actual[1][-1].abs().max()


@pytest.mark.parametrize(
    ("arch", "width", "depth", "blocks"),
    [("small", 384, 12, 3), ("base", 768, 12, 3), ("large", 1024, 24, 4)],
)
def test_at_full_size_it_has_as_many_parameters(arch, width, depth, blocks):
    config = EomtConfig(
        hidden_size=width,
        num_attention_heads=width // 64,
        num_hidden_layers=depth,
        num_blocks=blocks,
        num_queries=100,
        num_labels=150,
        image_size=512,
    )
    cfg = dict(
        type="VFMEncoderDecoder",
        backbone=dict(type="DINOv2Reg", arch=arch, img_size=512, pretrained=False),
        decode_head=dict(type="EoMTHead", num_classes=150),
    )
    with torch.device("meta"):
        theirs, ours = EomtForUniversalSegmentation(config), MODELS.build(cfg)
    assert ours.backbone.open_blocks == blocks
    counts = [sum(p.numel() for p in model.parameters()) for model in (theirs, ours)]
    assert counts[0] == counts[1]
