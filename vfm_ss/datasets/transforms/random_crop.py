"""The training augmentation of the paper, on the pixels that end up in the crop only."""

from dataclasses import dataclass
from functools import partial

import cv2
import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms.base import BaseTransform
from mmseg.registry import TRANSFORMS

from vfm_ss.datasets.seeding import sample_rng
from vfm_ss.image_size import ImageSized

from .decode import Header, decode_image, decode_label, read_header, reduction
from .labels import check_pair, label_table, map_label
from .photometric import Distortion, distort, draw_distortion
from .resize import nearest_indices, resize_part

#: How often the place of a crop is drawn again, as in mmseg's RandomCrop.
_REDRAWS = 10
#: Of the two factors at which an image is as high and as wide as the crop, the one that counts.
_FACTORS = {"image": None, "crop": min, "cover": max}


@dataclass(frozen=True)
class CropPlan:
    """Where a crop lies in the flipped and resized image.

    Attributes:
        size: (height, width) of the resized image.
        top: First row of the crop.
        left: First column of the crop in the resized image *before* it is flipped.
        shape: (height, width) of the image's part of the crop; the rest is padding.
        flip: Whether the image is mirrored.
    """

    size: tuple[int, int]
    top: int
    left: int
    shape: tuple[int, int]
    flip: bool


