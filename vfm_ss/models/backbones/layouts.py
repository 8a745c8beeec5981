"""Layouts of checkpoints that timm does not read: wrapped backbones, Hugging Face transformers.

Nothing here drops a weight of the backbone: what is left out is named by its top-level module.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# Modules that hold the backbone in checkpoints of training code and of transformers.
_WRAPPERS = ("module", "_orig_mod", "model", "state_dict", "teacher", "student", "backbone", "vit")
_WRAPPERS += (
    "vision_model",
    "vision_encoder",
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "beit",
    "aimv2",
)
# What stands next to a wrapper and is no part of the backbone: heads, other towers, the other
# network of a self-supervised pair.
_OUTSIDE = {"teacher", "student", "head", "neck", "fc", "classifier", "decode_head", "pooler"}
_OUTSIDE |= {
    "auxiliary_head",
    "data_preprocessor",
    "dino_head",
    "ibot_head",
    "dino_loss",
    "decoder",
}
_OUTSIDE |= {"text_model", "text_projection", "visual_projection", "logit_scale", "logit_bias"}
_OUTSIDE |= {"mask_decoder", "prompt_encoder", "shared_image_embedding"}
_OUTSIDE |= {"lm_head", "koleo_loss", "ibot_patch_loss", "criterion", "projector", "predictor"}


def unwrap(state_dict: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Take the backbone out of a checkpoint that holds more, or holds it under a prefix.

    A prefix (``module.``, ``backbone.``, ``teacher.backbone.``, ``vision_model.``, ...) is taken
    off while everything else is known to be no part of the backbone. Of a teacher and its student
    the teacher is taken.

    Returns:
        The weights without the prefix, and what was done, for the log; empty if nothing was.
    """
    prefix, outside = "", set()
    while True:
        modules = {name.split(".", 1)[0] for name in state_dict}
        wrapper = next((name for name in _WRAPPERS if name in modules), None)
        if wrapper is None or not modules - {wrapper} <= _OUTSIDE:
            break
        inner = f"{wrapper}."
        if any(not name.startswith(inner) for name in state_dict if name.startswith(wrapper)):
            break
        outside |= {prefix + module for module in modules - {wrapper}}
        prefix += inner
        state_dict = {
            name.removeprefix(inner): value
            for name, value in state_dict.items()
            if name.startswith(inner)
        }
    if not prefix:
        return state_dict, ""
    left = f", left out {', '.join(sorted(outside))}" if outside else ""
    return state_dict, f"took the weights below {prefix}{left}"


# transformers' names of the parts of a block, of its embeddings and of its final norm. The names in
# files differ from those in memory since transformers 5; both are here.
_BLOCK = re.compile(r"(?:encoder\.|model\.)?layers?\.(\d+)\.(.+)")
_IN_BLOCK = (
    (r"attention\.attention\.relative_position_bias\.", "attn."),
    (r"(?:self_attn|attention\.attention|attention)\.(?:q_proj|query)\.", "attn.q."),
    (r"(?:self_attn|attention\.attention|attention)\.(?:k_proj|key)\.", "attn.k."),
    (r"(?:self_attn|attention\.attention|attention)\.(?:v_proj|value)\.", "attn.v."),
    (r"(?:self_attn\.out_proj|attention\.(?:o_proj|out_proj|output\.dense))\.", "attn.proj."),
    (r"attn\.(qkv|proj|rel_pos_[hw])", r"attn.\1"),  # SAM
    (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
    (r"lambda_([12])", r"gamma_\1"),
    (r"(?:layer_norm|rms_norm|norm)([12])\.", r"norm\1."),
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"(?:mlp\.(?:fc1|lin1)|intermediate\.dense)\.", "mlp.fc1."),
    (r"(?:mlp\.(?:fc2|lin2)|output\.dense|(?:mlp|ffn)\.down_proj)\.", "mlp.fc2."),
    (r"(?:mlp|ffn)\.gate_proj\.", "mlp.fc1_g."),
    (r"(?:mlp|ffn)\.up_proj\.", "mlp.fc1_x."),
)
_AROUND = {
    "embeddings.cls_token": "cls_token",
    "embeddings.class_embedding": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.position_embedding.weight": "pos_embed",
    "pos_embed": "pos_embed",
    "embeddings.rms_norm.weight": "patch_embed.norm.weight",
}
_PATCH_EMBED = re.compile(
    r"(?:embeddings\.patch_embed(?:ding|dings)?|patch_embed)(?:\.projection)?\.(weight|bias)"
)
_NORMS = (("pre_layrnorm.", "norm_pre."), ("post_layernorm.", "norm."), ("layernorm.", "norm."))
_NORMS += (("pooler.layernorm.", "fc_norm."), ("rms_norm.", "norm."), ("norm.", "norm."))
_HEADS = ("head.", "pooler.dense.", "neck.")


