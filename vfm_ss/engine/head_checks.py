"""Before training: what the losses of a model make of a batch, tried on small random logits."""

import copy
import warnings
from collections.abc import Iterator

import torch
from mmengine.dist import get_world_size
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from vfm_ss.compat.torch_modules import is_batch_norm

_CELLS = 16  # side of the logits and labels
_TOLERANCE = 1e-3  # of a gradient; float32 rounding is a thousand times smaller
_IGNORED = 255


def heads(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the decode and auxiliary heads of a segmentor, and their names in the config."""
    for name in ("decode_head", "auxiliary_head"):
        head = getattr(model, name, None)
        if isinstance(head, nn.ModuleList):
            yield from ((f"{name}[{i}]", part) for i, part in enumerate(head))
        elif head is not None:
            yield name, head


def check_heads(model: nn.Module) -> list[str]:
    """Find what lets the images of a micro-batch act on each other's gradients.

    The losses of each head are computed on two images together, which are labelled to different
    shares and with different classes, and on one after the other. A loss over each image, or over
    all pixels alike, gives the same gradients. A head whose losses cannot be tried in this way is
    taken to mix images, unless it has ``begin_step`` and so normalises over the effective batch.

    Args:
        model: A segmentor.

    Returns:
        One phrase for each finding; none if the micro-batch changes nothing but rounding.

    Raises:
        ValueError: If a head cannot learn: it has one class, or one channel with a loss that needs
            two, or its losses have no gradient.
    """
    found = []
    for name, head in heads(model):
        if getattr(head, "num_classes", None) == 1:
            raise ValueError(
                f"{name}.num_classes=1: with one class every prediction is right and nothing is "
                "learnt; count the background too (num_classes=2), with two output channels or "
                "with out_channels=1, a threshold and a sigmoid loss"
            )
        if hasattr(head, "loss") and not hasattr(head, "begin_step"):
            found += _try_losses(name, head)
    norms = [name for name in _batch_norms(model) if not _is_over_all(model, name)]
    if norms:
        more = f" and {len(norms) - 1} more" if len(norms) > 1 else ""
        found.append(f"batch norm ({norms[0]}{more})")
    return found


def _try_losses(name: str, head: nn.Module) -> list[str]:
    try:
        on_cpu = copy.deepcopy(head).cpu().float()
        together = _gradient(on_cpu, slice(None))
        alone = torch.cat([_gradient(on_cpu, slice(i, i + 1)) / 2 for i in (0, 1)])
    except Exception as error:  # of any kind, in code that is not ours
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        if getattr(head, "out_channels", None) == 1:
            raise ValueError(
                f"{name}.out_channels=1 does not go with its loss ({_names(head)}): use "
                f"CrossEntropyLoss with use_sigmoid=True, or PerImageCrossEntropyLoss ({reason})"
            ) from error
        return [f"{name}'s loss ({_names(head)}; not tried: {reason})"]
    if name.startswith("decode_head") and not together.any():
        raise ValueError(
            f"{name}'s loss ({_names(head)}) has no gradient for {head.num_classes} classes, so "
            "nothing would be learnt; see its weights and what it ignores"
        )
    if getattr(head, "sampler", None) is not None:  # it takes the hardest pixels of all images
        return [f"{name}'s sampler ({type(head.sampler).__name__})"]
    if (together - alone).norm() <= _TOLERANCE * together.norm():
        return []
    return [f"{name}'s loss ({_names(head)})"]


def _batch_norms(model: nn.Module) -> list[str]:
    """Return the layers that normalise by the statistics of a micro-batch in training."""
    was_training = model.training
    model.train()  # some modules keep parts of theirs in evaluation
    names = [n for n, m in model.named_modules() if is_batch_norm(m) and m.training]
    model.train(was_training)
    return names


def whole_batch_head(model: nn.Module) -> str | None:
    """Return the class of the head that has to be shown all images of a step; None without one."""
    for _, head in heads(model):
        if getattr(head, "whole_batch", False):
            return type(head).__name__
    return None


def _is_over_all(model: nn.Module, norm: str) -> bool:
    """Return whether a norm is over all images of a step, whatever the processes are."""
    owner = next((head for name, head in heads(model) if norm.startswith(f"{name}.")), None)
    # mmengine replaces SyncBatchNorm where there is one process.
    synced = get_world_size() == 1 or isinstance(model.get_submodule(norm), nn.SyncBatchNorm)
    return getattr(owner, "whole_batch", False) and synced


def _gradient(head: nn.Module, images: slice) -> Tensor:
    """Return the gradient of a head's losses for the logits of some of two images."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, head.out_channels, _CELLS, _CELLS, generator=generator)
    classes = torch.rand(2, 1, _CELLS, _CELLS, generator=generator)
    classes[0] **= 3  # the first image shows more of the first classes, and nearly all is labelled
    labels = (classes * head.num_classes).long().clamp(max=head.num_classes - 1)
    ignored = torch.rand(labels.shape, generator=generator)
    ignored = ignored < torch.tensor([0.1, 0.7]).view(2, 1, 1, 1)
    labels[ignored] = getattr(head, "ignore_index", _IGNORED)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels[images]]
    logits = logits[images].requires_grad_()
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        losses = head.loss_by_feat(logits, samples)
        # As mmengine's parse_losses; a list of values is one loss.
        total = sum(
            value.mean()
            for key, values in losses.items()
            if "loss" in key
            for value in (values if isinstance(values, (list, tuple)) else [values])
        )
        (gradient,) = torch.autograd.grad(total, logits)
    return gradient


def _names(head: nn.Module) -> str:
    losses = getattr(head, "loss_decode", head)
    losses = losses if isinstance(losses, nn.ModuleList) else [losses]
    return ", ".join(type(loss).__name__ for loss in losses)
