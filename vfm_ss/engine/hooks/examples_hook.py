import posixpath
from io import BytesIO
from math import nan
from pathlib import Path

import mmengine.fileio as fileio
import numpy as np
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmseg.registry import HOOKS
from PIL import Image
from torch import Tensor

from vfm_ss.compat.runner import is_training
from vfm_ss.datasets.painting import palette_of
from vfm_ss.datasets.probe import class_names, image_folders, parts
from vfm_ss.datasets.transforms.decode import decode_image
from vfm_ss.evaluation.miou import count_pixels
from vfm_ss.protocol.examples import (
    IGNORED,
    MOST,
    SHOWN,
    Example,
    Examples,
    encoded,
    of_record,
    places,
    write_examples,
)
from vfm_ss.protocol.records import RECORD_NAME, read_record
from vfm_ss.text import printable

#: Points of mIoU that another device or precision may change.
_CLOSE = 0.1


@HOOKS.register_module()
class SaveExamplesHook(Hook):
    """Save the predictions of a few validation images beside the record, for the report.

    They come from the validation whose score the record holds, and replace those of the one
    before. Which images is a matter of their place in the sorted list alone, see
    `protocol.examples.places`. A failure ends no training: it is a warning.

    Args:
        count: Number of images, at most 16; 0 saves none.
        tested: For a test on the validation set: ``folder`` of the record, and ``step`` of the
            checkpoint. Without it a test saves nothing.
    """

    priority = "LOWEST"  # after RecordHook

    def __init__(self, count: int = 4, tested: dict | None = None) -> None:
        if not 0 <= count <= MOST:
            raise ValueError(f"SaveExamplesHook: count={count}, expected 0 to {MOST}")
        self.count = count
        self.tested = tested
        self._dataset = None
        self._chosen: dict[str, tuple[int, str, int]] = {}
        self._images = 0
        self._found: list[Example] = []
        self._error: str | None = None

    def before_val_epoch(self, runner) -> None:
        """Choose the images."""
        if self.count and is_training(runner):
            self._begin(runner.val_dataloader.dataset)

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Keep the chosen ones of a batch."""
        if self.count and is_training(runner):
            self._keep(outputs or ())

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Write what was kept.

        An image that cannot be shown, a record that cannot be read or a full disk is a warning.
        """
        if not (self.count and is_training(runner)):
            return
        try:
            self._write(Path(runner.work_dir), runner.iter, None)
        except Exception as error:  # a picture is not worth a training
            runner.logger.warning(f"No examples are saved for the report: {error}")

    def before_test_epoch(self, runner) -> None:
        """Choose the images."""
        if self.tested:
            self._begin(runner.test_dataloader.dataset)

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Keep the chosen ones of a batch."""
        if self.tested:
            self._keep(outputs or ())

    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        """Write what was kept.

        Raises:
            ValueError: If the test gave another score than the record holds, or an image cannot be
                shown.
        """
        if self.tested:
            self._write(Path(self.tested["folder"]), self.tested["step"], metrics or {})

    def _begin(self, dataset) -> None:
        self._found, self._error = [], None
        if self._dataset is dataset:
            return
        try:
            self._chosen, self._images = _choose(dataset, self.count)
            self._dataset = dataset
        except Exception as error:  # of anybody's data set; told by all processes together
            self._chosen, self._error = {}, f"{type(error).__name__}: {error}"

    def _keep(self, samples) -> None:
        for sample in samples:
            chosen = self._chosen.get(getattr(sample, "img_path", None))
            if chosen is None or self._error is not None:
                continue
            try:
                classes = len(class_names(parts(self._dataset)[0]))
                self._found.append(_example(sample, classes, *chosen))
            except Exception as error:
                self._error = f"{type(error).__name__}: {error}"

    def _write(self, folder: Path, step: int, tested: dict | None) -> None:
        gathered = all_gather_object((self._found, self._error))
        if not is_main_process():
            return
        for _, error in gathered:
            if error is not None:
                raise ValueError(error)
        # Samples that fill up the last batch of several processes are there twice.
        found = {one.place: one for part, _ in gathered for one in part}
        record = read_record(folder / RECORD_NAME)
        miou = dict(map(tuple, record.history)).get(step)
        if miou is None:
            raise ValueError(f"{folder / RECORD_NAME} has no score of step {step}")
        if tested is not None and not abs(tested.get("mIoU", nan) - miou) <= _CLOSE:
            raise ValueError(
                f"the test gave mIoU {tested.get('mIoU')}, {folder / RECORD_NAME} says {miou} of "
                f"step {step}: these are not the predictions of that score"
            )
        data = parts(self._dataset)[0]
        names = class_names(data)
        examples = Examples(
            **of_record(record, step, miou),
            images=self._images,
            classes=names,
            palette=palette_of(data, len(names)).tolist(),
            examples=[found[place] for place in sorted(found)],
        )
        write_examples(folder, examples)


def _choose(dataset, count: int) -> tuple[dict[str, tuple[int, str, int]], int]:
    """Return place, name and bit depth of the chosen images by their paths; how many there are."""
    names: dict[str, tuple[str, int]] = {}
    for part in parts(dataset):
        roots, depth = image_folders(part), getattr(part, "bit_depth", 8)
        for index in range(len(part)):
            path = part.get_data_info(index)["img_path"]
            root = next((r for r in roots if path.startswith(f"{r}/")), posixpath.dirname(path))
            names[path] = printable(path.removeprefix(f"{root}/"))[-200:], depth
    paths = sorted(names, key=lambda path: (names[path], path))
    return {paths[at]: (at, *names[paths[at]]) for at in places(len(paths), count)}, len(paths)


def _example(sample, num_classes: int, place: int, name: str, bit_depth: int) -> Example:
    """Make an example of a sample that has been predicted.

    Raises:
        ValueError: If photo and label differ in size.
    """
    prediction = sample.pred_sem_seg.data.squeeze().cpu()
    label = sample.gt_sem_seg.data.squeeze().cpu()
    path = sample.img_path
    photo = decode_image(fileio.get(path, {"backend": "archive"}), path, bit_depth=bit_depth)
    if photo.shape[:2] != tuple(label.shape):
        raise ValueError(f"{path}: the image and its label are not of one size")
    right, predicted, true = count_pixels(prediction, label, num_classes, IGNORED)[:3].double()
    iou = (100 * right / (predicted + true - right)).numpy()
    miou = None if np.isnan(iou).all() else float(np.nanmean(iou))
    factor = min(1.0, SHOWN / max(label.shape))
    size = [max(1, round(factor * side)) for side in reversed(label.shape)]
    return Example(
        name,
        place,
        miou,
        _file(Image.fromarray(photo[..., ::-1]).resize(size, Image.Resampling.BOX), "JPEG"),
        _file(_classes(label, num_classes).resize(size, Image.Resampling.NEAREST), "PNG"),
        _file(_classes(prediction, num_classes).resize(size, Image.Resampling.NEAREST), "PNG"),
    )


def _classes(values: Tensor, num_classes: int) -> Image.Image:
    values = values.long().numpy()
    shown = np.where((values >= 0) & (values < num_classes), values, IGNORED)
    return Image.fromarray(shown.astype(np.uint8))


def _file(picture: Image.Image, form: str) -> str:
    data = BytesIO()
    picture.save(data, form, quality=90, optimize=True)
    return encoded(data.getvalue())
