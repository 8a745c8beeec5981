"""What becomes of the predictions of a validation or test: label files and pictures."""

import os.path as osp
from collections.abc import Sequence

import mmengine.fileio as fileio
from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.visualization import Visualizer
from mmseg.engine.hooks import SegVisualizationHook
from mmseg.registry import HOOKS

from vfm_ss.datasets.label_files import plan_label_files, write_label
from vfm_ss.datasets.probe import parts
from vfm_ss.datasets.transforms.decode import decode_image


@HOOKS.register_module()
class SaveLabelsHook(Hook):
    """Save the predictions of a test as label files, with any metric (``vfm-ss test --out``).

    A file has the name and the sub-folder of its image and holds the values that the data set's
    own files hold. Nothing is overwritten.

    Args:
        out_dir: Folder of the files.
    """

    def __init__(self, out_dir: str) -> None:
        self.out_dir = out_dir
        self._plan: dict = {}

    def before_test(self, runner) -> None:
        """Name the files.

        Raises:
            ValueError: If one exists, two images would have the same one, or the classes cannot
                be written as the data set stores them.
        """
        answer: list = [None]
        if is_main_process():
            try:
                answer = [plan_label_files(runner.test_dataloader.dataset, self.out_dir)]
            except ValueError as error:  # the other processes must not wait for ever
                answer = [error]
        broadcast_object_list(answer)
        if isinstance(answer[0], Exception):
            raise answer[0]
        self._plan = answer[0]

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Write the files of a batch."""
        for sample in outputs:
            path, inverse = self._plan[sample.img_path]
            write_label(path, sample.pred_sem_seg.data.squeeze().cpu().numpy(), inverse)

    def after_test(self, runner) -> None:
        """Wait until the files of all processes are there."""
        barrier()


@HOOKS.register_module()
class PaintPredictionsHook(SegVisualizationHook):
    """mmseg's visualisation hook, on the pixels that the network and the label are about.

    mmseg's own turns an image by its EXIF orientation, reads no archive by itself and makes
    deep images dark; this one reads as the pipeline does.

    Args:
        backend_args: Storage backend; None reads folders, archives and fsspec's stores.
        **kwargs: See mmseg's ``SegVisualizationHook``.
    """

    def __init__(self, backend_args: dict | None = None, **kwargs) -> None:
        super().__init__(backend_args=backend_args or {"backend": "archive"}, **kwargs)
        self.visualizer = Visualizer.get_current_instance()
        self.painted = 0

    def after_val_iter(self, runner, batch_idx: int, data_batch: dict, outputs: Sequence) -> None:
        """Paint the first image of every ``interval``-th batch."""
        step = runner.iter + batch_idx
        if self.draw and step % self.interval == 0:
            self._paint(runner.val_dataloader.dataset, "val", outputs[0], step)

    def after_test_iter(self, runner, batch_idx: int, data_batch: dict, outputs: Sequence) -> None:
        """Paint every image."""
        if not self.draw:
            return
        for sample in outputs:
            self.painted += 1
            self._paint(runner.test_dataloader.dataset, "test", sample, self.painted)

    def _paint(self, dataset, split: str, sample, step: int) -> None:
        path = sample.img_path
        bit_depth = getattr(parts(dataset)[0], "bit_depth", 8)
        image = decode_image(fileio.get(path, self.backend_args), path, bit_depth=bit_depth)
        self.visualizer.add_datasample(
            f"{split}_{osp.basename(path)}",
            image[..., ::-1],
            data_sample=sample,
            show=self.show,
            wait_time=self.wait_time,
            step=step,
        )
