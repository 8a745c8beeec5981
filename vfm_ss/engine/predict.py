"""Predictions for any images, without labels: what ``vfm-ss predict`` does."""

import os
import sys
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import mmengine.fileio as fileio
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.utils.data import DataLoader, Dataset

from vfm_ss.datasets.label_files import inverse_table, write_label, write_picture
from vfm_ss.datasets.painting import paint, palette_of
from vfm_ss.datasets.probe import class_names
from vfm_ss.datasets.transforms.decode import decode_image, orientation
from vfm_ss.errors import UsageError
from vfm_ss.files import write_atomically
from vfm_ss.image_size import fill_image_size, model_image_size
from vfm_ss.models.segmentors import SlidingWindowEncoderDecoder
from vfm_ss.text import printable

from .image_files import find_images, plan_outputs
from .prepared_config import leaf_config, load_config, use_device_well
from .stated_numbers import check_numbers
from .trained_model import load_trained

_ARCHIVES = {"backend": "archive"}


def predict(
    config: str,
    checkpoint: str,
    inputs: Sequence[str],
    out: str,
    cfg_options: dict | None = None,
    *,
    overlay: bool = False,
    probabilities: bool = False,
    skip_existing: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
    device: str | None = None,
) -> int:
    """Save what a trained model sees in images.

    ``OUT/x/1.png`` is the label map of ``x/1.jpg`` of a given folder, in the values that the files
    of the config's test set hold; ``OUT/overlay/x/1.png`` the image with the classes painted over
    it; ``OUT/probabilities/x/1.npz`` has ``probabilities``, float16 (K, H, W), and ``classes``, the
    K names. A file is there as a whole or not at all. Images are read as in training: as stored,
    whatever EXIF says of their orientation, of which a line reminds.

    Args:
        config: Config that the model was trained with.
        checkpoint: A checkpoint of it.
        inputs: Images, and folders that are searched with their sub-folders.
        out: Folder of what is saved.
        cfg_options: Overrides of the config, with dots in the keys.
        overlay: Whether to save paintings.
        probabilities: Whether to save probabilities.
        skip_existing: Leave out images whose files are all there, instead of refusing to replace.
        batch_size: Images per batch; that of the config's test set by default.
        workers: Processes that read images; likewise, but not more than there are processors.
        device: The best one by default.

    Returns:
        The number of images that could not be read; each is named on the standard error.

    Raises:
        UsageError: If there is no image or no such device, or a file would be replaced.
        ValueError: If the checkpoint does not fit the config, or was trained on other classes.
    """
    kinds = {"": ".png"}
    kinds |= {"overlay": ".png"} if overlay else {}
    kinds |= {"probabilities": ".npz"} if probabilities else {}
    images = find_images(inputs, out)
    plan = plan_outputs(images, out, kinds, skip_existing)
    print(f"{len(images)} images, {len(images) - len(plan)} of them done before, to {out}")
    if not plan:
        return 0
    cfg = load_config(config, cfg_options, needs=("model", "test_dataloader"))
    check_numbers(cfg)
    init_default_scope(cfg.get("default_scope") or "mmseg")
    use_device_well(cfg)
    loader = cfg.test_dataloader
    data = _dataset(loader.dataset)
    names = class_names(data)
    device = get_device() if device is None else _existing_device(device)
    model, _ = load_trained(cfg, checkpoint, device, names)
    if probabilities:
        if not isinstance(model, SlidingWindowEncoderDecoder):
            raise UsageError(
                f"--probabilities needs model.type='VFMEncoderDecoder', not {type(model).__name__}"
            )
        model.test_cfg["probabilities"] = True
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    files = _Files(plan, names, inverse_table(data), palette_of(data, len(names)))
    batches = DataLoader(
        _Images(list(plan), loader.dataset, data, model_image_size(model), overlay),
        batch_size=batch_size or loader.get("batch_size", 1),
        num_workers=min(loader.get("num_workers", 0), cpus) if workers is None else workers,
        collate_fn=list,
    )
    return _predict_batches(model, batches, files)


