"""Low-rank adapters (LoRA, arXiv 2106.09685) beside linear layers of a ViT, by peft.

An adapted layer computes ``base_layer(x) + scale * B(A(x))``. B begins as 0, so that a model
computes at first what it computed without; only A and B are trained.
"""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from functools import partial

from torch import Tensor, nn

#: Linear layers of the attention of timm's and mmpretrain's ViTs that make queries, keys, values.
TARGETS = ("qkv", "q_proj", "k_proj", "v_proj")
# Options of peft's LoraConfig under which a model begins as it was, whatever its weights will be.
_OPTIONS = (
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "use_rslora",
    "rank_pattern", "alpha_pattern", "layers_to_transform", "layers_pattern",
)  # fmt: skip
_BASE = "base_layer."


def add_lora(vit: nn.Module, options: Mapping) -> None:
    """Put adapters beside layers of a model, and let nothing else of it be trained.

    Args:
        vit: The model, changed in place.
        options: Of peft's ``LoraConfig``: ``r`` and ``target_modules`` (names of layers, by
            default ``TARGETS``) first of all.

    Raises:
        ImportError: If peft is not installed.
        ValueError: If there is no such option, or no such layer.
    """
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise ValueError(f"lora has no {', '.join(unknown)}; it takes {', '.join(_OPTIONS)}")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError(
            f"lora needs peft ({error}); install it with: pip install 'vfm_ss[lora]'"
        ) from error
    options = {"target_modules": TARGETS, **options}
    if not isinstance(options["target_modules"], str):
        options["target_modules"] = list(options["target_modules"])
    try:
        inject_adapter_in_model(LoraConfig(**options), vit)
    except (TypeError, ValueError) as error:
        linear = {n.rpartition(".")[2] for n, m in vit.named_modules() if isinstance(m, nn.Linear)}
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"peft cannot adapt the backbone: {reason}; its linear layers are called "
            f"{', '.join(sorted(linear))}"
        ) from error
    for module in vit.modules():
        # timm would pass by the layer and take its weight alone, where a bias is added to it.
        if hasattr(module, "qkv_bias_separate"):
            module.qkv_bias_separate = True


def adapted_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the adapted layers of a module by their names."""
    for name, part in module.named_modules():
        if hasattr(part, "lora_A") and hasattr(part, "base_layer"):
            yield name, part


def is_of_adapter(name: str) -> bool:
    """Whether a parameter of this name is an adapter's."""
    return ".lora_" in name


def rename_base(state_dict: MutableMapping[str, Tensor], layers: Iterable[str]) -> None:
    """Name weights of a model without adapters as the model with adapters does, in place.

    Args:
        state_dict: Weights by name.
        layers: Names of the adapted layers in it.
    """
    for layer in layers:
        for name in ("weight", "bias"):
            if f"{layer}.{name}" in state_dict:
                state_dict[f"{layer}.{_BASE}{name}"] = state_dict.pop(f"{layer}.{name}")


def merge_lora(model: nn.Module) -> int:
    """Add the adapters to the weights beside them, and remove them.

    Names of weights are then those of a model without. Results are the same up to rounding.

    Args:
        model: A model, changed in place.

    Returns:
        How many layers were merged.
    """
    found = list(adapted_layers(model))
    for name, layer in found:
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    for module in model.modules():
        if hasattr(module, "lora"):
            module.lora = None
    return len(found)


class CallCheck:
    """Finds adapters that have no effect: a model may take a layer's weight without calling it.

    Args:
        vit: The model with adapters.
    """

    def __init__(self, vit: nn.Module):
        self._silent = dict(adapted_layers(vit))
        self._hooks = [
            layer.register_forward_pre_hook(partial(self._hear, name))
            for name, layer in self._silent.items()
        ]
        self._passes = 0

    def __reduce__(self):
        # torch's handles of hooks cannot be copied: a copied model (EMA's) is not checked again.
        return CallCheck, (nn.Module(),)

    def _hear(self, name: str, *_) -> None:
        self._silent.pop(name, None)

    def before_pass(self) -> bool:
        """Count a forward pass of training that begins; return whether the check is over.

        Raises:
            ValueError: At the second one, if a layer was not called in the first.
        """
        self._passes += 1
        if self._passes == 1:
            return False
        if self._silent:
            raise ValueError(
                f"lora has no effect on {next(iter(self._silent))} ({len(self._silent)} layers): "
                "the model takes the weight of the layer without calling it; choose other "
                "lora.target_modules"
            )
        for hook in self._hooks:
            hook.remove()
        return True
