"""Load whole images and labels for evaluation, with errors that name the file."""

import cv2
import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms.base import BaseTransform
from mmseg.registry import TRANSFORMS

from vfm_ss.compat.registry import child_of

from .decode import decode_image, decode_label, rescale
from .labels import check_pair, label_table, map_label
from .resize import nearest_indices


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Load an image as 8-bit BGR, as mmcv's LoadImageFromFile but also from archives.

    `bit_depth` of the sample, which a dataset may state, says what 16-bit numbers mean.

    Args:
        backend_args: Storage backend; None reads folders, zip and tar archives and fsspec's stores.
    """

    def __init__(self, backend_args: dict | None = None) -> None:
        self.backend_args = backend_args or {"backend": "archive"}

    def transform(self, results: dict) -> dict:
        """Add `img`, `img_shape` and `ori_shape`."""
        path = results["img_path"]
        data = fileio.get(path, self.backend_args)
        results["img"] = decode_image(data, path, bit_depth=results.get("bit_depth", 8))
        results["img_shape"] = results["ori_shape"] = results["img"].shape[:2]
        return results


@child_of(TRANSFORMS, "vfm_ss", "vfm_ss").register_module(
    name=["LoadImageFromFile", "LoadImageFromNDArray", "InferencerLoader"]
)
class LoadAnyImage(LoadImage):
    """Load an image from a path or an array, for mmseg's `inference_model` and `MMSegInferencer`.

    They look for a transform of one of these names in a pipeline, or write one into it. In the
    scope `vfm_ss` all of them mean this one.

    Args:
        bit_depth: Bits that values use, see the datasets' `bit_depth`.
        backend_args: See `LoadImage`.
    """

    def __init__(self, bit_depth: int = 8, backend_args: dict | None = None) -> None:
        super().__init__(backend_args)
        self.bit_depth = bit_depth

    def transform(self, results: dict | str | np.ndarray) -> dict:
        """Add `img`, (H, W, 3) uint8 BGR, `img_shape` and `ori_shape`.

        Args:
            results: A path, an array, or a dict with one as `img_path` or `img`.

        Raises:
            ValueError: If the array is no image, see `as_bgr`.
        """
        if isinstance(results, np.ndarray):
            results = {"img": results}
        elif not isinstance(results, dict):
            results = {"img_path": str(results)}
        if "img" not in results:
            return super().transform({"bit_depth": self.bit_depth, **results})
        results["img"] = as_bgr(results["img"], self.bit_depth)
        results["img_path"] = None
        results["img_shape"] = results["ori_shape"] = results["img"].shape[:2]
        return results


@TRANSFORMS.register_module()
class LoadLabel(BaseTransform):
    """Load a label at its original size and map its values to classes.

    Does nothing for a sample without `seg_map_path`, such as those of mmseg's `inference_model`.

    Args:
        ignore_index: Value of ignored pixels.
        backend_args: Storage backend; None reads folders, zip and tar archives and fsspec's stores.
    """

    def __init__(self, ignore_index: int = 255, backend_args: dict | None = None) -> None:
        self.ignore_index = ignore_index
        self.backend_args = backend_args or {"backend": "archive"}

    def transform(self, results: dict) -> dict:
        """Add `gt_seg_map`, at the size of the image.

        Raises:
            ValueError: If the file is damaged, has another size than the image (and the dataset
                does not say `resize_label`) or holds a value outside the classes.
        """
        path = results.get("seg_map_path")
        if path is None:
            return results
        label = decode_label(fileio.get(path, self.backend_args), path)
        label = map_label(label, label_table(results, self.ignore_index), path)
        size = results.get("ori_shape", label.shape)[:2]
        if label.shape != size:
            check_pair(results, label.shape, size, self.backend_args)
            rows, cols = (
                nearest_indices(old, new, 0, new)
                for old, new in zip(label.shape, size, strict=True)
            )
            label = label[rows][:, cols]
        results["gt_seg_map"] = label
        results.setdefault("seg_fields", []).append("gt_seg_map")
        return results


def as_bgr(array: np.ndarray, bit_depth: int = 8) -> np.ndarray:
    """Return an array as the image that a file of the same pixels would be read as.

    Args:
        array: (H, W) or (H, W, 1) gray, (H, W, 3) BGR as mmseg and OpenCV have it, or (H, W, 4)
            with an alpha that hides nothing; uint8, or uint16 where `bit_depth` says what it means.
        bit_depth: Bits that values use.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        ValueError: If it is anything else.
    """
    gray = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    if not (gray or (array.ndim == 3 and array.shape[2] in (3, 4))) or not array.size:
        raise ValueError(
            f"an array of the shape {array.shape} is not an image; pass (H, W) gray, (H, W, 3) BGR "
            "or (H, W, 4) BGRA"
        )
    if array.ndim == 3 and array.shape[2] == 4:
        if array.dtype.kind == "u" and array[..., 3].min() < np.iinfo(array.dtype).max:
            raise ValueError(
                "an array with transparent pixels, whose colour is arbitrary; put it on a "
                "background and pass (H, W, 3)"
            )
        array = array[..., :3]
    if bit_depth != 8:
        array = rescale(array, f"array of {array.dtype}", bit_depth)
    elif array.dtype != np.uint8:
        raise ValueError(
            f"an image must hold 8-bit numbers from 0 to 255, this array has {array.dtype}; scale "
            "it and convert it to uint8, or set bit_depth of the test set for uint16"
        )
    if gray:
        return cv2.cvtColor(np.ascontiguousarray(array), cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(array)
