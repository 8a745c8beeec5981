"""Mean intersection over union from integer counts."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from mmseg.registry import METRICS
from prettytable import PrettyTable
from torch import Tensor

#: On a GPU, images whose counts wait there before they are fetched together.
PENDING = 64


def count_pixels(pred: Tensor, label: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Count pixels per class on the prediction's device, without waiting for it.

    Args:
        pred: Predicted classes of any shape, 0 to num_classes - 1; floats that are whole numbers
            too, which mmseg's segmentor makes of a single output channel.
        label: True classes of the same shape, 0 to num_classes - 1 or `ignore_index`.
        num_classes: Number of classes.
        ignore_index: Label of pixels that do not count, whatever was predicted.

    Returns:
        (4, num_classes) int64: right, predicted and true pixels, and in the last row the number of
        wrong labels, of wrong predictions, and zeros.

    Raises:
        ValueError: If shapes differ.
    """
    if pred.shape != label.shape:
        raise ValueError(
            f"the prediction has {tuple(pred.shape)} pixels and the label {tuple(label.shape)}"
        )
    pred = pred.flatten()
    if pred.is_floating_point():
        pred = torch.where(pred == pred.round(), pred, -1).long()
    label = label.to(pred.device, torch.int64, non_blocking=True).flatten()
    # Ignored pixels get a row of their own, so nothing is gathered; wrong ones get a cell each.
    valid = (label >= 0) & (label < num_classes)
    row = torch.where(valid, label, num_classes)
    cell = row.mul_(num_classes).add_(pred)
    end = (num_classes + 1) * num_classes
    cell.masked_fill_(~valid & (label != ignore_index), end)
    cell.masked_fill_((pred < 0) | (pred >= num_classes), end + 1)
    # torch.bincount would ask a GPU for the largest value, and wait for it.
    counts = cell.new_zeros(end + 2).scatter_add_(0, cell, torch.ones_like(cell))
    matrix = counts[: num_classes * num_classes].view(num_classes, num_classes)
    wrong = torch.nn.functional.pad(counts[end:], (0, num_classes))[:num_classes]
    return torch.stack([matrix.diagonal(), matrix.sum(0), matrix.sum(1), wrong])


def class_counts(pred: Tensor, label: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Count pixels per class and check the values.

    Args:
        pred: See `count_pixels`.
        label: See `count_pixels`.
        num_classes: See `count_pixels`.
        ignore_index: See `count_pixels`.

    Returns:
        (3, num_classes) int64 on the prediction's device: right, predicted and true pixels.

    Raises:
        ValueError: If shapes differ, a label is neither a class nor `ignore_index`, or a prediction
            is no class.
    """
    counts = count_pixels(pred, label, num_classes, ignore_index)
    wrong_labels, wrong_predictions = counts[3, :2].tolist()
    if wrong_predictions:
        wrong = pred[~((pred >= 0) & (pred < num_classes) & (pred == pred.round()))]
        raise ValueError(f"class {wrong[0].item()} was predicted, but there are {num_classes}")
    if wrong_labels:
        wrong = label[((label < 0) | (label >= num_classes)) & (label != ignore_index)]
        raise ValueError(
            f"label values {wrong.unique().tolist()[:10]} are neither a class (0 to "
            f"{num_classes - 1}) nor the ignored {ignore_index}"
        )
    return counts[:3]


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
        format_only: True counts nothing (``vfm-ss test --out`` saves predictions), None does so
            where no image has a label, which is an error otherwise.
        collect_device: 'cpu' or 'gpu', where ranks exchange their counts.
        prefix: Prepended to the keys of the result.
    """

    default_prefix = ""  # mmengine warns of None

    def __init__(
        self,
        ignore_index: int = 255,
        collect_device: str = "cpu",
        prefix: str | None = None,
        format_only: bool | None = False,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ignore_index = ignore_index
        self.format_only = format_only
        self.per_class: dict[str, dict[str, float]] = {}
        self._pending: list[tuple[str, Tensor]] = []

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch; one entry per image, so that ranks can drop padded samples.

        Raises:
            ValueError: If a label has another size than its prediction or a value outside the
                classes; the message names the file.
        """
        num_classes = len(self.dataset_meta["classes"])
        for sample in data_samples:
            if self.format_only or "gt_sem_seg" not in sample:
                self._leave_out(sample)
                continue
            pred = sample["pred_sem_seg"]["data"].squeeze()
            label = sample["gt_sem_seg"]["data"].squeeze()
            name = sample.get("seg_map_path") or sample.get("img_path", "a label without a path")
            try:
                if pred.is_cuda:
                    counts = count_pixels(pred, label, num_classes, self.ignore_index)
                    self._pending.append((name, counts))
                else:
                    counts = class_counts(pred, label, num_classes, self.ignore_index)
                    self.results.append(counts)
            except ValueError as error:
                raise _in_file(name, error) from None
        if len(self._pending) >= PENDING:
            self._fetch()

    def _leave_out(self, sample: dict) -> None:
        if self.format_only is False:
            raise ValueError(
                f"{sample.get('img_path')}: the image has no label, so there is no score; set "
                "data_prefix.seg_map_path of the dataset, or save predictions alone by --out"
            )
        self.results.append(None)

    def evaluate(self, size: int) -> dict:
        """Compute the scores of `size` images; see mmengine's `BaseMetric`."""
        self._fetch()
        return super().evaluate(size)

    def _fetch(self) -> None:
        """Move the waiting counts to the CPU, all in one copy, and check them."""
        if not self._pending:
            return
        names, counts = zip(*self._pending, strict=True)
        self._pending.clear()
        for name, image in zip(names, torch.stack(counts).cpu(), strict=True):
            if image[3].any():
                error = f"a label or prediction outside the {len(image[3])} classes"
                raise _in_file(name, error)
            self.results.append(image[:3])

    def compute_metrics(self, results: list[Tensor]) -> dict[str, float]:
        """Sum the counts of all images into aAcc, mIoU and mAcc, and log the table of classes."""
        unlabelled = sum(result is None for result in results)
        if results and unlabelled == len(results):
            print_log(
                "There are no scores: "
                + ("format_only=True." if self.format_only else "the images have no labels."),
                logger="current",
            )
            return {}
        if unlabelled:
            raise ValueError(
                f"{unlabelled} of {len(results)} images have no label: a score of the rest would "
                "be of another test set; add the labels, or take these images out"
            )
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
        _warn_of_absent_classes(names, iou, true.numpy())
        return {
            "aAcc": float(100 * right.sum() / true.sum()),
            "mIoU": float(np.nanmean(iou)),
            "mAcc": float(np.nanmean(acc)),
        }


def _warn_of_absent_classes(names: Sequence[str], iou: np.ndarray, true: np.ndarray) -> None:
    """Say which classes the labels lack: they are left out of the mean, or count as 0."""
    left_out = [name for name, value in zip(names, iou, strict=True) if np.isnan(value)]
    zero = [name for name, k, n in zip(names, iou, true, strict=True) if not n and k == 0]
    for absent, text in (
        (
            left_out,
            f"mIoU is the mean of {len(names) - len(left_out)} of {len(names)} classes, and "
            "best checkpoints are chosen by it; in neither labels nor predictions: ",
        ),
        (zero, "no label has a pixel of these classes, false predictions count as IoU 0: "),
    ):
        if absent:
            print_log(text + ", ".join(absent), logger="current", level=logging.WARNING)


def _in_file(name: str, error: object) -> ValueError:
    return ValueError(f"{name}: {error}; fix the file, or the dataset's classes")
