"""Optimisers with as few parameter groups as there are settings."""

import inspect

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS
from torch import nn

#: How an optimiser runs; whoever states one of these has chosen.
_IMPLEMENTATIONS = ("fused", "foreach", "capturable", "differentiable")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor, with one parameter group for each combination of settings.

    The default one makes a group of every parameter where there is a ``paramwise_cfg``, so that a
    fused or foreach optimiser has one tensor in each of its calls. Here parameters with equal
    settings share a group, in the order in which the model first has them; learning rates, decay
    and logs are the same. An optimiser of torch runs its fused implementation where the device
    has one and the config states none (``fused``, ``foreach``).

    Args:
        optim_wrapper_cfg: See mmengine's ``DefaultOptimWrapperConstructor``.
        paramwise_cfg: See there.
    """

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = "", is_dcn_module=None
    ) -> None:
        """Add the parameters of a module to the groups; see mmengine's constructor."""
        super().add_params(params, module, prefix, is_dcn_module)
        if not prefix:  # the whole model: this method calls itself for every module in it
            params[:] = _merged(params)

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
