"""A trained model as an ONNX graph or a ``torch.export`` program, compared with the original.

Shapes: B images, C classes, H and W the size that the network is built for.
"""

import copy
import functools
import importlib
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from vfm_ss.errors import UsageError
from vfm_ss.files import sha256
from vfm_ss.image_size import model_image_size
from vfm_ss.models.backbones.lora import merge_lora
from vfm_ss.version import __version__

from .check_images import find_images
from .trained import load_trained

#: Largest difference from the original's logits that an export in fp32 may have.
TOLERANCE = 1e-3
#: Where torch itself is less exact: how many times its difference from fp64 a graph may have.
ROUNDING = 4
#: Largest difference in fp16, as a share of the largest logit.
FP16_TOLERANCE = 0.05
#: A graph of more bytes than this keeps its weights in a file beside it: protobuf ends at 2 GiB.
_ONE_FILE = 2**31 - 2**24
_FORMATS = (".onnx", ".pt2")


class Exportable(nn.Module):
    """A segmentor from images as they are to logits, or classes, of every pixel.

    Args:
        model: An mmseg segmentor. Its data preprocessor says how images are normalised.
        size: (H, W).
        argmax: Return classes instead of logits.
        fp16: Compute in half precision, but for the normalisation. Logits are fp32 all the same.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int], argmax: bool, fp16: bool):
        super().__init__()
        preprocessor = model.data_preprocessor
        self.swap = not preprocessor.swaps_channels  # images are RGB here, and BGR in mmseg
        self.normalise = preprocessor.normalises
        if self.normalise:
            self.register_buffer("mean", preprocessor.mean.detach().clone())
            self.register_buffer("std", preprocessor.std.detach().clone())
        self.model = copy.deepcopy(model).half() if fp16 else model
        self.meta = {"ori_shape": size, "img_shape": size, "pad_shape": size}
        self.argmax, self.fp16 = argmax, fp16

    def forward(self, image: Tensor) -> Tensor:
        """Segment images.

        Args:
            image: (B, 3, H, W) RGB in 0 to 255.

        Returns:
            (B, C, H, W) fp32 logits, or (B, H, W) int64 classes.
        """
        image = image.float()
        if self.swap:
            image = image.flip(1)
        if self.normalise:
            image = (image - self.mean) / self.std
        image = image.half() if self.fp16 else image
        # The number of metas is the batch for mmseg; heads look at the size of the first alone.
        logits = self.model.encode_decode(image, [dict(self.meta)]).float()
        if not self.argmax:
            return logits
        if logits.shape[1] == 1:
            return (logits[:, 0].sigmoid() > self.model.decode_head.threshold).long()
        return logits.argmax(1)


def export(
    config: str | Path,
    checkpoint: str | Path,
    out: Sequence[str | Path],
    cfg_options: dict | None = None,
    *,
    dynamic_batch: bool = False,
    fp16: bool = False,
    argmax: bool = False,
    input_type: str = "uint8",
    images: Sequence[str | Path] = (),
) -> Iterator[str]:
    """Export a trained model, and compare each file with the original before it gets its name.

    Args:
        config: Config file that the checkpoint was trained with.
        checkpoint: What training saved.
        out: Files to write, ``.onnx`` or ``.pt2`` each.
        cfg_options: Overrides of the config, with dots in the keys.
        dynamic_batch: Take any number of images; otherwise one, and no other number.
        fp16: Compute in half precision.
        argmax: Give classes (B, H, W) instead of logits (B, C, H, W).
        input_type: ``'uint8'`` or ``'float32'`` images, of 0 to 255 either way.
        images: Image files to compare on; images of the config's test data by default.

    Yields:
        Lines that say what was compared and written.

    Raises:
        ImportError: If what the export needs is not installed.
        UsageError: If a file has another suffix or its folder is missing.
        ValueError: If the checkpoint is of another model, the model cannot be exported, or what was
            exported computes something else.
    """
    files = [Path(path) for path in out]
    for path in files:
        if path.suffix not in _FORMATS:
            raise UsageError(f"--out {path} must end in {' or '.join(_FORMATS)}")
        if not path.parent.is_dir():
            raise UsageError(f"--out {path}: there is no folder {path.parent}; make it first")
    if any(path.suffix == ".onnx" for path in files):
        _need("onnx", "onnxscript", "onnxruntime")
    model, cfg, meta = load_trained(config, checkpoint, cfg_options)
    size = _size(model, config)
    shown, source = find_images(cfg, size, images)
    yield f"comparing on {source}, {len(shown)} of {size[0]}x{size[1]} pixels"
    originals = [_original(model, image) for image in shown]
    exact = functools.cache(lambda: [_original(copy.deepcopy(model).double(), i) for i in shown])
    merged = merge_lora(model)
    if merged:
        yield f"adapters of {merged} layers merged into their weights"
    rgb = torch.from_numpy(np.stack([image[::-1] for image in shown]))
    rgb = rgb.to(getattr(torch, input_type))
    module = Exportable(model, size, argmax, fp16).eval()
    program = _trace(module, rgb[: 2 if dynamic_batch else 1], dynamic_batch)
    facts = {
        "vfm_ss": __version__,
        "config": Path(config).name,
        "checkpoint_sha256": sha256([Path(checkpoint)]),
        "input": f"RGB, 0 to 255, {input_type}, normalised inside",
        "output": "classes" if argmax else "logits",
        "classes": json.dumps(list(meta.get("dataset_meta", {}).get("classes") or [])),
    }
    for path in files:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            draft = Path(folder) / path.name
            compute = _save(program, draft, facts)
            outputs = _outputs(compute, rgb, dynamic_batch)
            yield f"{path}: {_compare(outputs, originals, module, exact, path)}"
            for part in sorted(Path(folder).iterdir()):
                part.replace(path.parent / part.name)
        yield f"{path}: written, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M weights"


def _need(*modules: str) -> None:
    missing = []
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError:
            missing.append(module)
    if missing:
        raise ImportError(
            f"an export to ONNX needs {', '.join(missing)}; install with: "
            "pip install 'vfm_ss[export]'"
        )


def _size(model: nn.Module, config: str | Path) -> tuple[int, int]:
    size = (
        model_image_size(model) or model.test_cfg.get("crop_size") or model.data_preprocessor.size
    )
    if size is None:
        raise ValueError(
            f"{config} does not say for which size to export: set model.backbone.img_size or "
            "model.test_cfg.crop_size=(height, width)"
        )
    return tuple(size)


@torch.no_grad()
def _original(model: nn.Module, image: np.ndarray) -> Tensor:
    """Return the logits (C, H, W) of one image by mmseg's own steps."""
    size = tuple(image.shape[-2:])
    sample = SegDataSample(metainfo={"ori_shape": size, "img_shape": size, "pad_shape": size})
    data = {"inputs": [torch.from_numpy(image)], "data_samples": [sample]}
    batch = model.data_preprocessor(data, False)
    inputs = batch["inputs"].to(next(model.parameters()).dtype)
    logits = model.encode_decode(inputs, [s.metainfo for s in batch["data_samples"]])[0]
    if not logits.isfinite().all():
        raise ValueError("the model itself gives logits that are not finite on a real image")
    return logits


