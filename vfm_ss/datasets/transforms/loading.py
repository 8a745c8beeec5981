"""Load whole images and labels for evaluation, with errors that name the file."""

import mmengine.fileio as fileio
from mmcv.transforms.base import BaseTransform
from mmseg.registry import TRANSFORMS

from .decode import decode_image, decode_label
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
