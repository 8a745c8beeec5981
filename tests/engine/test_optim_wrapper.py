import logging

import pytest
import torch
from mmseg.registry import OPTIM_WRAPPERS

import vfm_ss.engine.optim_wrapper as optim_wrapper_module
from vfm_ss.engine.optim_wrapper import precision_of


def build(**kwargs):
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)
    cfg = dict(type="MixedPrecisionOptimWrapper", **kwargs)
    return OPTIM_WRAPPERS.build(cfg, default_args=dict(optimizer=optimizer))


@pytest.mark.parametrize(
    ("precision", "name", "dtype"),
    [
        ("auto", "fp32", torch.float32),
        ("fp32", "fp32", torch.float32),
        ("bf16", "bf16", torch.bfloat16),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="auto is fp16 on a GPU")
def test_precision_on_a_cpu(precision, name, dtype):
    wrapper = build(precision=precision)
    model = torch.nn.Linear(2, 2)
    with wrapper.optim_context(model):
        assert model(torch.ones(1, 2)).dtype == dtype
    assert precision_of(wrapper) == name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_auto_is_scaled_fp16_on_a_gpu():
    wrapper = build()
    assert precision_of(wrapper) == "fp16"
    assert wrapper.loss_scaler.is_enabled()


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("fp8", "precision must be auto, fp32, fp16 or bf16, got 'fp8'"),
        ("fp16", "precision fp16 needs a GPU; use bf16 or fp32 on a CPU"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has fp16")
def test_a_precision_that_is_not_to_be_had_is_refused(precision, message):
    with pytest.raises(ValueError, match=message):
        build(precision=precision)


@pytest.mark.parametrize(
    ("cpuinfo", "slow"),
    [
        ("flags\t\t: fpu avx2 avx512f\n", True),
        ("flags\t\t: fpu avx512f avx512_bf16\n", False),
        ("flags\t\t: amx_tile amx_bf16\n", False),
        ("Features\t: fp asimd i8mm\n", True),
        ("Features\t: fp asimd i8mm bf16\n", False),
        ("model name\t: bf16-less, but it does not say so\n", False),
        (None, False),
    ],
)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="on a CPU")
def test_bf16_warns_on_a_cpu_without_its_instructions(
    cpuinfo, slow, precision, tmp_path, monkeypatch
):
    file = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        file.write_text(cpuinfo)
    messages = []
    monkeypatch.setattr(optim_wrapper_module, "_CPUINFO", file)
    monkeypatch.setattr(optim_wrapper_module, "print_log", lambda *args: messages.append(args))
    build(precision=precision)
    if not slow or precision == "fp32":
        assert messages == []
        return
    ((text, _, level),) = messages
    assert level == logging.WARNING
    assert "6 instead of 55 GFLOP/s a core" in text
    assert "leave out --amp or set optim_wrapper.precision=fp32" in text
    assert "\n" not in text


@pytest.mark.parametrize("parts", [1, 2])
def test_a_parameter_that_a_step_does_not_reach_is_left_alone_as_by_mmengine(parts):
    """Step by step another part of the model is used; decay and momentum show who was touched."""

    def train(kind):
        torch.manual_seed(0)
        model = torch.nn.ModuleList(torch.nn.Linear(3, 3) for _ in range(3)).double()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
        wrapper = OPTIM_WRAPPERS.build(
            dict(type=kind, accumulative_counts=parts), default_args=dict(optimizer=optimizer)
        )
        for used in ([0], [0, 1], [1], [0, 1], [0]):
            for part in range(parts):
                x = torch.full((2, 3), 1.0 + part, dtype=torch.double)
                wrapper.update_params(sum(model[i](x).square().mean() for i in used))
        return model.state_dict(), optimizer.state_dict()["state"]

    ours, theirs = train("MixedPrecisionOptimWrapper"), train("OptimWrapper")
    assert ours[1].keys() == theirs[1].keys()
    assert len(ours[1]) == 4, "the third layer is never reached"
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a CPU")
def test_gradients_keep_their_memory():
    model = torch.nn.Linear(3, 3)
    wrapper = OPTIM_WRAPPERS.build(
        dict(type="MixedPrecisionOptimWrapper"),
        default_args=dict(optimizer=torch.optim.SGD(model.parameters(), lr=0.1)),
    )
    before = [p.grad.data_ptr() for p in model.parameters()]
    for _ in range(2):
        wrapper.update_params(model(torch.ones(1, 3)).sum())
        assert [p.grad.data_ptr() for p in model.parameters()] == before