def _trace(module: nn.Module, image: Tensor, dynamic: bool) -> torch.export.ExportedProgram:
    sizes = {"image": {0: torch.export.Dim("batch", min=1)} if dynamic else None}
    try:
        with torch.no_grad(), _without_warnings():
            return torch.export.export(module, (image,), dynamic_shapes=sizes)
    except Exception as error:  # torch's exporter has errors of many kinds
        head = type(module.model.decode_head).__name__
        raise ValueError(
            f"torch.export cannot trace {type(module.model.backbone).__name__} with {head}: "
            f"{_first_line(error)}"
        ) from error


def _save(program, path: Path, facts: dict[str, str]) -> Callable[[Tensor], Tensor]:
    """Write a file, read it again and return what it computes."""
    if path.suffix == ".pt2":
        torch.export.save(program, path, extra_files={"vfm_ss.json": json.dumps(facts)})
        return torch.export.load(path).module()
    try:
        with torch.no_grad(), _without_warnings():
            graph = torch.onnx.export(program, input_names=["image"], dynamo=True, verbose=False)
    except Exception as error:  # as for torch.export
        raise ValueError(f"torch cannot turn the model into ONNX: {_first_line(error)}") from error
    _describe(graph.model, facts)
    weights = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    graph.save(path, external_data=weights > _ONE_FILE)
    return _onnxruntime(path)


