"""Mean intersection over union from integer counts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from mmseg.registry import METRICS
from PIL import Image
from prettytable import PrettyTable
from torch import Tensor


def class_counts(pred: Tensor, label: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Count pixels per class.

    Args:
        pred: Predicted classes of any shape, 0 to num_classes - 1.
        label: True classes of the same shape, 0 to num_classes - 1 or `ignore_index`.
        num_classes: Number of classes.
        ignore_index: Label of pixels that do not count, whatever was predicted.

    Returns:
        (3, num_classes) int64 on the prediction's device: right, predicted and true pixels.

    Raises:
        ValueError: If shapes differ, a label is neither a class nor `ignore_index`, or a prediction
            is no class.
    """
    if pred.shape != label.shape:
        raise ValueError(
            f"the prediction has {tuple(pred.shape)} pixels and the label {tuple(label.shape)}"
        )
    if pred.numel() and int(pred.max()) >= num_classes:
        raise ValueError(f"class {int(pred.max())} was predicted, but there are {num_classes}")
    label = label.to(pred.device, torch.int64).flatten()
    # Ignored pixels get a row of their own, so nothing is gathered; a wrong label gets another.
    rows = num_classes + 2
    valid = (label >= 0) & (label < num_classes)
    row = torch.where(valid, label, num_classes + (label != ignore_index).long())
    cell = row.mul_(num_classes).add_(pred.flatten())
    counts = torch.bincount(cell, minlength=rows * num_classes)
    counts = counts.view(rows, num_classes)
    if counts[-1].any():
        wrong = label[~valid & (label != ignore_index)].unique().tolist()
        raise ValueError(
            f"label values {wrong[:10]} are neither a class (0 to {num_classes - 1}) "
            f"nor the ignored {ignore_index}"
        )
    counts = counts[:num_classes]
    return torch.stack([counts.diagonal(), counts.sum(0), counts.sum(1)])


@METRICS.register_module()
class MeanIoUMetric(BaseMetric):
    """mIoU, mean and overall accuracy in percent, with mmseg's result keys.

    Same numbers as mmseg's `IoUMetric(iou_metrics=['mIoU'])`, unrounded and from int64 counts (that
    one sums float32, exact up to 2^24 pixels a class). A class that occurs neither in labels nor in
    predictions is left out of the means.

    Attributes:
        per_class: {'IoU': {class name: percent}, 'Acc': {...}} of the last evaluation, nan where a
            class never occurred; empty before it and on ranks other than 0.

    Args:
        ignore_index: Label of pixels that do not count.
        collect_device: 'cpu' or 'gpu', where ranks exchange their counts.
        prefix: Prepended to the keys of the result.
        output_dir: Folder for the predicted label maps as PNG files, in the values of the data
            set's own files (tools/test.py --out); None saves none.
    """

    default_prefix = ""  # mmengine warns of None

    def __init__(
        self,
        ignore_index: int = 255,
        collect_device: str = "cpu",
        prefix: str | None = None,
        output_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ignore_index = ignore_index
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.per_class: dict[str, dict[str, float]] = {}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch; one entry per image, so that ranks can drop padded samples.

        Raises:
            ValueError: If a label has another size than its prediction or a value outside the
                classes; the message names the file.
        """
        num_classes = len(self.dataset_meta["classes"])
        for sample in data_samples:
            try:
                counts = class_counts(
                    sample["pred_sem_seg"]["data"].squeeze(),
                    sample["gt_sem_seg"]["data"].squeeze(),
                    num_classes,
                    self.ignore_index,
                )
            except ValueError as error:
                name = sample.get("seg_map_path") or sample.get(
                    "img_path", "a label without a path"
                )
                raise ValueError(
                    f"{name}: {error}; fix the file, or the dataset's classes"
                ) from None
            self.results.append(counts.cpu())
            if self.output_dir is not None:
                self._save(sample)

    def _save(self, sample: dict) -> None:
        classes = sample["pred_sem_seg"]["data"].squeeze().cpu().numpy()
        stored = classes + 1 if sample.get("reduce_zero_label", False) else classes
        self.output_dir.mkdir(parents=True, exist_ok=True)
        name = Path(sample["img_path"]).stem + ".png"
        Image.fromarray(stored.astype(np.uint8)).save(self.output_dir / name)

    def compute_metrics(self, results: list[Tensor]) -> dict[str, float]:
        """Sum the counts of all images into aAcc, mIoU and mAcc, and log the table of classes."""
        right, predicted, true = torch.stack(results).sum(0).double()
        iou = (100 * right / (predicted + true - right)).numpy()
        acc = (100 * right / true).numpy()
        names = self.dataset_meta["classes"]
        self.per_class = {
            key: dict(zip(names, values.tolist(), strict=True))
            for key, values in (("IoU", iou), ("Acc", acc))
        }
        table = PrettyTable()
        table.add_column("Class", list(names))
        table.add_column("IoU", np.round(iou, 2))
        table.add_column("Acc", np.round(acc, 2))
        logger = MMLogger.get_current_instance()
        print_log(f"per class results:\n{table.get_string()}", logger=logger)
        return {
            "aAcc": float(100 * right.sum() / true.sum()),
            "mIoU": float(np.nanmean(iou)),
            "mAcc": float(np.nanmean(acc)),
        }
