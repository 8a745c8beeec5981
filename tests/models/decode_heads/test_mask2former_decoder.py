"""The decoder against transformers' Mask2Former, given three equal feature levels."""

import math

import pytest
import torch

from vfm_ss.models.decode_heads.mask2former_decoder import (
    SingleScaleMask2FormerDecoder,
    sine_position_embedding,
)

modeling = pytest.importorskip("transformers.models.mask2former.modeling_mask2former")
from transformers import Mask2FormerConfig

SMALL = {"channels": 16, "num_queries": 7, "num_layers": 4, "num_heads": 4}


def make_decoder(seed=0, in_channels=12, num_classes=5, **kwargs):
    torch.manual_seed(seed)
    return SingleScaleMask2FormerDecoder(
        in_channels, num_classes, feedforward_channels=32, **{**SMALL, **kwargs}
    )


def transformers_decoder(decoder):
    """Build transformers' decoder with the weights of ours."""
    channels = decoder.input_proj.out_features
    config = Mask2FormerConfig(
        hidden_dim=channels,
        mask_feature_size=channels,
        num_attention_heads=decoder.layers[0].cross_attn.num_heads,
        dim_feedforward=decoder.layers[0].ffn[0].out_features,
        decoder_layers=len(decoder.layers) + 1,
        dropout=0.0,
    )
    other = modeling.Mask2FormerMaskedAttentionDecoder(config).double().eval()
    pairs = {"layernorm": decoder.norm}
    for i in range(3):
        pairs[f"mask_predictor.mask_embedder.{i}.0"] = decoder.mask_mlp[2 * i]
    for i, layer in enumerate(decoder.layers):
        for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "out")):
            pairs[f"layers.{i}.self_attn.{theirs}_proj"] = getattr(layer.self_attn, ours)
        pairs[f"layers.{i}.cross_attn.out_proj"] = layer.cross_attn.out
        pairs[f"layers.{i}.cross_attn_layer_norm"] = layer.cross_attn_norm
        pairs[f"layers.{i}.self_attn_layer_norm"] = layer.self_attn_norm
        pairs[f"layers.{i}.final_layer_norm"] = layer.ffn_norm
        pairs[f"layers.{i}.fc1"] = layer.ffn[0]
        pairs[f"layers.{i}.fc2"] = layer.ffn[2]
    state = {f"{name}.{key}": v for name, m in pairs.items() for key, v in m.state_dict().items()}
    for i, layer in enumerate(decoder.layers):
        projections = layer.cross_attn.query, layer.cross_attn.key, layer.cross_attn.value
        state[f"layers.{i}.cross_attn.in_proj_weight"] = torch.cat([p.weight for p in projections])
        state[f"layers.{i}.cross_attn.in_proj_bias"] = torch.cat([p.bias for p in projections])
    other.load_state_dict(state)
    return other


