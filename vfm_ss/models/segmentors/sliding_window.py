"""Sliding-window inference that never builds the whole logit map.

The logits of a window are upsampled to the window, summed and averaged over the image, and resized
to the original size: each step is linear and separable. The logits of an output pixel are therefore
`rows @ windows @ cols` with one small matrix per axis, applied tile by tile and reduced at once.

Shape letters: C classes, h x w the logits of one window, U = windows down * h,
V = windows across * w, H x W the output.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from vfm_ss.compat.mmseg_models import OpenEncoderDecoder

from ..backbones.late_weights import LATER, reading
from ..bilinear import resize_linear, span
from ..precision import AUTOCAST, resolve_precision

# Elements of one tile: a tile stays in a CPU's cache, and is one large kernel on a GPU.
CPU_TILE = 2**19
GPU_TILE = 2**26


def window_starts(length: int, window: int, stride: int | None = None) -> list[int]:
    """Place windows over one axis of an image.

    Args:
        length: Size of the image along the axis in pixels.
        window: Size of the window in pixels.
        stride: mmseg's rule, a window every `stride` pixels with the last one moved back to the
            border. None is the authors' rule, ceil(length / window) windows at even distances.

    Raises:
        ValueError: If the image is smaller than the window.
    """
    if length < window:
        raise ValueError(
            f"an image side of {length} pixels is smaller than the {window} pixel window "
            "(test_cfg.crop_size): put dict(type='ResizeToCover', size=crop_size) in test_pipeline"
        )
    if stride is not None:
        count = -(-(length - window) // stride) + 1
        return [min(k * stride, length - window) for k in range(count)]
    count = -(-length // window)
    # Whole numbers: in floats, as the authors', the last window ends a pixel short for some sizes
    # (none at crop 512 or 1024), and that pixel has no logits.
    return [k * (length - window) // max(count - 1, 1) for k in range(count)]


def strides_of(
    stride: Sequence[int] | float | None, window: tuple[int, int]
) -> tuple[int | None, int | None]:
    """Return the vertical and horizontal stride of windows in pixels.

    Args:
        stride: The two in pixels, a share of the window, or None for none.
        window: (height, width) in pixels.

    Raises:
        ValueError: If it is neither, or would leave pixels without a window.
    """
    if stride is None:
        return None, None
    pixels = stride
    if isinstance(stride, float):
        pixels = [int(stride * side) for side in window]
    good = isinstance(pixels, Sequence) and [type(value) for value in pixels] == [int, int]
    if not good or not all(0 < p <= side for p, side in zip(pixels, window, strict=True)):
        raise ValueError(
            f"test_cfg.stride={stride!r} must be two numbers of pixels up to the window's "
            f"{window[0]}x{window[1]}, or a share of it above 0.0 and up to 1.0"
        )
    return tuple(pixels)


def axis_matrix(
    starts: list[int], window: int, cells: int, length: int, size: int, align_corners: bool = False
) -> np.ndarray:
    """Map the concatenated window logits of one axis to the output pixels of that axis.

    Args:
        starts: First pixel of every window.
        window: Pixels of a window.
        cells: Logits of a window, upsampled linearly to `window` pixels.
        length: Pixels of the image the windows lie on.
        size: Pixels of the output, a linear resize of those `length` pixels.
        align_corners: As in `torch.nn.functional.interpolate`.

    Returns:
        (size, len(starts) * cells) float64 matrix whose rows sum to 1.
    """
    upsample = resize_linear(torch.eye(cells, dtype=torch.float64), window, align_corners)
    canvas = torch.zeros(len(starts), cells, length, dtype=torch.float64)
    count = torch.zeros(length, dtype=torch.float64)
    for k, start in enumerate(starts):
        canvas[k, :, start : start + window] = upsample
        count[start : start + window] += 1
    return resize_linear((canvas / count).flatten(0, 1), size, align_corners).T.numpy()


def merged_tiles(
    windows: Tensor, rows: np.ndarray, cols: np.ndarray
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield the merged logits of one image tile by tile.

    Args:
        windows: (windows down, windows across, C, h, w) logits.
        rows: (H, U) matrix of the vertical axis.
        cols: (W, V) matrix of the horizontal axis.

    Yields:
        The tile's rows, its columns, and its logits (tile rows, tile columns, C).
    """
    classes = windows.shape[2]
    grid = windows.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)  # (U, V, C)
    if grid.dtype in (torch.float16, torch.bfloat16):
        grid = grid.float()
    grid = grid.contiguous()
    # Non-zeros of neighbouring windows are neighbours.
    supports = [matrix != 0 for matrix in (rows, cols)]
    rows, cols = (_on_device(matrix, grid) for matrix in (rows, cols))
    budget = GPU_TILE if grid.is_cuda else CPU_TILE
    width = min(max(budget // (grid.shape[0] * classes), 64), len(cols))
    height = min(max(budget // (width * classes), 1), len(rows))
    for x in range(0, len(cols), width):
        across = slice(x, min(x + width, len(cols)))
        used = span(supports[1][across])
        strip = (cols[across, used] @ grid[:, used]).flatten(1)  # (U, tile columns * C)
        for y in range(0, len(rows), height):
            down = slice(y, min(y + height, len(rows)))
            used = span(supports[0][down])
            tile = rows[down, used] @ strip[used]
            yield down, across, tile.view(tile.shape[0], -1, classes)


def _on_device(values: np.ndarray, like: Tensor) -> Tensor:
    """Copy a matrix to a tensor's device, in its type, without waiting for it."""
    matrix = torch.from_numpy(values).to(like.dtype)
    if like.is_cuda:
        matrix = matrix.pin_memory()
    return matrix.to(like.device, non_blocking=True)


def _classes(tile: Tensor, threshold: float | None) -> Tensor:
    """Return the class of every pixel from its logits (..., C); one logit is that of class 1."""
    if tile.shape[-1] == 1:
        return (tile[..., 0].sigmoid() > threshold).long()
    return tile.argmax(-1)


@MODELS.register_module()
class SlidingWindowEncoderDecoder(OpenEncoderDecoder):
    """mmseg's EncoderDecoder with the sliding windows of the paper (section 3.1).

    The image comes with its shortest side resized to the crop size (`ResizeToCover`). Windows of
    all images of a batch go through the network together; only the class of each pixel is kept.

    `test_cfg` keys, all but `mode` and `crop_size` optional:
        mode: 'slide', or 'whole' for mmseg's own inference.
        crop_size: (height, width) of a window in pixels.
        stride: mmseg's placement with this (vertical, horizontal) stride in pixels, or with this
            share of the window, rounded down; evenly spaced without it.
        window_batch: Largest number of windows in one network pass, 16 by default.
        precision: 'fp16' or 'bf16' runs the network under autocast, 'auto' as training does by
            default: fp16 on a GPU, fp32 on a CPU. Without it, what surrounds the call decides.
            Logits are averaged in at least fp32.
        seg_logits: Whether to attach the full (C, H, W) logits to every sample, as mmseg does.
        probabilities: True attaches float16 probabilities (K, H, W) of the K classes, on the CPU,
            to every sample; 'float32' such on the network's device. They are the softmax of the
            logits of a plain head, the shares of the sum of a head with the attribute ``scores``.
            Others are refused.
    """

    def __init__(self, *args, **kwargs):
        with reading(LATER):  # by `init_weights`, as mmengine means it
            super().__init__(*args, **kwargs)

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Predict the class of every pixel at the original size of each image.

        Args:
            inputs: (B, 3, H, W) normalised images, padded to one size by the data preprocessor.
            data_samples: Samples whose metainfo has `ori_shape`; None predicts at the input's size.

        Returns:
            The samples with `pred_sem_seg`, int64 (1, height, width).

        Raises:
            ValueError: If an image is smaller than the window.
        """
        metas = [sample.metainfo for sample in data_samples or []]
        if self.test_cfg.get("mode", "whole") != "slide" or self.test_cfg.get("seg_logits", False):
            samples = super().predict(inputs, data_samples)
            if self.test_cfg.get("probabilities", False):
                for sample in samples:
                    logits = sample.seg_logits.data
                    shares = self._no_shares(logits.shape[1:], logits.device)
                    shares[:] = self._probabilities(logits.movedim(0, -1)).movedim(-1, 0)
                    sample.probabilities = PixelData(data=shares)
            for sample in samples:  # mmseg's classes of a single channel are floats
                sample.pred_sem_seg.data = sample.pred_sem_seg.data.long()
            return samples

        images = list(inputs)
        sizes = [tuple(image.shape[-2:]) for image in images]
        if data_samples is None:
            data_samples = [SegDataSample() for _ in images]
        else:
            images = list(map(_without_padding, images, metas))
            sizes = [tuple(meta["ori_shape"][:2]) for meta in metas]
        threshold = getattr(self.decode_head, "threshold", None)  # of the sigmoid of one channel
        flips = [_flipped_axes(meta) for meta in metas] or [()] * len(images)
        for sample, size, axes, tiles in zip(
            data_samples, sizes, flips, self._merged(images, sizes), strict=True
        ):
            classes = torch.empty(size, dtype=torch.int64, device=inputs.device)
            shares = None
            if self.test_cfg.get("probabilities", False):
                shares = self._no_shares(size, inputs.device)
            for down, across, tile in tiles:
                classes[down, across] = _classes(tile, threshold)
                if shares is not None:
                    found = self._probabilities(tile).movedim(-1, 0)
                    shares[:, down, across] = found.to(shares.device, shares.dtype)
            sample.pred_sem_seg = PixelData(data=classes.flip(axes)[None])
            if shares is not None:
                sample.probabilities = PixelData(data=shares.flip(axes))
        return data_samples

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Return the averaged logits (B, C, H, W) at the size of the input, for mmseg's callers."""
        sizes = [tuple(inputs.shape[-2:])] * len(inputs)
        logits = []
        for size, tiles in zip(sizes, self._merged(list(inputs), sizes), strict=True):
            image_logits = inputs.new_empty(self.out_channels, *size, dtype=torch.float32)
            for down, across, tile in tiles:
                image_logits[:, down, across] = tile.permute(2, 0, 1)
            logits.append(image_logits)
        return torch.stack(logits)

    def _merged(self, images: list[Tensor], sizes: list[tuple[int, int]]) -> Iterator[Iterator]:
        """Run the windows of all images and yield each image's merged tiles."""
        crop = tuple(self.test_cfg["crop_size"])
        strides = strides_of(self.test_cfg.get("stride"), crop)
        places = [
            [window_starts(*args) for args in zip(image.shape[-2:], crop, strides, strict=True)]
            for image in images
        ]
        windows = [
            image[:, y : y + crop[0], x : x + crop[1]]
            for image, (ys, xs) in zip(images, places, strict=True)
            for y in ys
            for x in xs
        ]
        batch = self.test_cfg.get("window_batch", 16)
        with self._precision(images[0].device.type):
            logits = torch.cat(
                [
                    self._window_logits(torch.stack(windows[k : k + batch]))
                    for k in range(0, len(windows), batch)
                ]
            )
        done = 0
        for image, (ys, xs), size in zip(images, places, sizes, strict=True):
            count = len(ys) * len(xs)
            own = logits[done : done + count].unflatten(0, (len(ys), len(xs)))
            done += count
            matrices = [
                axis_matrix(starts, *args, align_corners=self.align_corners)
                for starts, *args in zip(
                    (ys, xs), crop, own.shape[-2:], image.shape[-2:], size, strict=True
                )
            ]
            # Autocast would run the averaging in half precision.
            with torch.autocast(own.device.type, enabled=False):
                yield merged_tiles(own, *matrices)

    def _probabilities(self, logits: Tensor) -> Tensor:
        """Turn what the head gives, (..., C) with C last, into probabilities of the classes."""
        if getattr(self.decode_head, "scores", False):
            total = logits.sum(-1, keepdim=True)
            # All may be 0 in floats; then no class is more probable than another.
            return torch.where(total > 0, logits / total, 1 / logits.shape[-1])
        if not self._is_plain:
            raise ValueError(
                f"what {type(self.decode_head).__name__} returns are not logits of classes, as it "
                "has a predict_by_feat of its own, so there are no probabilities"
            )
        if logits.shape[-1] == 1:
            return torch.cat([(-logits).sigmoid(), logits.sigmoid()], -1)
        return logits.softmax(-1)

    def _no_shares(self, size: tuple[int, int], device: torch.device) -> Tensor:
        """Make room for the probabilities of an image."""
        shape = (max(self.out_channels, 2), *size)
        if self.test_cfg["probabilities"] == "float32":
            return torch.empty(shape, device=device)
        return torch.empty(shape, dtype=torch.float16)

    @property
    def _is_plain(self) -> bool:
        head = type(self.decode_head)
        return (
            head.predict is BaseDecodeHead.predict
            and head.predict_by_feat is BaseDecodeHead.predict_by_feat
        )

    def _precision(self, device: str) -> AbstractContextManager:
        precision = self.test_cfg.get("precision")
        if precision is None:
            return nullcontext()
        dtype = AUTOCAST.get(resolve_precision(precision, device, "test_cfg.precision"))
        return torch.autocast(device, dtype, enabled=dtype is not None)

    def _window_logits(self, windows: Tensor) -> Tensor:
        """Return the logits (B, C, h, w) of a batch of windows at the size the head makes them.

        mmseg's `predict` of a plain head is its forward and a bilinear resize to the window, which
        the merging does anyway, for the pixels of the original image only.
        """
        if self._is_plain:
            return self.decode_head(self.extract_feat(windows))
        size = tuple(windows.shape[-2:])
        meta = {"ori_shape": size, "img_shape": size, "pad_shape": size}
        return self.encode_decode(windows, [dict(meta) for _ in range(len(windows))])


def _flipped_axes(meta: dict) -> tuple[int, ...]:
    """Return the axes of an (..., H, W) result that turn back what the pipeline has flipped."""
    if not meta.get("flip"):
        return ()
    return {"horizontal": (-1,), "vertical": (-2,), "diagonal": (-2, -1)}[meta["flip_direction"]]


def _without_padding(image: Tensor, meta: dict) -> Tensor:
    """Cut off the padding that made images of several sizes one batch."""
    padding = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
    left, right, top, bottom = padding
    height, width = image.shape[-2:]
    return image[:, top : height - bottom, left : width - right]
