"""Cross entropy of bilinearly upsampled logits that never holds the upsampled logits.

Upsampling is linear and separable: the logits of output rows are `rows @ grid @ cols.T`, and their
gradient goes back through the transposed matrices. A tile of a few rows is interpolated, turned
into its loss and its gradient, and dropped, all while it is in the cache. The gradient is made in
the forward pass, as the loss is the end of the network: backward has only to scale it, and the
exponentials are computed once.

Shape letters: B images, K classes, h x w the logits, H x W the labels, T rows of a tile.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..bilinear import resize_matrix, supports

# Elements of a tile: in a core's share of the cache on a CPU, a few large kernels on a GPU.
CPU_TILE = 2**20
GPU_TILE = 2**24


def tiled_cross_entropy(
    logits: Tensor,
    label: Tensor,
    ignore_index: int = 255,
    align_corners: bool = False,
    class_weight: Tensor | None = None,
    all_pixels: bool = False,
) -> Tensor:
    """Compute each image's mean cross entropy at the resolution of its labels.

    The value and gradient of `F.cross_entropy(F.interpolate(logits, label.shape[1:],
    mode='bilinear'), label, class_weight)` image by image, computed in at least float32 also under
    autocast. Not twice differentiable.

    Args:
        logits: (B, K, h, w).
        label: (B, H, W) class indices; `ignore_index` marks pixels that do not count.
        ignore_index: The label that does not count.
        align_corners: As in `torch.nn.functional.interpolate`.
        class_weight: (K,) weight of the pixels of each class in the mean; None weighs all alike.
        all_pixels: Divide by all pixels of an image, not by those that count; without class_weight.

    Returns:
        (B,) means over the valid pixels of each image, 0 for an image without any weight.

    Raises:
        ValueError: If logits and labels are of different batches.
    """
    if logits.ndim != 4 or label.ndim != 3 or len(logits) != len(label):
        raise ValueError(
            "the loss needs logits (B, K, h, w) and labels (B, H, W) of the same images, got "
            f"{tuple(logits.shape)} and {tuple(label.shape)}"
        )
    with_grad = torch.is_grad_enabled() and logits.requires_grad
    return _TiledCrossEntropy.apply(
        logits, label, ignore_index, align_corners, class_weight, all_pixels, with_grad
    )


class _TiledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, logits, label, ignore_index, align_corners, class_weight, all_pixels, with_grad
    ):
        ctx.dtype = logits.dtype
        dtype = torch.promote_types(logits.dtype, torch.float32)
        gradient = torch.empty_like(logits, dtype=dtype) if with_grad else None
        losses = []
        with torch.autocast(logits.device.type, enabled=False):
            for image in range(len(logits)):
                grid = logits[image].to(dtype).permute(1, 2, 0).contiguous()
                loss, grid_gradient = _image_loss(
                    grid,
                    label[image],
                    ignore_index,
                    align_corners,
                    class_weight,
                    all_pixels,
                    with_grad,
                )
                losses.append(loss)
                if with_grad:
                    gradient[image] = grid_gradient.permute(2, 0, 1)
        ctx.save_for_backward(gradient)
        return torch.stack(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        (gradient,) = ctx.saved_tensors
        scaled = gradient * grad_output.to(gradient.dtype)[:, None, None, None]
        return scaled.to(ctx.dtype), None, None, None, None, None, None


def nonzero(total: Tensor) -> Tensor:
    """Return what to divide by for a mean: sums of weights, and 1 for a sum of 0."""
    return torch.where(total > 0, total, 1)


def _image_loss(
    grid: Tensor,
    label: Tensor,
    ignore_index: int,
    align_corners: bool,
    class_weight: Tensor | None,
    all_pixels: bool,
    with_grad: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the mean loss of one image and its gradient.

    Args:
        grid: (h, w, K) logits.
        label: (H, W).
        ignore_index: See `tiled_cross_entropy`.
        align_corners: See `tiled_cross_entropy`.
        class_weight: See `tiled_cross_entropy`.
        all_pixels: See `tiled_cross_entropy`.
        with_grad: Whether to make the gradient.

    Returns:
        A scalar, and (h, w, K) or None.
    """
    (height, width), (cells, _, classes) = label.shape, grid.shape
    rows, cols = (
        resize_matrix(n, size, align_corners, grid.dtype, grid.device)
        for n, size in zip(grid.shape, label.shape, strict=False)
    )
    # Pixel weights of the mean; ignored pixels have weight 0 and any class.
    valid = label != ignore_index
    target = torch.where(valid, label, 0).long()
    if class_weight is None:
        total = label.numel() if all_pixels else valid.sum().clamp(min=1)
        weight = valid.to(grid.dtype) / total
    else:
        weight = class_weight.to(grid)[target] * valid
        weight = weight / nonzero(weight.sum())

    strip = torch.matmul(cols, grid).flatten(1)  # (h, W * K)
    strip_gradient = torch.zeros_like(strip) if with_grad else None
    loss = grid.new_zeros(())
    budget = GPU_TILE if grid.is_cuda else CPU_TILE
    tile_rows = min(max(budget // (width * classes), 1), height)
    for down, used in supports(cells, height, align_corners, tile_rows):
        upsample = rows[down, used]
        tile = (upsample @ strip[used]).view(-1, width, classes)
        tile_target, tile_weight = target[down, :, None], weight[down, :, None]
        tile -= tile.amax(-1, keepdim=True)
        score = tile.gather(-1, tile_target)
        total = tile.exp_().sum(-1, keepdim=True)
        loss += ((total.log() - score) * tile_weight).sum()
        if with_grad:  # softmax minus one-hot, weighted
            tile *= tile_weight / total
            tile.scatter_add_(-1, tile_target, -tile_weight)
            strip_gradient[used].addmm_(upsample.T, tile.flatten(1))
    if not with_grad:
        return loss, None
    return loss, torch.matmul(cols.T, strip_gradient.view(cells, width, classes))
