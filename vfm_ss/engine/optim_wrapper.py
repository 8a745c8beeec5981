import logging
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmseg.registry import OPTIM_WRAPPERS

from vfm_ss.models.precision import AUTOCAST, resolve_precision

_CPUINFO = Path("/proc/cpuinfo")
#: Flags of the CPUs whose matrix products in bf16 are faster than in fp32: x86, x86, ARM.
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


class _Bf16OptimWrapper(OptimWrapper):
    """Autocast to bfloat16, which needs no loss scaling, on any device."""

    cast_dtype = torch.bfloat16

    @contextmanager
    def optim_context(self, model: torch.nn.Module):
        device = get_device()
        with super().optim_context(model), torch.autocast(device, self.cast_dtype):
            yield


@OPTIM_WRAPPERS.register_module()
def MixedPrecisionOptimWrapper(precision: str = "auto", **kwargs) -> OptimWrapper:  # noqa: N802
    """Make mmengine's optimiser wrapper for a precision.

    Args:
        precision: ``'fp32'``; ``'fp16'`` with dynamic loss scaling, on a GPU; ``'bf16'``; or
            ``'auto'``, fp16 on a GPU as the authors train, fp32 on a CPU; ``'mixed'``, bf16 there.
        **kwargs: See mmengine's ``OptimWrapper``.

    Raises:
        ValueError: If the precision is unknown or the device does not have it.
    """
    on_cpu = get_device() == "cpu"
    precision = resolve_precision(precision, get_device())
    if precision == "fp32":
        return OptimWrapper(**kwargs)
    if precision == "bf16":
        if on_cpu and _lacks_bf16():
            print_log(
                "bf16 is slower than fp32 on this CPU, which has no bf16 instructions (measured on "
                "such a CPU: 6 instead of 55 GFLOP/s a core, docs/benchmarks.md); leave out --amp "
                "or set optim_wrapper.precision=fp32",
                "current",
                logging.WARNING,
            )
        return _Bf16OptimWrapper(**kwargs)
    if on_cpu:
        raise ValueError("precision fp16 needs a GPU; use bf16 or fp32 on a CPU")
    return AmpOptimWrapper(dtype="float16", **kwargs)


def _lacks_bf16() -> bool:
    """Return whether the CPU says that it has no bf16 instructions; False if it says nothing."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:  # not Linux
        return False
    # "flags" on x86, "Features" on ARM
    flags = {
        flag
        for line in lines
        if line.startswith(("flags", "Features"))
        for flag in line.partition(":")[2].split()
    }
    return bool(flags) and not flags & _BF16_FLAGS


def precision_of(optim_wrapper: OptimWrapper) -> str:
    """Name the precision of a wrapper as in records: ``'fp32'``, ``'fp16'`` or ``'bf16'``."""
    dtype = getattr(optim_wrapper, "cast_dtype", torch.float32)
    if dtype is None:  # mmengine's AmpOptimWrapper: autocast's own default
        dtype = torch.get_autocast_dtype(get_device())
    names = {value: key for key, value in AUTOCAST.items()}
    return names.get(dtype, "fp32")