@TRANSFORMS.register_module()
class LoadRandomCrop(ImageSized, BaseTransform):
    """Load an image and its label and apply the paper's augmentation.

    Same result as, in this order: random horizontal flip, photometric distortion, resize by a
    uniform factor, padding at the right and bottom, random crop. But the random numbers are drawn
    first, from (seed, position in the run), and then only the pixels that the crop shows are
    resized and distorted; a JPEG that shrinks to half or less is decoded at reduced size.

    A sample whose label has no valid pixel gives None, and mmengine takes another one instead,
    drawn from the same stream.

    Args:
        crop_size: (height, width) of the result in pixels; None takes the model's image size.
        scale_range: Bounds of the resize factor.
        scale_relative_to: 'image' resizes by the factor (paper); 'crop' multiplies it with the
            factor that fits the image into the crop (the authors' code), 'cover' with the one at
            which the image just covers the crop (DINOv3's evaluation).
        flip_prob: Probability of a horizontal flip.
        distortion: Keyword arguments of `draw_distortion`; None leaves colours as they are.
        pad_value: Value of padding in the image, before normalisation (0, as the authors). 'mean'
            leaves image and label as small as they are: mmseg's data preprocessor then pads them
            after normalisation, with its `pad_val` of 0, which is the mean colour.
        max_class_share: Draw the place of the crop again, up to ten times, while one class has this
            share of its labelled pixels or more, or all (mmseg's ``cat_max_ratio``); 1 never does.
        ignore_index: Value of padding and of ignored pixels in the label.
        backend_args: Storage backend; None reads folders, zip and tar archives and fsspec's stores.

    Raises:
        ValueError: If a file is damaged, image and label differ in size (and the dataset does not
            say `resize_label`), or the label holds a value outside the classes; the message names
            the file. If there is neither a crop size nor a model to take it from.
    """

    SIZE = "crop_size"

    def __init__(
        self,
        crop_size: tuple[int, int] | None = None,
        scale_range: tuple[float, float] = (0.5, 2.0),
        scale_relative_to: str = "image",
        flip_prob: float = 0.5,
        distortion: dict | None = {},  # noqa: B006  read only, and configs show {} as "on"
        pad_value: int | str = 0,
        max_class_share: float = 1.0,
        ignore_index: int = 255,
        backend_args: dict | None = None,
    ) -> None:
        if scale_relative_to not in _FACTORS:
            raise ValueError(
                f"scale_relative_to is {scale_relative_to!r}, not {', '.join(map(repr, _FACTORS))}"
            )
        if isinstance(pad_value, str) and pad_value != "mean":
            raise ValueError(f"pad_value is {pad_value!r}, not 'mean' or a number")
        if not 0 < max_class_share <= 1:
            raise ValueError(f"max_class_share {max_class_share} is not above 0 and at most 1")
        if not 0 < scale_range[0] <= scale_range[1]:
            raise ValueError(f"scale_range {scale_range} is not two rising positive factors")
        self.crop_size = None if crop_size is None else tuple(crop_size)
        self.scale_range = scale_range
        self.scale_relative_to = scale_relative_to
        self.flip_prob = flip_prob
        self.distortion = distortion
        self.pad_value = pad_value
        self.max_class_share = max_class_share
        self.ignore_index = ignore_index
        self.backend_args = backend_args or {"backend": "archive"}

    def transform(self, results: dict) -> dict | None:
        """Add `img` (BGR), `gt_seg_map` and mmseg's keys for their shapes; None without a label."""
        self.check_size()
        rng = sample_rng(results)
        image_path, label_path = results["img_path"], results["seg_map_path"]
        image_data = fileio.get(image_path, self.backend_args)
        header = read_header(image_data, image_path)
        label = decode_label(fileio.get(label_path, self.backend_args), label_path)
        check_pair(results, label.shape, header[:2], self.backend_args)
        plan = self.draw_plan(rng, header[:2])
        colours = None if self.distortion is None else draw_distortion(rng, **self.distortion)

        table = label_table(results, self.ignore_index)
        crop = map_label(self._crop_label(label, header, plan), table, label_path)
        if self.max_class_share < 1:
            for _ in range(_REDRAWS):
                if self._is_mixed(crop):
                    break
                plan = self._placed(rng, plan.size, plan.flip)
                crop = map_label(self._crop_label(label, header, plan), table, label_path)
        if (crop == self.ignore_index).all() and (
            map_label(label, table, label_path) == self.ignore_index
        ).all():
            # mmengine draws the replacement from numpy's global state.
            np.random.seed(rng.integers(2**32))
            return None

        image = self._crop_image(image_data, results, header, plan, colours)
        shape = plan.shape
        # Channels come first in memory, so that PackSegInputs has nothing to transpose.
        later = self.pad_value == "mean"
        full = shape if later else self.crop_size
        planes = np.full((3, *full), 0 if later else self.pad_value, np.uint8)
        for channel, plane in enumerate(planes):
            plane[: shape[0], : shape[1]] = cv2.extractChannel(image, channel)
        results["img"] = planes.transpose(1, 2, 0)
        results["gt_seg_map"] = np.full(full, self.ignore_index, np.uint8)
        results["gt_seg_map"][: shape[0], : shape[1]] = crop
        results.setdefault("seg_fields", []).append("gt_seg_map")
        results["ori_shape"] = header[:2]
        results["img_shape"] = shape
        results["pad_shape"] = full
        results["scale_factor"] = (plan.size[1] / header.width, plan.size[0] / header.height)
        results["flip"] = plan.flip
        results["flip_direction"] = "horizontal" if plan.flip else None
        return results

    def draw_plan(self, rng: np.random.Generator, image_size: tuple[int, int]) -> CropPlan:
        """Draw flip, scale and place of the crop for an image of (height, width) pixels."""
        flip = rng.random() < self.flip_prob
        scale = rng.uniform(*self.scale_range)
        choose = _FACTORS[self.scale_relative_to]
        if choose is not None:
            scale *= choose(self.crop_size[0] / image_size[0], self.crop_size[1] / image_size[1])
        size = tuple(max(int(side * scale), 1) for side in image_size)
        return self._placed(rng, size, flip)

    def _placed(self, rng: np.random.Generator, size: tuple[int, int], flip: bool) -> CropPlan:
        """Draw the place of the crop in the resized image."""
        shape = tuple(map(min, size, self.crop_size))
        top, left = (
            int(rng.integers(full - part + 1)) for full, part in zip(size, shape, strict=True)
        )
        if flip:
            left = size[1] - shape[1] - left
        return CropPlan(size, top, left, shape, flip)

    def _is_mixed(self, crop: np.ndarray) -> bool:
        """Return whether several classes share a crop, none of them with too many pixels."""
        counts = np.bincount(crop[crop != self.ignore_index])
        counts = counts[counts > 0]
        return len(counts) > 1 and counts.max() / counts.sum() < self.max_class_share

    def _crop_label(self, label: np.ndarray, header: Header, plan: CropPlan) -> np.ndarray:
        """Take the nearest stored value for every pixel of the crop's image part."""
        indices = []
        for axis, first in enumerate((plan.top, plan.left)):
            nearest = nearest_indices(header[axis], plan.size[axis], first, plan.shape[axis])
            if label.shape[axis] != header[axis]:
                nearest = nearest_indices(label.shape[axis], header[axis], 0, header[axis])[nearest]
            indices.append(nearest)
        rows, cols = indices
        if plan.flip:
            cols = cols[::-1]
        part = label[rows[0] : rows[-1] + 1]
        return part.take(rows - rows[0], axis=0).take(cols, axis=1)

    def _crop_image(
        self, data: bytes, info: dict, header: Header, plan: CropPlan, colours: Distortion | None
    ) -> np.ndarray:
        """Decode an image and make the crop's image part."""
        factors = plan.size[0] / header.height, plan.size[1] / header.width
        reduce = reduction(data, max(factors))
        path = info["img_path"]
        image = decode_image(data, path, reduce, info.get("bit_depth", 8))
        if image.shape[:2] != (-(-header.height // reduce), -(-header.width // reduce)):
            raise ValueError(
                f"{path}: the decoder gives {image.shape[1]} x {image.shape[0]} pixels, the header "
                f"says {header.width} x {header.height}; the file is damaged, download it again"
            )
        factors = factors[0] * reduce, factors[1] * reduce
        # Distortion comes before the resize, as in the plain order, unless that is more pixels.
        first = min(factors) >= 1
        paint = partial(distort, draw=colours or Distortion())
        image = resize_part(
            image, factors, plan.top, plan.left, plan.shape, prepare=paint if first else None
        )
        if not first:
            image = paint(image)
        return cv2.flip(image, 1) if plan.flip else image
