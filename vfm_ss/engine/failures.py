"""Explain in one line what ended a training and what to do."""

import torch

_DEAD_PROCESS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL")
_CONTINUE = "continue with --resume"


def explain(
    error: RuntimeError,
    step: int,
    micro_batch: int,
    num_processes: int,
    mixing: bool = False,
    whole_batch: str | None = None,
) -> str | None:
    """Explain an error of torch.

    Args:
        error: What was raised.
        step: Number of the optimiser step that it ended, from 1.
        micro_batch: Images per forward pass.
        num_processes: Number of processes.
        mixing: Whether the results depend on the micro-batch.
        whole_batch: Class of the head that has to be shown these images at once.

    Returns:
        One line; None where torch's own message says more.
    """
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in text:
        smaller = max((n for n in range(1, micro_batch) if micro_batch % n == 0), default=1)
        effect = (
            "keeps the effective batch but changes the results (see the log), so start again"
            if mixing
            else f"changes neither the effective batch nor the results, and {_CONTINUE}"
        )
        remedy = (
            f"use --micro-batch {smaller} (train_cfg.micro_batch={smaller}), which {effect}"
            if micro_batch > 1 and whole_batch is None
            else f"{whole_batch} needs them at once: use more processes or another device"
            if micro_batch > 1
            else "the micro-batch is 1 already: use more processes or another device"
        )
        return (
            f"out of memory in step {step} with micro-batch {micro_batch}; {remedy} ({text[:120]})"
        )
    if "DataLoader worker" in text:
        return (
            f"a data worker died before step {step} ({text[:160]}); often memory runs out: use "
            f"fewer train_dataloader.num_workers, and {_CONTINUE}"
        )
    if num_processes > 1 and any(sign in text for sign in _DEAD_PROCESS):
        return (
            f"another process of this run died in step {step}, see its last lines ({text[:120]}); "
            f"{_CONTINUE}"
        )
    return None