def transformers_predictions(decoder, features):
    """Run transformers' decoder as a single-scale one: the same features at every level."""
    batch, _, height, width = features.shape
    tokens = decoder.input_proj(features.flatten(2).transpose(1, 2))
    grid = tokens.transpose(1, 2).unflatten(-1, (height, width))
    embed = modeling.Mask2FormerSinePositionEmbedding(tokens.shape[-1] // 2, normalize=True)
    pos = embed(grid.shape, grid.device, grid.dtype).flatten(2).permute(2, 0, 1)
    repeat = lambda embedding: embedding.weight[:, None].expand(-1, batch, -1)  # noqa: E731
    out = transformers_decoder(decoder)(
        inputs_embeds=repeat(decoder.queries),
        multi_stage_positional_embeddings=[pos] * 3,
        pixel_embeddings=grid,
        encoder_hidden_states=[tokens.transpose(0, 1)] * 3,
        query_position_embeddings=repeat(decoder.query_pos),
        feature_size_list=[(height, width)] * 3,
        return_dict=True,
    )
    classes = [decoder.class_layer(x.transpose(0, 1)) for x in out.intermediate_hidden_states]
    return torch.stack(classes), torch.stack(out.masks_queries_logits)


@pytest.mark.parametrize(("height", "width", "channels"), [(5, 7, 16), (1, 3, 8), (32, 32, 256)])
def test_position_embedding_equals_transformers(height, width, channels):
    device, dtype = torch.device("cpu"), torch.float64
    ours = sine_position_embedding(height, width, channels, device, dtype)
    embed = modeling.Mask2FormerSinePositionEmbedding(channels // 2, normalize=True)
    theirs = embed(torch.Size([1, channels, height, width]), device, dtype)
    torch.testing.assert_close(ours, theirs[0].flatten(1).T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", [(4, 6), (1, 2)])
def test_predictions_equal_transformers(grid):
    decoder = make_decoder().double()
    # A constant part makes whole masks positive or negative.
    features = torch.randn(3, 12, *grid).double() + 3 * torch.randn(3, 12, 1, 1).double()
    ours = decoder(features)
    theirs = transformers_predictions(decoder, features)
    empty = (ours[1] < 0).flatten(-2).all(-1)
    assert empty.any(), "no query had an empty mask: the case is not tested"
    assert not empty.all()
    for name, a, b in zip(("class", "mask"), ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_gradients_equal_transformers():
    decoder = make_decoder(seed=1).double()
    features = torch.randn(2, 12, 3, 5, dtype=torch.float64, requires_grad=True)

    def gradients(predictions):
        torch.manual_seed(0)
        loss = sum((p * torch.randn_like(p)).sum() for p in predictions)
        weights = features, decoder.queries.weight, decoder.class_layer.weight
        return torch.autograd.grad(loss, (*weights, decoder.input_proj.weight))

    ours = gradients(decoder(features))
    theirs = gradients(transformers_predictions(decoder, features))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def test_query_looks_only_at_its_mask():
    decoder = make_decoder()
    mask_logits = torch.tensor([[[-1.0, 2.0, -3.0], [-1.0, -1.0, -1.0], [0.0, -0.0, -1.0]]])
    allowed = decoder._attention_mask(mask_logits)
    assert allowed[0].tolist() == [[False, True, False], [True, True, True], [True, True, False]]

    # A token outside the mask cannot change what the attention returns.
    attention = decoder.layers[0].cross_attn
    query, tokens = torch.randn(1, 3, 16), torch.randn(1, 3, 16)
    before = attention(query, tokens, tokens, allowed)
    tokens[:, 0] += 1
    after = attention(query, tokens, tokens, allowed)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 1:], after[:, 1:])


def test_initial_weights_are_those_of_the_authors_modules():
    layer = make_decoder(channels=64, num_layers=1).layers[0]
    reference = torch.nn.MultiheadAttention(64, 4).requires_grad_(False)
    bound = math.sqrt(6 / (4 * 64))
    for projection in (layer.cross_attn.query, layer.cross_attn.key, layer.cross_attn.value):
        assert 0.98 * bound < projection.weight.abs().max() <= bound
        assert not projection.bias.any()
    assert reference.in_proj_weight.abs().max() == pytest.approx(bound, rel=0.02)
    assert not layer.cross_attn.out.bias.any()
    assert not reference.out_proj.bias.any()
    # nn.Linear's own bound elsewhere.
    for linear in (layer.cross_attn.out, layer.self_attn.query, layer.ffn[0]):
        assert 0.98 / 8 < linear.weight.abs().max() <= 1 / 8
    assert layer.self_attn.query.bias.any()


def test_parameter_count():
    """About 14.6 M at 150 classes; with DINOv2-B's 86.6 M that is the paper's 101 M."""
    decoder = SingleScaleMask2FormerDecoder(768, 150)
    assert sum(p.numel() for p in decoder.parameters()) == 14_693_527


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stays_finite_and_close(dtype):
    decoder = make_decoder()
    features = torch.randn(2, 12, 4, 6)
    exact = decoder(features)
    with torch.autocast("cpu", dtype=dtype):
        class_logits, mask_logits = decoder(features)
        (class_logits.float().square().sum() + mask_logits.float().square().sum()).backward()
    assert class_logits.dtype == dtype
    # The first prediction precedes any attention mask, which rounding can flip.
    for a, b in zip((class_logits, mask_logits), exact, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a[0].float(), b[0], rtol=0.05, atol=0.05)
    assert all(p.grad.isfinite().all() for p in decoder.parameters())