def from_transformers(state_dict: dict[str, Tensor], vit: torch.nn.Module) -> dict[str, Tensor]:
    """Rename a checkpoint of Hugging Face transformers to names that timm reads.

    For transformers' DINOv2 (with and without registers), DINOv3, ViT and ViTMAE, BEiT, CLIP,
    SigLIP, SigLIP 2 at a fixed size, AIMv2 and SAM. Separate queries, keys and values become one
    matrix; a missing bias of the keys is zero.

    Args:
        state_dict: Without prefix, see `unwrap`. Any other layout is returned as it is.
        vit: The timm model that the weights are for.

    Raises:
        ValueError: If a weight is none of these layouts'.
    """
    if not any(name.startswith("embeddings.") for name in state_dict) and not any(
        re.match(r"layers\.0\.", name) for name in state_dict
    ):
        return state_dict
    renamed = {}
    for name, value in state_dict.items():
        if name.startswith(_HEADS):
            continue
        if name == "embeddings.register_tokens":
            # The names that each family's authors use, which timm takes from there.
            dinov2 = any(key.startswith("encoder.layer.") for key in state_dict)
            if value.shape[1]:
                renamed["register_tokens" if dinov2 else "storage_tokens"] = value
        else:
            renamed[_timm_name(name)] = value
    for name in ("cls_token", "pos_embed"):
        if name in renamed and renamed[name].ndim < 3:
            renamed[name] = renamed[name].reshape(1, -1, renamed[name].shape[-1])
    return _joined(renamed, vit)


def _timm_name(name: str) -> str:
    block = _BLOCK.fullmatch(name)
    if block:
        for pattern, replacement in _IN_BLOCK:
            inner, count = re.subn(rf"^{pattern}", replacement, block[2])
            if count:
                return f"blocks.{block[1]}.{inner}"
    elif name in _AROUND:
        return _AROUND[name]
    elif patch_embed := _PATCH_EMBED.fullmatch(name):
        return f"patch_embed.proj.{patch_embed[1]}"
    else:
        for theirs, ours in _NORMS:
            if name.startswith(theirs):
                return ours + name.removeprefix(theirs)
    raise ValueError(f"{name} is not a weight of a vision transformer in transformers' layout")


def _joined(state_dict: dict[str, Tensor], vit: torch.nn.Module) -> dict[str, Tensor]:
    """Join queries, keys and values, and name a gated or plain MLP as the model does."""
    # timm splits the bias of the DINOv3 layout itself.
    own = vit.state_dict() if "storage_tokens" not in state_dict else {}
    joined = {}
    for name, value in state_dict.items():
        part = re.fullmatch(r"(blocks\.\d+\.attn\.)([qkv])\.(weight|bias)", name)
        if part is None:
            if ".mlp.fc1_x." in name and name.replace("fc1_x", "fc1_g") not in state_dict:
                name = name.replace("fc1_x", "fc1")  # DINOv3's plain MLP calls it up_proj
            joined[name] = value
        elif f"{part[1]}qkv.{part[3]}" not in joined:
            parts = [state_dict.get(f"{part[1]}{key}.{part[3]}") for key in "qkv"]
            zeros = torch.zeros_like(value)
            query, key, values = (zeros if tensor is None else tensor for tensor in parts)
            if (
                part[3] == "bias"
                and f"{part[1]}q_bias" in own
                and "storage_tokens" not in state_dict
            ):
                joined |= {f"{part[1]}q_bias": query, f"{part[1]}v_bias": values}
            else:
                joined[f"{part[1]}qkv.{part[3]}"] = torch.cat([query, key, values])
    return joined


def refuse_dropped_biases(given: dict[str, Tensor], converted: dict[str, Tensor]) -> None:
    """Refuse weights whose attention has biases for a model without.

    timm has DINOv3's architecture with them (``..._qkvb``) and without, as those of the published
    base and large models are zero, and drops them for the latter.

    Raises:
        ValueError: If a dropped bias is not zero.
    """
    if any(name.endswith(("qkv.bias", "q_bias", "q_proj.bias")) for name in converted):
        return
    for name, value in given.items():
        if name.endswith("attn.qkv.bias") and bool(value.any()):
            raise ValueError(
                f"{name} is not zero; use the model with biases, named ..._qkvb in timm"
            )


def check_config(config: Mapping, vit: torch.nn.Module) -> None:
    """Refuse a model that computes other features from weights of the same shapes.

    Args:
        config: What transformers says of the weights, see `weight_files.config_beside`.
        vit: The timm model that they are for.

    Raises:
        ValueError: If heads or activation differ.
    """
    block = vit.blocks[0]
    heads, given = getattr(block.attn, "num_heads", None), config.get("num_attention_heads")
    if isinstance(given, int) and heads not in (None, given):
        raise ValueError(
            f"its config.json says num_attention_heads={given}, the model has {heads}; pass "
            f"num_heads={given} or choose another model"
        )
    act, given = type(getattr(block.mlp, "act", None)).__name__, config.get("hidden_act")
    plain = ("gelu", "gelu_new", "gelu_pytorch_tanh")
    if (act, given) == ("GELU", "quick_gelu") or (act == "QuickGELU" and given in plain):
        raise ValueError(
            f"its config.json says hidden_act={given!r}, the model has {act}; choose the model "
            f"with{'' if act == 'GELU' else 'out'} 'quickgelu' in timm's name"
        )
