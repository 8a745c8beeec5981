"""Damages pretrained weights of a ViT on purpose: VFMs whose order is known beforehand.

    python projects/camvid/weights.py dinov2_vits14_pretrain.pth weights

writes four files: the weights as they are, with the last four and with the last eight of the twelve
blocks re-initialised, and with everything re-initialised. One architecture, one way of loading.
"""

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file

from vfm_ss.cli.call import call
from vfm_ss.models.backbones.checkpoint import read_file

#: Standard deviation of re-initialised weights, cut off at twice that: the usual one of ViTs.
STD = 0.02
SEED = 0


def reinitialised(
    state: dict[str, torch.Tensor], blocks: Iterable[int] | None
) -> dict[str, torch.Tensor]:
    """Return weights of which a part is as before any training.

    Matrices and embeddings are drawn from a truncated normal distribution, biases are 0, the
    weights of norms 1, and the factors of LayerScale 1, so that every block acts.

    Args:
        state: State dict in the layout of DINOv2's repository.
        blocks: Which blocks are re-initialised; None for everything.
    """
    generator = torch.Generator().manual_seed(SEED)
    blocks = None if blocks is None else set(blocks)
    found = {}
    for name, value in sorted(state.items()):
        block = re.match(r"blocks\.(\d+)\.", name)
        if blocks is not None and not (block and int(block[1]) in blocks):
            found[name] = value.clone()
        elif name.endswith("bias"):
            found[name] = torch.zeros_like(value)
        elif re.search(r"norm\d?\.weight$|gamma$", name):
            found[name] = torch.ones_like(value)
        else:
            drawn = torch.empty(value.shape)
            torch.nn.init.trunc_normal_(drawn, std=STD, a=-2 * STD, b=2 * STD, generator=generator)
            found[name] = drawn.to(value.dtype)
    return found


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument(
        "pretrained", help="dinov2_vits14_pretrain.pth, as DINOv2's repository offers it"
    )
    p.add_argument("folder", type=Path, help="where the four files are written")
    return p


def write(args: argparse.Namespace) -> None:
    """Write the files."""
    state = read_file(args.pretrained)
    args.folder.mkdir(parents=True, exist_ok=True)
    damages = {"dinov2-s": (), "last4": range(8, 12), "last8": range(4, 12), "random": None}
    for name, blocks in damages.items():
        file = args.folder / f"{name}.safetensors"
        save_file(reinitialised(state, blocks), file)
        print(f"wrote {file}")


if __name__ == "__main__":
    sys.exit(call(write, parser()))
