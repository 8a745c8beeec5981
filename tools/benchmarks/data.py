#!/usr/bin/env python
"""Compare the data path with mmseg's stock one: pipeline, archives, sliding windows and metric.

Both sides take turns on the same images on one core, so that a ratio means something on a busy
machine. Prints one line for each comparison: milliseconds per image (median), the ratio of medians
with the quartiles over the rounds, and for pipelines the share of pure decoding in our time.
"""

import argparse
import platform
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS, TRANSFORMS
from mmseg.structures import SegDataSample
from PIL import Image
from torch import nn

import vfm_ss.datasets
from vfm_ss.datasets.seeding import SampleIndex
from vfm_ss.datasets.transforms.decode import decode_image, decode_label
from vfm_ss.evaluation.miou import MeanIoUMetric
from vfm_ss.models.segmentors.sliding_window import SlidingWindowEncoderDecoder

assert vfm_ss.datasets  # registers the transforms


def take_turns(sides: dict[str, Callable[[int], None]], rounds: int, images: int) -> dict:
    """Time each side on each image in turn; return {side: (rounds, images) seconds}."""
    times = {name: np.zeros((rounds, images)) for name in sides}
    for run in sides.values():
        run(0)
    for turn in range(rounds):
        for image in range(images):
            for name, run in sides.items():
                start = time.perf_counter()
                run(turn * images + image)
                times[name][turn, image] = time.perf_counter() - start
    return times


def report(title: str, times: dict, ours: str = "ours", note: str = "") -> None:
    """Print the comparison of every other side with ours."""
    for name in times:
        if name in (ours, "decoding"):
            continue
        low, high = np.quantile(times[name].sum(1) / times[ours].sum(1), [0.25, 0.75])
        # Medians over the rounds of each image: a busy machine makes some rounds slow.
        middle = np.median(times[name], 0).sum() / np.median(times[ours], 0).sum()
        print(
            f"{title:34} {name:22} {1e3 * np.median(times[name]):8.2f} ms   {ours} "
            f"{1e3 * np.median(times[ours]):8.2f} ms   {middle:5.2f} x ({low:.2f}-{high:.2f}){note}"
        )


