#!/usr/bin/env python
"""Time validation against mmseg's stock evaluator, images as files to scores.

    python tools/benchmarks/eval.py --rounds 5
    python tools/benchmarks/eval.py --model vit_base_patch16_224 --precision fp16    # on a GPU

Both sides have the same network (random weights, a linear head), read the same synthetic JPEG
images and PNG labels in their own pipeline, lay the same number of windows over them, and count.
`stock` is mmseg's EncoderDecoder with slide_inference, one image at a time, and IoUMetric; `ours`
is the segmentor, batch and metric of the base configs. They take turns on the same images. The
floor is the network alone: all windows of an image in one pass, without anything around it.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from common import DTYPES, device_name, make_parser, spread, versions
from data import pipeline, write_scenes
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmseg.evaluation import IoUMetric
from mmseg.registry import MODELS

import vfm_ss  # noqa: F401
from vfm_ss.evaluation import MeanIoUMetric

CASES = {"512x683, 150 classes": (512, 683, 150), "1024x2048, 19 classes": (1024, 2048, 19)}


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="a plain ViT of timm")
    parser.add_argument("--depth", type=int, default=4, help="blocks of it; 0 for all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1, help="images of a batch, ours")
    parser.add_argument("--precision", choices=DTYPES, default="fp32", help="of ours")
    return parser.parse_args()


def build_models(args: argparse.Namespace, crop: int, classes: int) -> dict:
    """Build both segmentors with the same weights."""
    depth = {"depth": args.depth} if args.depth else {}
    backbone = dict(type="TimmViT", model_name=args.model, img_size=crop, pretrained=False, **depth)
    head = dict(type="LinearHead", num_classes=classes)
    torch.manual_seed(0)
    ours = MODELS.build(
        dict(
            type="VFMEncoderDecoder",
            backbone=backbone,
            decode_head=head,
            data_preprocessor=dict(type="PaddingSegDataPreProcessor", bgr_to_rgb=True),
            test_cfg=dict(mode="slide"),
        )
    )
    statistics_of = {
        name: [255 * v for v in getattr(ours.backbone, name)] for name in ("mean", "std")
    }
    stock = MODELS.build(
        dict(
            type="mmseg.EncoderDecoder",
            backbone=backbone,
            decode_head=dict(head, in_channels=ours.backbone.embed_dim),
            data_preprocessor=dict(
                type="SegDataPreProcessor", bgr_to_rgb=True, size=(crop, crop), **statistics_of
            ),
            # Two windows on either side: the stride of mmseg that needs no more.
            test_cfg=ConfigDict(mode="slide", crop_size=(crop, crop), stride=(crop, crop)),
        )
    )
    stock.load_state_dict(ours.state_dict())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {"stock": stock.to(device).eval(), "ours": ours.to(device).eval()}


def pipeline_steps(crop: int) -> dict[str, list[dict]]:
    """Return the configs of the test pipelines."""
    return {
        "stock": [
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(8 * crop, crop), keep_ratio=True),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
        "ours": [
            dict(type="LoadImage"),
            dict(type="ResizeToCover", size=(crop, crop)),
            dict(type="LoadLabel"),
            dict(type="PackSegInputs"),
        ],
    }


def validate(model, metric, load, images: int, batch: int, autocast) -> dict:
    """Evaluate on all images; return the scores."""
    metric.dataset_meta = dict(classes=[str(c) for c in range(model.decode_head.num_classes)])
    metric.results.clear()
    for start in range(0, images, batch):
        data = pseudo_collate([load(i) for i in range(start, min(start + batch, images))])
        with torch.no_grad(), autocast:
            outputs = model.val_step(data)
        metric.process(data, [output.to_dict() for output in outputs])
    return metric.compute_metrics(metric.results)


def network_alone(model, windows: int, crop: int, autocast) -> float:
    """Return the seconds of the backbone and head on an image's windows."""
    x = torch.zeros(windows, 3, crop, crop, device=next(model.parameters()).device)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        with torch.no_grad(), autocast:
            model.decode_head(model.extract_feat(x)).sum().item()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    init_default_scope("mmseg")
    MMLogger.get_current_instance().setLevel("ERROR")  # not the tables of classes
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(
        f"{device_name()}; {versions()}; {args.model}, depth {args.depth or 'full'}, "
        f"{args.precision}, {args.batch} image(s), {args.rounds} rounds\n"
    )
    print("| case | stock ms/image | ours ms/image | ratio (smallest-largest) | network alone ms |")
    print("|---|---|---|---|---|")
    autocast = (
        nullcontext()
        if args.precision == "fp32"
        else torch.autocast(device, DTYPES[args.precision])
    )
    for title, (height, width, classes) in CASES.items():
        crop = min(height, width)
        models = build_models(args, crop, classes)
        metrics = {"stock": IoUMetric(), "ours": MeanIoUMetric()}
        contexts = {"stock": nullcontext(), "ours": autocast}
        batches = {"stock": 1, "ours": args.batch}
        times = {"stock": [], "ours": []}
        with tempfile.TemporaryDirectory() as folder:
            pairs = write_scenes(Path(folder), (height, width), classes, "jpg")
            loaders = {
                side: pipeline(steps, pairs, reduce_zero=False)
                for side, steps in pipeline_steps(crop).items()
            }
            for turn in range(args.rounds + 1):
                scores = {}
                for side in list(times)[:: 1 if turn % 2 else -1]:
                    start = time.perf_counter()
                    scores[side] = validate(
                        models[side],
                        metrics[side],
                        loaders[side],
                        len(pairs),
                        batches[side],
                        contexts[side],
                    )
                    times[side].append((time.perf_counter() - start) / len(pairs))
        difference = abs(scores["stock"]["mIoU"] - scores["ours"]["mIoU"])
        ratios = [a / b for a, b in zip(times["stock"][1:], times["ours"][1:], strict=True)]
        alone = network_alone(models["ours"], 2, crop, autocast)
        middles = [1e3 * statistics.median(times[side][1:]) for side in times]
        print(
            f"| {title} | {middles[0]:.0f} | {middles[1]:.0f} | {spread(ratios, 1)} "
            f"| {1e3 * alone:.0f} |   "
            f"mIoU differs by {difference:.3f}"
        )


if __name__ == "__main__":
    main()
