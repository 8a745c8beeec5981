"""The last blocks of every family of ViTs, run with queries among the tokens."""

import pytest
import torch
from mmseg.registry import MODELS
from timm.models.vision_transformer_sam import get_decomposed_rel_pos_bias

from vfm_ss.models.backbones import open_blocks, timm_open_blocks

SMALL = {"depth": 4, "embed_dim": 96, "num_heads": 3, "img_size": (64, 32), "patch_size": 16}
FAMILIES = {
    "vit_base_patch14_dinov2": {},
    "vit_small_patch14_reg4_dinov2": {},
    "vit_base_patch14_reg1_tipsv2": {},
    "vit_base_patch16_siglip_224": {},
    "vit_base_patch16_clip_quickgelu_224": {},
    "aimv2_large_patch14_224": {},
    "vit_base_patch16_radio_v3": {},
    "beit3_base_patch16_224": {"global_pool": "token"},
    "beit_base_patch16_224": {},
    "deit_tiny_distilled_patch16_224": {},
    "deit3_small_patch16_224": {},
    "eva02_tiny_patch14_224": {},
    "eva02_base_patch16_clip_224": {},
    "vit_pe_core_tiny_patch16_384": {},
    "vit_small_patch16_dinov3": {},
    "vit_base_patch16_sapiens2": {"num_kv_heads": 3},
    "vit_small_patch16_rope_mixed_ape_224": {},
    # A window, padded on both sides of a grid of 4x2, then global attention.
    "sam": {"type": "SAM", "global_attn_indexes": [1, 3], "window_size": 3},
}
each_family = pytest.mark.parametrize("name", FAMILIES)


def build(name, open_blocks=2, **kwargs):
    torch.manual_seed(0)
    cfg = dict(type="TimmViT", pretrained=False, open_blocks=open_blocks)
    if name != "sam":
        cfg["model_name"] = name
    backbone = MODELS.build({**cfg, **SMALL, **FAMILIES.get(name, {}), **kwargs})
    with torch.no_grad():  # relative positions and others start at 0
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return backbone.double()


def image(batch=2):
    return torch.randn(batch, 3, 64, 32, generator=torch.Generator().manual_seed(1)).double()


def run(blocks, queries=None, visible=None):
    tokens = blocks.tokens if queries is None else torch.cat([queries, blocks.tokens], 1)
    for index in range(len(blocks)):
        tokens = blocks.run(index, tokens, visible)
    return blocks.norm(tokens)


def some_queries(blocks, count=3):
    batch, _, width = blocks.tokens.shape
    return torch.randn(batch, count, width, generator=torch.Generator().manual_seed(2)).double()


@each_family
@torch.no_grad()
def test_without_queries_the_features_are_the_plain_backbones(name):
    opened, plain = build(name), build(name, open_blocks=0)
    assert opened.state_dict().keys() == plain.state_dict().keys()
    (blocks,), (expected,) = opened(image()), plain(image())
    features = run(blocks)[:, blocks.num_prefix_tokens :]
    actual = features.transpose(1, 2).unflatten(2, blocks.grid_size)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "sam"])
@torch.no_grad()
def test_queries_that_no_one_sees_change_nothing(name, monkeypatch):
    """So every token keeps its position behind the queries."""
    (blocks,) = build(name)(image())
    queries = some_queries(blocks)
    visible = torch.ones(2, 3, 8, dtype=torch.bool)
    seen = run(blocks, queries, visible)

    def hidden(*args):
        mask = open_blocks.attention_mask(*args)
        mask[:, :, 3:, :3] = False
        return mask

    monkeypatch.setattr(timm_open_blocks, "attention_mask", hidden)
    unseen, expected = run(blocks, queries, visible)[:, 3:], run(blocks)
    torch.testing.assert_close(unseen, expected, rtol=1e-12, atol=1e-12)
    assert (seen[:, 3:] - expected).abs().max() > 1e-3


