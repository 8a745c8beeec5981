"""``micro_batch='auto'``: the largest micro-batch that fits, found once before training."""

import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dist import all_reduce
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import nn

#: Share of the memory that may be used; the rest is for fragmentation and larger targets.
MEMORY_SHARE = 0.9
#: Pixels of a micro-batch on a CPU: one image of 512x512. More of them are no faster there, and
#: fewer make the many small operations of a small network or image more expensive than its work.
CPU_PIXELS = 512 * 512


def choose_micro_batch(runner, share: int) -> int:
    """Choose the micro-batch of a run.

    On a GPU, forward and backward passes on the first training image, repeated, show how much
    memory 1, 2, 4, ... images take. It stops before the next size is expected not to fit and at an
    out-of-memory error. All processes choose the same. On a CPU, as many images as make
    `CPU_PIXELS`. Weights, buffers, random states and the order of the data stay as they were.

    Args:
        runner: The runner, ready to train.
        share: Images of this process in each optimiser step.

    Returns:
        A number of images that divides `share`.

    Raises:
        RuntimeError: If one image does not fit.
    """
    candidates = [n for n in range(1, share + 1) if share % n == 0 and n & (n - 1) == 0]
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    with _random_state_kept():
        data = _first_sample(runner.train_dataloader)
        device = next(model.parameters()).device
        if device.type != "cuda":
            pixels = data["inputs"][0].shape[-1] * data["inputs"][0].shape[-2]
            fits = [n for n in candidates if n * pixels <= CPU_PIXELS]
            chosen = max(fits, default=1)
            reason = f"images of {pixels} pixels on a CPU"
        else:
            trial = Trial(model, runner.optim_wrapper, data, device)
            chosen, reason = largest_that_fits(candidates, trial, trial.budget())
            trial.clean_up()
    print_log(f"micro_batch='auto' is {chosen} of {share} images per process: {reason}", "current")
    return chosen


def largest_that_fits(candidates: list[int], peak_of, budget: int) -> tuple[int, str]:
    """Return the largest candidate whose memory stays within the budget, and why.

    Args:
        candidates: Numbers of images, ascending.
        peak_of: Function of a number of images: the peak memory in bytes. It may raise torch's
            out-of-memory error.
        budget: Bytes that may be used.

    Raises:
        RuntimeError: If not even the first one fits.
    """
    peaks: dict[int, int] = {}
    for images in candidates:
        if len(peaks) > 1:  # memory grows linearly with the images
            (n1, m1), (n2, m2) = list(peaks.items())[-2:]
            expected = m2 + (m2 - m1) / (n2 - n1) * (images - n2)
            if not _all_agree(expected <= budget):
                break
        try:
            peak = peak_of(images)
        except torch.cuda.OutOfMemoryError:
            peak = budget + 1
        if not _all_agree(peak <= budget):
            break
        peaks[images] = peak
    if not peaks:
        raise RuntimeError(
            "micro_batch='auto' found that not even one image fits into the memory that is free; "
            "use a smaller model or crop, model.backbone.with_cp=True, or another GPU"
        )
    chosen = max(peaks)
    return chosen, f"{peaks[chosen] / 2**30:.1f} GiB of the {budget / 2**30:.1f} that may be used"


def _all_agree(here: bool) -> bool:
    """Whether all processes say yes: they have to take the same steps."""
    agreed = torch.tensor(int(here), device="cuda" if torch.cuda.is_available() else "cpu")
    all_reduce(agreed, "min")
    return bool(agreed.item())


class Trial:
    """Forward and backward passes whose memory is measured; the weights stay as they are."""

    def __init__(
        self, model: nn.Module, optim_wrapper: OptimWrapper, data: dict, device: torch.device
    ):
        self.model, self.optim_wrapper, self.device = model, optim_wrapper, device
        self.data = data
        self.buffers = {name: value.clone() for name, value in model.named_buffers()}

    def budget(self) -> int:
        """Bytes for weights, gradients and activations: without the optimiser's state to come."""
        free, _ = torch.cuda.mem_get_info(self.device)
        available = free + torch.cuda.memory_reserved(self.device)
        to_come = 0
        if not self.optim_wrapper.optimizer.state:  # two moments, as AdamW has
            to_come = sum(
                2 * p.numel() * p.element_size() for p in self.model.parameters() if p.requires_grad
            )
        return int(MEMORY_SHARE * available) - to_come

    def __call__(self, images: int) -> int:
        """Return the peak memory of two passes, the second of which has gradients to add to."""
        torch.cuda.reset_peak_memory_stats(self.device)
        try:
            for _ in range(2):
                data = {
                    key: [_copied(value[0]) for _ in range(images)]
                    for key, value in self.data.items()
                }
                with self.optim_wrapper.optim_context(self.model):
                    losses = self.model(**self.model.data_preprocessor(data, True), mode="loss")
                loss, _ = self.model.parse_losses(losses)
                loss.backward()
            return torch.cuda.max_memory_allocated(self.device)
        except torch.cuda.OutOfMemoryError:
            loss = losses = data = None
            self.release()
            raise

    def release(self) -> None:
        """Free gradients and cached blocks."""
        self.model.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()

    def clean_up(self) -> None:
        """Leave the model as it was found."""
        self.release()
        with torch.no_grad():
            for name, value in self.model.named_buffers():
                value.copy_(self.buffers[name])
        torch.cuda.reset_peak_memory_stats(self.device)


def _copied(value):
    return value.clone()  # tensors and mmengine's data elements have it


def _first_sample(dataloader) -> dict:
    """Return the first training sample as a batch of one, without touching the sampler."""
    return dataloader.collate_fn([dataloader.dataset[0]])


@contextmanager
def _random_state_kept() -> Iterator[None]:
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
