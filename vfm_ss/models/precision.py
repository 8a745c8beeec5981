"""Precisions by name, and what the automatic ones are on a device."""

import torch

#: What autocast computes in; fp32 needs none.
AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}


def resolve_precision(name: str, device: str, option: str = "precision") -> str:
    """Return the precision that a name means on a device.

    Args:
        name: ``'fp32'``, ``'fp16'``, ``'bf16'``; ``'auto'``, fp16 on a GPU as the authors train,
            fp32 on a CPU; or ``'mixed'``, fp16 on a GPU, bf16 on a CPU.
        device: Type of the device, ``'cpu'``, ``'cuda'``, ...
        option: Name of the option, for the error.

    Returns:
        ``'fp32'``, ``'fp16'`` or ``'bf16'``.

    Raises:
        ValueError: If the name is unknown.
    """
    if name in ("auto", "mixed"):
        return "fp16" if device != "cpu" else {"auto": "fp32", "mixed": "bf16"}[name]
    if name != "fp32" and name not in AUTOCAST:
        raise ValueError(f"{option} must be auto, fp32, fp16 or bf16, got {name!r}")
    return name
