"""Speed of a trained model (``vfm-ss test --fps``)."""

import statistics
import time
from collections.abc import Callable

import torch
from mmengine.logging import print_log
from mmseg.structures import SegDataSample
from torch import nn

from vfm_ss.errors import UsageError
from vfm_ss.image_size import model_image_size
from vfm_ss.models.precision import resolve_precision

from . import run_facts as facts

#: Seconds of calls that are not counted, and of those that are; at least so many calls of each.
WARM_UP, MEASURED, CALLS = 1.0, 4.0, 5


def measure_speed(model: nn.Module, batch_size: int) -> dict:
    """Measure how fast a model turns images in memory into classes.

    The images are random ones of the size that the network takes, so that one image is one window;
    normalisation and the resizing of logits count, reading and resizing of images do not. Times are
    medians over calls after a warm-up.

    Args:
        model: A segmentor, in evaluation mode.
        batch_size: Images per call for the throughput; the latency is of one image.

    Returns:
        The record's ``speed``; the peak of memory is null on a CPU, where it cannot be told apart
        from that of the evaluation.

    Raises:
        UsageError: If the model does not say which size it takes.
    """
    size = model_image_size(model)
    if size is None:
        raise UsageError("--fps needs a backbone that states its img_size, as those of vfm_ss do")
    device = next(model.parameters()).device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times = {n: _median_seconds(_call(model, n, size), device) for n in {1, batch_size}}
    precision = resolve_precision(model.test_cfg.get("precision") or "fp32", device.type)
    return {
        "images_per_second": batch_size / times[batch_size],
        "latency_seconds": times[1],
        "peak_memory_mb": facts.peak_memory_mb() if device.type == "cuda" else None,
        "batch_size": batch_size,
        "image_size": list(size),
        "device": facts.device_name(),
        "precision": str(precision),
    }


def show_speed(speed: dict) -> None:
    """Log what `measure_speed` returns, in one line."""
    memory = speed["peak_memory_mb"]
    print_log(
        f"{speed['images_per_second']:.1f} images/s in batches of {speed['batch_size']}, "
        f"{1000 * speed['latency_seconds']:.1f} ms for one image of "
        f"{speed['image_size'][0]} x {speed['image_size'][1]} pixels, "
        + ("" if memory is None else f"{memory:.0f} MiB at most, ")
        + f"{speed['precision']}, {speed['device']}",
        logger="current",
    )


def _call(model: nn.Module, count: int, size: tuple[int, int]) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
        for _ in range(count)
    ]
    meta = {"ori_shape": size, "img_shape": size}

    def call():
        samples = [SegDataSample(metainfo=meta) for _ in images]
        with torch.no_grad():
            return model.test_step({"inputs": list(images), "data_samples": samples})

    return call


def _median_seconds(call: Callable[[], object], device: torch.device) -> float:
    def timed() -> float:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    _repeat(timed, WARM_UP)
    return statistics.median(_repeat(timed, MEASURED))


def _repeat(timed: Callable[[], float], seconds: float) -> list[float]:
    times: list[float] = []
    while len(times) < CALLS or sum(times) < seconds:
        times.append(timed())
    return times
