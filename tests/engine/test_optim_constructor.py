import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import OPTIMIZERS
from torch import nn

ADAMW = dict(type="AdamW", lr=1e-4, weight_decay=0.05)
PARAMWISE = {
    "ours": dict(custom_keys={"backbone": dict(lr_mult=0.1)}),
    "layers": dict(
        custom_keys={"backbone": dict(lr_mult=0.1), "backbone.0": dict(lr_mult=0.5, decay_mult=0)},
        norm_decay_mult=0,
        bias_lr_mult=2,
    ),
    "none": None,
}


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmseg")


def make_model():
    torch.manual_seed(0)
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 6))
    model.decode_head = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3))
    return model


def build(model, constructor, paramwise, optimizer=None):
    cfg = dict(type="OptimWrapper", optimizer=dict(optimizer or ADAMW), constructor=constructor)
    if paramwise:
        cfg["paramwise_cfg"] = copy.deepcopy(paramwise)
    return build_optim_wrapper(model, cfg)


def settings(model, wrapper):
    """Learning rate and decay of each parameter by name."""
    groups = {p: group for group in wrapper.optimizer.param_groups for p in group["params"]}
    return {
        name: (groups[p]["lr"], groups[p]["weight_decay"]) for name, p in model.named_parameters()
    }


def train(model, wrapper, steps=20):
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        x = torch.randn(8, 6, generator=generator)
        loss = model.decode_head(model.backbone(x)).square().mean()
        wrapper.update_params(loss)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("paramwise", PARAMWISE.values(), ids=PARAMWISE.keys())
def test_settings_and_training_equal_the_default_constructors(paramwise):
    runs = []
    for constructor in ("GroupedOptimWrapperConstructor", "DefaultOptimWrapperConstructor"):
        model = make_model()
        wrapper = build(model, constructor, paramwise)
        runs.append((settings(model, wrapper), train(model, wrapper), model.state_dict()))
    (ours, losses, state), (default, default_losses, default_state) = runs
    assert ours == default
    assert losses == pytest.approx(default_losses, rel=1e-5)
    for name, value in state.items():
        torch.testing.assert_close(value, default_state[name], rtol=1e-5, atol=1e-7)


def test_there_is_one_group_for_each_combination_of_settings():
    model = make_model()
    wrapper = build(model, "GroupedOptimWrapperConstructor", PARAMWISE["ours"])
    groups = wrapper.optimizer.param_groups
    assert [len(group["params"]) for group in groups] == [6, 4]
    assert wrapper.get_lr() == {"lr": [1e-5, 1e-4], "base_lr": [1e-4]}
    (one,) = build(model, "GroupedOptimWrapperConstructor", None).optimizer.param_groups
    assert len(one["params"]) == 10


def test_frozen_parameters_stay_out():
    model = make_model()
    model.backbone.requires_grad_(False)
    groups = build(
        model, "GroupedOptimWrapperConstructor", PARAMWISE["ours"]
    ).optimizer.param_groups
    assert [p for group in groups for p in group["params"]] == list(model.decode_head.parameters())


@pytest.mark.parametrize(
    ("optimizer", "fused"),
    [
        (ADAMW, True),
        ({**ADAMW, "fused": False}, False),
        ({**ADAMW, "foreach": True}, None),
        (dict(type="SGD", lr=0.1), True),
        (dict(type="Rprop", lr=0.1), None),  # has no fused implementation
    ],
)
def test_the_fused_implementation_is_used_unless_the_config_chooses(optimizer, fused):
    wrapper = build(make_model(), "GroupedOptimWrapperConstructor", PARAMWISE["ours"], optimizer)
    assert wrapper.optimizer.defaults.get("fused") is fused


class NoKernels(torch.optim.SGD):
    """An optimiser whose fused implementation is not for this device."""

    def __init__(self, params, lr, fused=None):
        if fused:
            raise RuntimeError("`fused=True` requires all the params to be on supported devices")
        super().__init__(params, lr)


def test_a_device_without_fused_kernels_gets_the_plain_implementation():
    OPTIMIZERS.register_module(module=NoKernels, force=True)
    optimizer = dict(type="NoKernels", lr=1.0)
    wrapper = build(make_model(), "GroupedOptimWrapperConstructor", PARAMWISE["ours"], optimizer)
    assert wrapper.get_lr()["lr"] == [0.1, 1.0]


def test_training_goes_on_alike_from_a_saved_state():
    model = make_model()
    wrapper = build(model, "GroupedOptimWrapperConstructor", PARAMWISE["ours"])
    train(model, wrapper)
    saved = copy.deepcopy((model.state_dict(), wrapper.state_dict()))
    expected = train(model, wrapper)
    other = make_model()
    resumed = build(other, "GroupedOptimWrapperConstructor", PARAMWISE["ours"])
    other.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    assert train(other, resumed) == expected
