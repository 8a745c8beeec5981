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
        ("mixed", "bf16", torch.bfloat16),
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