@pytest.mark.parametrize("index", [0, 1])
@torch.no_grad()
def test_sams_windows_see_the_queries_and_queries_whole_images(index):
    """Against attention a window at a time, with timm's bias of every pair."""
    backbone = build("sam")
    (blocks,) = backbone(image())
    tokens = torch.cat([some_queries(blocks), blocks.tokens], 1)
    visible = torch.rand(2, 3, 8, generator=torch.Generator().manual_seed(4)) < 0.5
    block = backbone.blocks[2 + index]
    attn, heads, side = block.attn, 3, (block.window_size, (4, 2))[index]
    height, width = (side, side) if index == 0 else side

    def split(x):
        qkv = (x @ attn.qkv.weight.T + attn.qkv.bias).view(-1, 3, heads, 32)
        return qkv.permute(1, 2, 0, 3)

    expected = []
    for image_tokens, may_see in zip(tokens, visible, strict=True):
        x = block.norm1(image_tokens)
        queries, patches = x[:3], x[3:].view(4, 2, 96)
        padded = torch.zeros(-(-4 // height) * height, -(-2 // width) * width, 96).double()
        padded[:4, :2] = patches
        out = torch.zeros_like(padded)
        for y in range(0, len(padded), height):
            for z in range(0, padded.shape[1], width):
                window = padded[y : y + height, z : z + width].reshape(-1, 96)
                q, k, v = split(torch.cat([queries, window]))
                bias = get_decomposed_rel_pos_bias(
                    q[:, 3:], attn.rel_pos_h, attn.rel_pos_w, (height, width), (height, width)
                )
                scores = q[:, 3:] @ k.transpose(1, 2) / 32**0.5
                scores[..., 3:] += bias
                attended = (scores.softmax(-1) @ v).transpose(0, 1).reshape(height, width, 96)
                out[y : y + height, z : z + width] = attended
        q, k, v = split(torch.cat([queries, patches.view(-1, 96)]))
        scores = q[:, :3] @ k.transpose(1, 2) / 32**0.5
        scores[:, :, 3:].masked_fill_(~may_see, float("-inf"))
        of_queries = (scores.softmax(-1) @ v).transpose(0, 1).reshape(3, 96)
        attended = torch.cat([of_queries, out[:4, :2].reshape(-1, 96)])
        x = image_tokens + attended @ attn.proj.weight.T + attn.proj.bias
        expected.append(x + block.mlp(block.norm2(x)))
    actual = blocks.run(index, tokens, visible)
    torch.testing.assert_close(actual, torch.stack(expected), rtol=1e-12, atol=1e-12)


@each_family
@torch.no_grad()
def test_queries_have_no_position(name):
    (blocks,) = build(name)(image())
    queries = some_queries(blocks)
    order = [2, 0, 1]
    actual, moved = run(blocks, queries), run(blocks, queries[:, order])
    torch.testing.assert_close(moved[:, :3], actual[:, order], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moved[:, 3:], actual[:, 3:], rtol=1e-12, atol=1e-12)


@each_family
@torch.no_grad()
def test_a_query_does_not_see_what_it_may_not(name):
    (blocks,) = build(name)(image())
    tokens = torch.cat([some_queries(blocks), blocks.tokens], 1)
    visible = torch.ones(2, 3, 8, dtype=torch.bool)
    visible[1, 0, 5] = False
    changed = tokens.clone()
    changed[1, -3] = -changed[1, -3]  # the patch 5 of 8
    actual = blocks.run(1, changed, visible) - blocks.run(1, tokens, visible)
    differs = actual.abs().amax(-1) > 1e-9
    assert not differs[0].any()
    assert differs[1].nonzero().flatten().tolist() == list(range(1, tokens.shape[1]))
    everywhere = blocks.run(1, tokens, torch.ones_like(visible))
    torch.testing.assert_close(everywhere, blocks.run(1, tokens), rtol=1e-12, atol=1e-12)


@each_family
def test_every_parameter_has_a_gradient_also_with_checkpointing(name):
    gradients = []
    for with_cp in (False, True):
        backbone = build(name, with_cp=with_cp).train()
        (blocks,) = backbone(image())
        visible = torch.rand(2, 3, 8, generator=torch.Generator().manual_seed(3)) < 0.5
        run(blocks, some_queries(blocks), visible).square().sum().backward()
        assert [n for n, p in backbone.named_parameters() if p.grad is None] == []
        gradients.append([p.grad for p in backbone.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["vit_base_patch14_dinov2", "eva02_tiny_patch14_224", "sam"])
def test_checkpointing_keeps_less(name):
    kept = []
    for with_cp in (False, True):
        (blocks,) = build(name, with_cp=with_cp)(image())
        saved = set()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, saved=saved: saved.add(tensor.data_ptr()) or tensor, lambda x: x
        ):
            run(blocks, some_queries(blocks))
        kept.append(len(saved))
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize("name", ["vit_base_patch14_dinov2", "vit_small_patch16_dinov3", "sam"])
@torch.no_grad()
def test_compiled_blocks_compute_the_same(name):
    plain, compiled = build(name), build(name, compile=dict(backend="eager", fullgraph=True))
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    visible = torch.rand(2, 3, 8) < 0.5
    (expected,), (actual,) = plain(image()), compiled(image())
    queries = some_queries(expected)
    expected, actual = (run(blocks, queries, visible) for blocks in (expected, actual))
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_a_frozen_backbone_hands_on_the_gradient_of_the_queries():
    backbone = build("vit_base_patch14_dinov2", frozen=True).train()
    (blocks,) = backbone(image())
    assert blocks.tokens.grad_fn is None
    queries = some_queries(blocks).requires_grad_()
    run(blocks, queries).square().sum().backward()
    assert queries.grad.abs().min() > 0
    assert not any(p.requires_grad or p.grad is not None for p in backbone.parameters())


@pytest.mark.parametrize(("depth", "expected"), [(12, 3), (24, 4)])
def test_auto_is_the_published_number(depth, expected):
    with torch.device("meta"):
        backbone = build("vit_tiny_patch16_224", "auto", depth=depth, embed_dim=24)
    assert backbone.open_blocks == expected


def test_layers_and_names_are_those_of_the_plain_backbone():
    opened, plain = build("vit_tiny_patch16_224"), build("vit_tiny_patch16_224", 0)
    for name, _ in plain.named_parameters():
        assert opened.get_layer_depth(name) == plain.get_layer_depth(name)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(open_blocks="auto"), "known for 12, 24, 40 blocks, but the ViT has 4"),
        (dict(open_blocks=4), "must be 'auto', or a number above 0 and below the 4 blocks"),
        (dict(open_blocks=-1), "must be 'auto', or a number above 0"),
        (dict(open_blocks="3"), "must be 'auto', or a number above 0"),
        (dict(open_blocks=2, out_indices=(1, 3)), "leave out out_indices"),
        (dict(name="sam", use_rel_pos=False), "needs SAM's relative positions"),
        (dict(name="samvit_base_patch16", global_attn_indexes=[3]), "takes no attention mask"),
        (
            dict(name="vit_small_patch16_dinov3", rope_rescale_coords=2.0),
            "rotary coordinates that are changed at random",
        ),
    ],
)
def test_what_cannot_be_opened_is_refused_in_one_line(kwargs, message):
    kwargs = {"name": "vit_tiny_patch16_224", **kwargs}
    with pytest.raises(ValueError, match=message) as error:
        build(**kwargs)
    assert "\n" not in str(error.value)


def test_mmpretrains_vits_are_refused_in_one_line():
    pytest.importorskip("mmpretrain")
    arch = {"embed_dims": 24, "num_layers": 12, "num_heads": 3, "feedforward_channels": 24}
    backbone = dict(type="MMPretrainViT", model="VisionTransformer", arch=arch, img_size=32)
    cfg = dict(type="VFMEncoderDecoder", decode_head=dict(type="EoMTHead", num_classes=2))
    with pytest.raises(ValueError, match="not implemented for MMPretrainViT; use a VFM") as error:
        MODELS.build({**cfg, "backbone": {**backbone, "pretrained": False}})
    assert "\n" not in str(error.value)
