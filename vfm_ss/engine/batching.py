"""The effective batch: micro-batch x accumulation x GPUs, always 16 in the benchmark."""


def per_rank_batch(effective_batch: int, world_size: int) -> int:
    """Return how many images each process trains on per optimiser step.

    Raises:
        ValueError: If the effective batch cannot be shared equally; says which numbers work.
    """
    if effective_batch % world_size:
        fits = [n for n in range(1, effective_batch + 1) if effective_batch % n == 0]
        raise ValueError(
            f"an effective batch of {effective_batch} images cannot be shared by {world_size} "
            f"processes; use one of {fits} processes"
        )
    return effective_batch // world_size


def accumulation_steps(
    effective_batch: int, micro_batch: int, world_size: int, batch_size: int
) -> int:
    """Return into how many micro-batches a process splits its share of an optimiser step.

    Args:
        effective_batch: Images per optimiser step, over all processes.
        micro_batch: Images per forward pass; a larger one than a process's share means all of it.
        world_size: Number of processes.
        batch_size: What the train dataloader of each process yields per step.

    Raises:
        ValueError: If the product is not the effective batch; says which numbers to use.
    """
    share = per_rank_batch(effective_batch, world_size)
    if batch_size != share:
        raise ValueError(
            f"train_dataloader.batch_size={batch_size} on {world_size} process(es) makes "
            f"{batch_size * world_size} images per optimiser step instead of {effective_batch}; "
            f"use train_dataloader.batch_size={share}, the share of each process (memory is "
            f"set by train_cfg.micro_batch)"
        )
    if not isinstance(micro_batch, int):
        raise ValueError(
            f"train_cfg.micro_batch={micro_batch!r} must be 'auto' or a number of images"
        )
    micro_batch = min(micro_batch, share)
    if micro_batch < 1 or share % micro_batch:
        fits = [n for n in range(1, share + 1) if share % n == 0]
        raise ValueError(
            f"train_cfg.micro_batch={micro_batch} does not divide the {share} images per process "
            f"and optimiser step; use one of {fits}"
        )
    return share // micro_batch