def _predict_batches(model: nn.Module, batches: DataLoader, files: "_Files") -> int:
    failed, turned, console = 0, 0, Console(stderr=True)
    for batch in track(batches, "predicting", console=console, disable=not console.is_terminal):
        good = []
        for path, error, *rest in batch:
            if error is None:
                good.append((path, *rest))
            else:
                failed += 1
                print(f"not predicted: {printable(error)}", file=sys.stderr)
        if not good:
            continue
        paths, samples, pictures, turns = zip(*good, strict=True)
        turned += sum(turns)
        data = {name: [sample[name] for sample in samples] for name in ("inputs", "data_samples")}
        with torch.no_grad():
            results = model.test_step(data)
        for path, picture, result in zip(paths, pictures, results, strict=True):
            files.write(path, picture, result)
    if turned:
        print(
            f"{turned} images say in EXIF that they are shown turned: they were read, and results "
            "are saved, as stored"
        )
    print(f"{files.written} images predicted" + (f", {failed} not" if failed else ""))
    return failed


class _Files:
    """Write the files of each image."""

    def __init__(
        self,
        plan: Mapping[Path, Mapping[str, Path]],
        names: list[str],
        inverse: np.ndarray,
        palette: np.ndarray,
    ) -> None:
        self.plan = plan
        self.names = names
        self.inverse = inverse
        self.palette = palette
        self.written = 0

    def write(self, image: Path, picture: np.ndarray | None, result) -> None:
        """Write the files of an image, the label map last.

        Args:
            image: Its path.
            picture: (H, W, 3) uint8, RGB; None without a painting.
            result: The sample that the model has returned.
        """
        files = self.plan[image]
        classes = result.pred_sem_seg.data.squeeze(0).cpu().numpy()
        if "probabilities" in files:
            shares, data = result.probabilities.data.numpy(), BytesIO()
            np.savez_compressed(data, probabilities=shares, classes=np.array(self.names))
            files["probabilities"].parent.mkdir(parents=True, exist_ok=True)
            write_atomically(files["probabilities"], data.getvalue())
        if "overlay" in files:
            write_picture(files["overlay"], paint(picture, classes, self.palette, self.names))
        write_label(files[""], classes, self.inverse)
        self.written += 1


class _Images(Dataset):
    """Images as the test pipeline reads them; an error in place of one that cannot be read."""

    def __init__(self, paths: list[Path], cfg: Config, data, size, pictures: bool) -> None:
        pipeline = [t for t in leaf_config(cfg).pipeline if t["type"] != "LoadAnnotations"]
        fill_image_size(pipeline, size)
        self.pipeline = Compose(pipeline)
        self.paths = paths
        self.bit_depth = getattr(data, "bit_depth", 8)
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple:
        path = self.paths[index]
        try:
            data = fileio.get(str(path), _ARCHIVES)
            info = {"img_path": str(path), "bit_depth": self.bit_depth, "sample_idx": index}
            sample = self.pipeline(info)
            picture = None
            if self.pictures:
                picture = decode_image(data, str(path), bit_depth=self.bit_depth)[..., ::-1]
            return path, None, sample, picture, orientation(data) != 1
        except Exception as error:  # whatever a transform or a decoder raises on a bad file
            text = " ".join(str(error).split()) or type(error).__name__
            return path, text if str(path) in text else f"{path}: {text}"


def _existing_device(name: str) -> str:
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # as of its backend
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name} cannot be used: {reason}") from error
    return name


def _dataset(cfg: Config):
    """Build the test set without its files: they are not needed for what it says of labels."""
    leaf = {
        k: v for k, v in leaf_config(cfg).items() if k not in ("fraction", "subset_seed", "indices")
    }
    return DATASETS.build({**leaf, "lazy_init": True, "pipeline": []})
