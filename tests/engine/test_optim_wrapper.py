import pytest
import torch
from mmseg.registry import OPTIM_WRAPPERS

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
