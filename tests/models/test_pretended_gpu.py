"""What would run on a GPU, as far as that can be told without one.

torch's FakeTensor has a device, a type and a shape, but no values. So it fails where tensors of
two devices meet, and where the host asks for a number and would wait for the GPU.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.utils._python_dispatch import _disable_current_modes

from vfm_ss.evaluation.miou import MeanIoUMetric
from vfm_ss.models.bilinear import resize_matrix
from vfm_ss.models.losses import mask2former_loss, tiled_cross_entropy
from vfm_ss.models.segmentors import sliding_window
from vfm_ss.protocol.vfms import VFMS

CONFIGS = Path(__file__).parents[2] / "configs" / "vfm"
CUDA = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch):
    """A mode in which the device `cuda` is there, without values."""

    def on_the_host(function):
        def call(*args, **kwargs):
            with _disable_current_modes():
                return function(*args, **kwargs)

        return call

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    for module, name in ((tiled_cross_entropy, "supports"), (sliding_window, "axis_matrix")):
        monkeypatch.setattr(module, name, on_the_host(getattr(module, name)))
    resize_matrix.cache_clear()
    yield FakeTensorMode(allow_non_fake_inputs=True)
    resize_matrix.cache_clear()


def moved(model: nn.Module) -> nn.Module:
    """Make the parameters and buffers of a model ones of the pretended GPU."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA)
                    if isinstance(tensor, nn.Parameter):
                        fake = nn.Parameter(fake, requires_grad=tensor.requires_grad)
                    tensors[name] = fake
    model.data_preprocessor._device = CUDA
    return model


def build(name):
    init_default_scope("mmseg")
    leaf, _, decoder = name.partition("+")
    model = Config.fromfile(CONFIGS / f"{leaf}.py").model
    model.backbone.update(pretrained=False, depth=3)
    if decoder:
        model.decode_head.type = decoder
        model.backbone.open_blocks = 2
    return MODELS.build(model)


def batch(images=2, size=(512, 512)):
    samples = []
    for i in range(images):
        labels = PixelData(data=torch.zeros(1, *size, dtype=torch.long))
        sample = SegDataSample(gt_sem_seg=labels)
        sample.set_metainfo(dict(ori_shape=(size[0], size[1] + i), img_shape=size))
        samples.append(sample)
    inputs = [torch.zeros(3, *size, dtype=torch.uint8) for _ in samples]
    return dict(inputs=inputs, data_samples=samples)


def losses_of(model, data):
    """The losses as the train loop gets them, in fp16: autocast's own switch needs a GPU."""
    torch.set_autocast_dtype("cuda", torch.float16)
    torch.set_autocast_enabled("cuda", True)
    try:
        return model.parse_losses(
            model(**model.data_preprocessor(data, training=True), mode="loss")
        )
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


@pytest.mark.parametrize("vfm", [key for key in VFMS if VFMS[key].base])
def test_a_forward_pass_and_its_loss_ask_the_gpu_for_nothing(vfm, gpu):
    model = build(f"{vfm}_b16_linear_ade20k").train()
    logits = []
    model.decode_head.conv_seg.register_forward_hook(lambda *args: logits.append(args[2]))
    with gpu:
        loss, logs = losses_of(moved(model), batch())
    assert logits[0].dtype == torch.float16
    assert loss.dtype == torch.float32
    assert loss.device == CUDA
    assert loss.requires_grad
    assert all(value.device == CUDA for value in logs.values())


@pytest.mark.parametrize(
    "name",
    [
        "dinov2_b16_linear_ade20k",
        "dinov2_b16_mask2former_ade20k",
        "dinov3_b16_mask2former_ade20k+EoMTHead",
    ],
)
def test_a_validation_asks_the_gpu_for_nothing(name, gpu):
    model = build(name).eval()
    metric = MeanIoUMetric()
    metric.dataset_meta = dict(classes=["a class"] * 150)
    with gpu, torch.no_grad():
        data = moved(model).data_preprocessor(batch(size=(512, 683)), training=False)
        samples = model(**data, mode="predict")
        for i, sample in enumerate(samples):
            assert sample.pred_sem_seg.data.device == CUDA
            assert sample.pred_sem_seg.data.shape == (1, 512, 683 + i)
            sample.gt_sem_seg = PixelData(data=torch.zeros_like(sample.pred_sem_seg.data))
        metric.process({}, [sample.to_dict() for sample in samples])
    assert len(metric._pending) == 2


@pytest.mark.parametrize(
    ("name", "predictions"),
    [("dinov2_b16_mask2former_ade20k", 10), ("dinov3_b16_mask2former_ade20k+EoMTHead", 3)],
)
def test_mask2former_and_eomt_ask_for_their_costs_alone(name, predictions, gpu, monkeypatch):
    """Once a step, for all images and predictions."""
    asked = []

    def assign(costs, classes):
        asked.append([tuple(cost.shape) for cost in costs])
        pairs = predictions * sum(len(image) for image in classes)
        return torch.zeros(4, pairs, dtype=torch.long, device=costs[0].device)

    monkeypatch.setattr(mask2former_loss, "assign", assign)
    # Random numbers of a GPU need one; the default generator has none of its own here.
    source = SimpleNamespace(manual_seed=lambda seed: None)
    monkeypatch.setattr(torch, "Generator", lambda device: source)
    model = build(name).train()
    if predictions == 3:
        model.decode_head.begin_training(8)  # the first block is half annealed at step 3
    classes = [3, 2]
    data = batch()
    for i, sample in enumerate(data["data_samples"]):
        sample.gt_sem_seg.data[0, 0, : classes[i]] = torch.arange(classes[i])
    model.decode_head.begin_step(data["data_samples"], 1, 3, 0)
    with gpu:
        model = moved(model)
        model.decode_head._step_totals = torch.empty(3, dtype=torch.long, device=CUDA)
        loss, _ = losses_of(model, data)
    assert loss.dtype == torch.float32
    assert loss.device == CUDA
    assert asked == [[(predictions, 100, 3), (predictions, 100, 2)]]


def test_the_pretence_notices_who_waits_and_who_mixes(gpu):
    with gpu:
        on_gpu = torch.ones(3, device=CUDA)
        with pytest.raises(DataDependentOutputException):
            on_gpu.sum().item()
        with pytest.raises(RuntimeError, match="device"):
            on_gpu + torch.ones(3)