def _describe(model, facts: dict[str, str]) -> None:
    """Name input, output and batch, and say what the graph is."""
    model.metadata_props.update(facts)
    output = model.graph.outputs[0]
    output.name = facts["output"]
    for value in (model.graph.inputs[0], output):
        if not isinstance(value.shape[0], int):
            value.shape[0] = "batch"
    foreign = sorted({node.domain for node in model.graph.all_nodes()} - {"", "ai.onnx"})
    if foreign or len(model.functions):
        raise ValueError(
            f"the graph has operators beyond ONNX's own ({', '.join(foreign) or 'functions'}), "
            "which other programs cannot run"
        )


def _onnxruntime(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors, not what it cannot fold
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


@torch.no_grad()
def _outputs(
    compute: Callable[[Tensor], Tensor], images: Tensor, dynamic_batch: bool
) -> list[Tensor]:
    """Return what a file makes of each image alone, and then of all together where it can."""
    outputs = list(torch.cat([compute(image[None]) for image in images]))
    return outputs + list(compute(images)) if dynamic_batch else outputs


def _compare(
    outputs: list[Tensor],
    originals: list[Tensor],
    module: Exportable,
    exact: Callable[[], list[Tensor]],
    path: Path,
) -> str:
    """Compare what a file computes with the model's logits.

    A model that thresholds (Mask2Former's masks) is no continuous function: rounding decides a few
    pixels in torch as in the graph. It may be as far from its own logits in fp64 as a few times
    what torch is in fp32.

    Args:
        outputs: Of each image, once or twice.
        originals: The model's logits (C, H, W) of each image.
        module: What was exported.
        exact: The same logits in fp64.
        path: Name of the file, for the message.

    Raises:
        ValueError: If they differ by more than allowed.
    """
    measure = _lost if module.argmax else _difference

    def worst_to(references: list[Tensor]) -> float:
        pairs = zip(outputs, references * 2, strict=False)
        return max((measure(*pair, module) for pair in pairs), key=lambda x: (x != x, x))

    largest = max(logits.abs().max().item() for logits in originals)
    allowed = FP16_TOLERANCE * largest if module.fp16 else TOLERANCE
    worst, note = worst_to(originals), ""
    if not worst <= allowed and not module.fp16:
        own = max(map(_difference, originals, exact(), [module] * len(originals)))
        worst = worst_to(exact())
        allowed = max(TOLERANCE, ROUNDING * own)
        note = f" from the model in fp64, from which itself in fp32 differs by {own:.2g}"
    classes = [_classes(logits, module) for logits in originals] * 2
    same = [_classes(out, module) == want for out, want in zip(outputs, classes, strict=False)]
    what = "logit lost by another class" if module.argmax else "difference of logits"
    text = (
        f"largest {what} {worst:.2g}{note}, of up to {largest:.3g}, allowed {allowed:.2g}; "
        f"{100 * torch.stack(same).float().mean():.3f} % of the pixels have the same class"
    )
    if not worst <= allowed:
        raise ValueError(f"{path} is not written, it differs from the model: {text}")
    return text


def _difference(output: Tensor, logits: Tensor, module: Exportable) -> float:
    """Return the largest difference of logits (C, H, W)."""
    if output.shape != logits.shape:
        return float("nan")
    return (output - logits).abs().max().item()


def _lost(output: Tensor, logits: Tensor, module: Exportable) -> float:
    """Return how far the chosen class is at most behind the best one, in logits."""
    if output.shape != logits.shape[1:] or output.min() < 0:
        return float("nan")
    if logits.shape[0] == 1:
        threshold = torch.tensor(module.model.decode_head.threshold).logit()
        wrong = output != _classes(logits, module)
        return ((logits[0] - threshold).abs() * wrong).max().item()
    if output.max() >= logits.shape[0]:
        return float("nan")
    return (logits.amax(0) - logits.gather(0, output[None])[0]).max().item()


def _classes(output: Tensor, module: Exportable) -> Tensor:
    """Return classes (H, W) of logits (C, H, W); classes as they are."""
    if output.ndim == 2:
        return output
    if output.shape[0] == 1:
        return (output[0].sigmoid() > module.model.decode_head.threshold).long()
    return output.argmax(0)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hide the exporters' notes to their own developers."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
