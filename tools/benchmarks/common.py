"""What the benchmark scripts share."""

import argparse
import statistics
from pathlib import Path

import mmseg
import timm
import torch
from torch import Tensor

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def make_parser(doc: str) -> argparse.ArgumentParser:
    """Make a parser whose help is a script's docstring, with the option ``--threads``."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    return parser


def device_name() -> str:
    """Name the GPU, or the CPU with the number of threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'CPU'}, {torch.get_num_threads()} thread(s)"


def versions() -> str:
    """Name the versions that a number depends on."""
    return f"torch {torch.__version__}, timm {timm.__version__}, mmseg {mmseg.__version__}"


def spread(values: list[float], digits: int = 2) -> str:
    """Format the median with the smallest and largest value."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def rectangles(classes: Tensor, height: int, width: int) -> Tensor:
    """Draw a ``(1, height, width)`` label of 8x8 rectangles, a twentieth of its pixels ignored.

    Args:
        classes: Up to 64 classes, all of which the rectangles show.
        height: A multiple of 8.
        width: A multiple of 8.
    """
    cells = classes[torch.randint(len(classes), (8, 8))]
    cells.view(-1)[: len(classes)] = classes
    label = cells.repeat_interleave(height // 8, 0).repeat_interleave(width // 8, 1)
    label[: height // 20] = 255
    return label[None]