def scene(height: int, width: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw textured regions: an image and its label, which compress about as photographs do."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, (height // 64 + 1, width // 64 + 1), dtype=np.uint8)
    label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)
    coarse = rng.integers(0, 256, (height // 32, width // 32, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
    image = image + rng.integers(-2, 3, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), label


def write_scenes(folder: Path, size: tuple[int, int], classes: int, kind: str) -> list:
    """Write three scenes and return their (image, label) paths."""
    pairs = []
    for seed in range(3):
        image, label = scene(*size, classes, seed)
        paths = folder / f"{seed}.{kind}", folder / f"{seed}_label.png"
        Image.fromarray(image).save(paths[0])
        Image.fromarray(label).save(paths[1])
        pairs.append(tuple(map(str, paths)))
    return pairs


def pipeline(steps: list, pairs: list, reduce_zero: bool) -> Callable[[int], dict]:
    """Return a function that runs a pipeline on the pair of a position."""
    built = [TRANSFORMS.build(step) for step in steps]

    def run(position: int) -> dict:
        image, label = pairs[position % len(pairs)]
        results = dict(
            img_path=image,
            seg_map_path=label,
            reduce_zero_label=reduce_zero,
            label_map=None,
            seg_fields=[],
            sample_idx=SampleIndex(0, 0, position),
        )
        for step in built:
            results = step(results)
        return results

    return run


def our_steps(crop: int) -> list:
    """Return the training pipeline of the base configs."""
    return [dict(type="LoadRandomCrop", crop_size=(crop, crop)), dict(type="PackSegInputs")]


def benchmark_pipeline(title: str, pairs: list, crop: int, reduce_zero: bool, rounds: int) -> None:
    """Compare LoadRandomCrop with mmseg's stock training pipeline."""
    stock = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations"),
        dict(type="RandomResize", scale=(2048, crop), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=(crop, crop), cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion"),
        dict(type="PackSegInputs"),
    ]
    plain = [{k: v for k, v in step.items() if k != "cat_max_ratio"} for step in stock]

    def decoding(position: int) -> None:
        image, label = pairs[position % len(pairs)]
        decode_image(Path(image).read_bytes(), image)
        decode_label(Path(label).read_bytes(), label)

    sides = {
        "ours": pipeline(our_steps(crop), pairs, reduce_zero),
        "mmseg stock": pipeline(stock, pairs, reduce_zero),
        "mmseg, same protocol": pipeline(plain, pairs, reduce_zero),
        "decoding": decoding,
    }
    times = take_turns(sides, rounds, len(pairs) * 4)
    share = np.median(times["decoding"]) / np.median(times["ours"])
    report(title, times, note=f"   decoding is {share:.0%} of ours")


def benchmark_storage(title: str, folder: Path, pairs: list, crop: int, rounds: int) -> None:
    """Compare samples from a zip, and from a tar, with samples from a folder."""
    archives = {kind: folder / f"pairs.{kind}" for kind in ("zip", "tar")}
    with (
        zipfile.ZipFile(archives["zip"], "w", zipfile.ZIP_DEFLATED) as zip_file,
        tarfile.open(archives["tar"], "w") as tar_file,
    ):
        for name in (name for pair in pairs for name in pair):
            zip_file.write(name, Path(name).name)
            tar_file.add(name, Path(name).name)
    places = {
        kind: [[f"{path}/{Path(n).name}" for n in pair] for pair in pairs]
        for kind, path in archives.items()
    }
    sides = {
        kind: pipeline(our_steps(crop), place, reduce_zero=False)
        for kind, place in {"folder": pairs, **places}.items()
    }
    report(title, take_turns(sides, rounds, len(pairs) * 4), ours="folder")


@MODELS.register_module()
class CannedLogits(nn.Module):
    """A network that costs nothing: logits that were made before."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.logits = torch.randn(4, classes, 64, 64, generator=torch.Generator().manual_seed(0))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        """Return as many logits as the images have 16 x 16 patches."""
        return (self.logits[: len(x), :, : x.shape[2] // 16, : x.shape[3] // 16],)


@MODELS.register_module()
class PassThroughHead(MODELS.get("FCNHead")):
    """A head that adds nothing."""

    def forward(self, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        """Return the logits of the backbone."""
        return inputs[0]


def benchmark_windows(title: str, classes: int, size: tuple[int, int], rounds: int) -> None:
    """Compare windows and metric with mmseg's slide_inference and IoUMetric."""
    crop = min(size)
    model = dict(
        backbone=dict(type="CannedLogits", classes=classes),
        decode_head=dict(
            type="PassThroughHead",
            in_channels=classes,
            channels=classes,
            num_classes=classes,
            num_convs=0,
            concat_input=False,
            kernel_size=1,
        ),
    )
    cfg = ConfigDict(mode="slide", crop_size=(crop, crop))
    # Two windows on either side: the stride of mmseg that needs no more.
    strided = ConfigDict(cfg, stride=(crop, crop))
    pairs = {
        "ours": (SlidingWindowEncoderDecoder(**model, test_cfg=cfg), MeanIoUMetric()),
        "mmseg": (EncoderDecoder(**model, test_cfg=strided), IoUMetric()),
    }
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, *size, generator=generator)
    label = torch.randint(0, classes, (1, *size), generator=generator)

    def runner(segmentor: nn.Module, metric) -> Callable[[int], None]:
        segmentor.eval()
        metric.dataset_meta = dict(classes=list(range(classes)))

        def run(position: int) -> None:
            sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size))
            sample.gt_sem_seg = PixelData(data=label)
            with torch.no_grad():
                outputs = segmentor.predict(image, [sample])
            metric.process({}, [output.to_dict() for output in outputs])

        return run

    report(title, take_turns({k: runner(*v) for k, v in pairs.items()}, rounds, 1))


def main() -> None:
    """Run every comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--ade", type=Path, help="folder with images/*.jpg and annotations/*.png of ADE20K"
    )
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    init_default_scope("mmseg")
    try:
        from importlib.metadata import version

        decoder = f"kornia-rs {version('kornia-rs')}"
    except ImportError:
        decoder = "not installed, OpenCV and Pillow decode PNG"
    print(
        f"{platform.processor() or platform.machine()}, python {platform.python_version()}, "
        f"torch {torch.__version__}, opencv {cv2.__version__}, kornia-rs: {decoder}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large = folder / "small", folder / "large"
        small.mkdir()
        large.mkdir()
        if args.ade:
            images = sorted((args.ade / "images").glob("*.jpg"))
            labels = [args.ade / "annotations" / f"{image.stem}.png" for image in images]
            jpeg = [tuple(map(str, pair)) for pair in zip(images, labels, strict=True)]
        else:
            jpeg = write_scenes(small, (512, 683), 150, "jpg")
        png = write_scenes(large, (1024, 2048), 19, "png")
        what = "ADE20K" if args.ade else "synthetic"
        benchmark_pipeline(f"{what} JPEG, crop 512", jpeg, 512, True, args.rounds)
        benchmark_pipeline("2048x1024 PNG, crop 1024", png, 1024, False, max(args.rounds // 3, 3))
        benchmark_storage("sample from an archive, JPEG", small, jpeg, 512, args.rounds)
        benchmark_storage("sample from an archive, PNG", large, png, 1024, max(args.rounds // 3, 3))
    benchmark_windows("windows + mIoU, 512x683, 150", 150, (512, 683), args.rounds)
    benchmark_windows("windows + mIoU, 1024x2048, 19", 19, (1024, 2048), args.rounds)


if __name__ == "__main__":
    main()
