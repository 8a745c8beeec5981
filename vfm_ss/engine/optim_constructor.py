"""Optimisers with as few parameter groups as there are settings, and layer-wise decay."""

import inspect

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmseg.engine.optimizers import (
    LayerDecayOptimizerConstructor,
    LearningRateDecayOptimizerConstructor,
)
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS
from torch import nn

from vfm_ss.models.backbones.plain_vit import PlainViT

#: Arguments that choose an implementation of the optimiser; a stated one is respected.
_IMPLEMENTATIONS = ("fused", "foreach", "capturable", "differentiable")
#: What paramwise_cfg may hold: mmengine's keys and ours. mmengine ignores any other.
_PARAMWISE = (
    "custom_keys", "bias_lr_mult", "bias_decay_mult", "norm_decay_mult", "flat_decay_mult",
    "dwconv_decay_mult", "dcn_offset_lr_mult", "bypass_duplicate", "layer_decay",
)  # fmt: skip
_MMENGINES = ("DefaultOptimWrapperConstructor", DefaultOptimWrapperConstructor)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor, with one parameter group for each combination of settings.

    With a ``paramwise_cfg`` the default one makes a group of every parameter, so that a fused or
    foreach optimiser has one tensor in each of its calls. Here parameters with equal
    settings share a group, in the order in which the model first has them; learning rates, decay
    and logs are the same. An optimiser of torch runs its fused implementation where the device
    has one and the config states none (``fused``, ``foreach``).

    ``paramwise_cfg=dict(layer_decay=0.65)`` multiplies the learning rate of a parameter by
    ``layer_decay ** (number of layers behind its own)``, on top of all other settings: 1 for the
    head, ``layer_decay`` for the last block, as timm's ``param_groups_layer_decay``. The backbone
    says the layers (``get_layer_depth``, as in mmpretrain).

    Args:
        optim_wrapper_cfg: See mmengine's ``DefaultOptimWrapperConstructor``.
        paramwise_cfg: See there; ``layer_decay`` in (0, 1] beside it.

    Raises:
        ValueError: On a key that is not known, or where ``layer_decay`` would do nothing.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        unknown = [key for key in self.paramwise_cfg if key not in _PARAMWISE]
        if unknown:
            raise ValueError(
                f"paramwise_cfg has no {', '.join(unknown)}; it takes {', '.join(_PARAMWISE)}"
            )
        decay = self.paramwise_cfg.get("layer_decay")
        self.layer_decay = 1.0 if decay is None else decay
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"paramwise_cfg.layer_decay must be in (0, 1], got {decay}")
        if self.layer_decay < 1 and self.base_lr is None:
            raise ValueError("paramwise_cfg.layer_decay needs a learning rate: set optimizer.lr")

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = "", is_dcn_module=None
    ) -> None:
        """Add the parameters of a module to the groups; see mmengine's constructor."""
        super().add_params(params, module, prefix, is_dcn_module)
        if not prefix:  # the whole model: this method calls itself for every module in it
            if self.layer_decay < 1:
                self._decay_layers(params, module)
            params[:] = _merged(params)

    def _decay_layers(self, groups: list[dict], model: nn.Module) -> None:
        """Scale the learning rates of groups of one parameter each."""
        backbone = getattr(model, "backbone", None)
        if not hasattr(backbone, "get_layer_depth"):
            raise ValueError(
                "paramwise_cfg.layer_decay needs a backbone that says which layer a parameter is "
                f"in (get_layer_depth); {type(backbone).__name__} does not"
            )
        names = {parameter: name for name, parameter in model.named_parameters()}
        behind = []
        for group in groups:
            layer, layers = backbone.get_layer_depth(names[group["params"][0]], "backbone.")
            behind.append(layers - 1 - layer)
            group["lr"] = group.get("lr", self.base_lr) * self.layer_decay ** behind[-1]
        if not any(behind):
            raise ValueError("paramwise_cfg.layer_decay does nothing: the backbone is frozen")

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Make the optimiser of a model and wrap it."""
        if not self._may_be_fused():
            return super().__call__(model)
        plain = self.optimizer_cfg
        try:
            self.optimizer_cfg = {**plain, "fused": True}
            return super().__call__(model)
        except RuntimeError:  # a device or type of parameter without a fused kernel
            self.optimizer_cfg = plain
            return super().__call__(model)
        finally:
            self.optimizer_cfg = plain

    def _may_be_fused(self) -> bool:
        if any(self.optimizer_cfg.get(name) is not None for name in _IMPLEMENTATIONS):
            return False
        optimizer = self.optimizer_cfg["type"]
        if isinstance(optimizer, str):
            with OPTIMIZERS.switch_scope_and_registry(None) as registry:
                optimizer = registry.get(optimizer)
        return optimizer is not None and "fused" in inspect.signature(optimizer).parameters


def check_optim_settings(wrapper: dict | OptimWrapper) -> None:
    """Refuse what would train nothing, or at other rates than it says, without a word.

    Args:
        wrapper: Config of the optimiser's wrapper; one that is built is not looked at.

    Raises:
        ValueError: If gradients are clipped to 0, or mmengine's constructor would ignore
            ``layer_decay``.
    """
    if not isinstance(wrapper, dict):
        return
    clip = wrapper.get("clip_grad") or {}
    for key in ("max_norm", "clip_value"):
        if clip.get(key) == 0:
            raise ValueError(
                f"optim_wrapper.clip_grad.{key}=0 makes every gradient 0, so nothing would be "
                "learnt; set clip_grad=None, which does not clip"
            )
    default = wrapper.get("constructor") in (None, *_MMENGINES)
    if default and "layer_decay" in (wrapper.get("paramwise_cfg") or {}):
        raise ValueError(
            "mmengine's constructor ignores paramwise_cfg.layer_decay; set "
            "optim_wrapper.constructor='GroupedOptimWrapperConstructor'"
        )


class _NotForPlainViTs:
    """A constructor that knows layers by names which backbones of this package do not have."""

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Refuse a model with one of them; see the base class otherwise."""
        backbone = getattr(module, "backbone", None)
        if isinstance(backbone, PlainViT):
            raise ValueError(
                f"mmseg's constructor of layer-wise decay does not know the layers of "
                f"{type(backbone).__name__}; use constructor='GroupedOptimWrapperConstructor' with "
                "paramwise_cfg=dict(layer_decay=...)"
            )
        super().add_params(params, module, **kwargs)


for _theirs in (LayerDecayOptimizerConstructor, LearningRateDecayOptimizerConstructor):
    OPTIM_WRAPPER_CONSTRUCTORS.register_module(
        name=_theirs.__name__,
        module=type(_theirs.__name__, (_NotForPlainViTs, _theirs), {}),
        force=True,
    )


def _merged(groups: list[dict]) -> list[dict]:
    """Join groups whose settings are equal."""
    merged: list[dict] = []
    for group in groups:
        settings = {key: value for key, value in group.items() if key != "params"}
        for known in merged:
            if {key: value for key, value in known.items() if key != "params"} == settings:
                known["params"].extend(group["params"])
                break
        else:
            merged.append({"params": list(group["params"]), **settings})
    return merged
