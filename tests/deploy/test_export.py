"""Exported models: they compute what the checkpoint's model computes, or are not written."""

import json
import re
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmseg.apis import init_model

from vfm_ss.cli import main
from vfm_ss.deploy import check_images
from vfm_ss.deploy import export as export_module
from vfm_ss.deploy.export import export
from vfm_ss.protocol.vfms import FAMILIES, VFMS

# A ViT of one block.
TINY = dict(
    type="TimmViT",
    model_name="vit_tiny_patch16_224",
    img_size=(32, 48),
    depth=1,
    embed_dim=48,
    num_heads=3,
)
SMALL = {"img_size": (32, 48), "depth": 1}
# SAM's windows of 2 tokens do not divide the 3 columns: padding is part of the graph.
SPECIAL = {"sam": {"window_size": 2, "depth": 2, "global_attn_indexes": [1]}}


def run(path, image):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})[0]


def images(count=2, size=(32, 48), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, *size), dtype=np.uint8)


def predicted(config, checkpoint, rgb):
    """Logits by mmseg's own loading and preprocessing."""
    model = init_model(str(config), str(checkpoint), device="cpu")
    model.test_cfg.mode = "whole"
    with torch.no_grad():
        bgr = [torch.from_numpy(image[::-1].copy()) for image in rgb]
        return torch.stack([s.seg_logits.data for s in model.test_step(dict(inputs=bgr))]).numpy()


@pytest.mark.parametrize("key", FAMILIES["paper"])
def test_every_vfm(key, trained, tmp_path):
    """The heads in turn, as each is exported with half of the architectures."""
    mask2former = dict(type="SingleScaleMask2FormerHead", num_layers=1, channels=32, num_heads=2)
    eomt = dict(type="EoMTHead", num_queries=5)
    head = (mask2former, eomt, None)[FAMILIES["paper"].index(key) % 3]
    backbone = {"type": VFMS[key].name, **SMALL, **SPECIAL.get(key, {})}
    if head is eomt:
        backbone.update(depth=2, open_blocks=1)
    config, checkpoint = trained(backbone, head)
    path = tmp_path / "model.onnx"
    print(*export(config, checkpoint, [path], dynamic_batch=True), sep="\n")
    rgb = images(3)
    expected = predicted(config, checkpoint, rgb)
    assert np.abs(expected).max() > 0.1
    for part in (slice(0, 1), slice(0, 3)):
        np.testing.assert_allclose(run(path, rgb[part]), expected[part], rtol=1e-4, atol=1e-4)


def test_eomt(trained, tmp_path):
    backbone = dict(TINY, model_name="vit_small_patch14_reg4_dinov2", depth=2, open_blocks=1)
    config, checkpoint = trained(backbone, dict(type="EoMTHead", num_queries=5))
    path = tmp_path / "model.onnx"
    list(export(config, checkpoint, [path], dynamic_batch=True))
    rgb = images(2)
    expected = predicted(config, checkpoint, rgb)
    np.testing.assert_allclose(run(path, rgb), expected, rtol=0, atol=1e-4)


def test_batch_norm_is_that_of_the_running_statistics(trained, tmp_path):
    """DINOv3's probe; a batch of other images changes nothing."""
    config, checkpoint = trained(TINY, dict(type="BatchNormLinearHead"))
    saved = torch.load(checkpoint, weights_only=True)
    norm = {k: v for k, v in saved["state_dict"].items() if ".norm.running_" in k}
    assert len(norm) == 2
    for value in norm.values():
        value.copy_(1 + torch.rand(value.shape, generator=torch.Generator().manual_seed(0)))
    torch.save(saved, checkpoint)
    path = tmp_path / "model.onnx"
    list(export(config, checkpoint, [path], dynamic_batch=True))
    rgb = images(3)
    expected = predicted(config, checkpoint, rgb)
    for part in (slice(0, 1), slice(0, 3)):
        np.testing.assert_allclose(run(path, rgb[part]), expected[part], rtol=1e-4, atol=1e-4)
    # By hand, from the features.
    model = init_model(str(config), str(checkpoint), device="cpu")
    head = model.decode_head
    with torch.no_grad():
        x = torch.from_numpy(rgb).float()
        mean, std = (model.data_preprocessor.mean, model.data_preprocessor.std)
        (features,) = model.backbone((x - mean) / std)
        column = (slice(None), None, None)
        scaled = (features - norm["decode_head.norm.running_mean"][column]) / (
            norm["decode_head.norm.running_var"] + 1e-5
        ).sqrt()[column]
        scaled = scaled * head.norm.weight[column] + head.norm.bias[column]
        logits = torch.einsum("kc,bchw->bkhw", head.conv_seg.weight[..., 0, 0], scaled)
        logits += head.conv_seg.bias[column]
        logits = torch.nn.functional.interpolate(logits, (32, 48), mode="bilinear")
    np.testing.assert_allclose(run(path, rgb), logits.numpy(), rtol=1e-4, atol=1e-4)


def test_files_say_what_they_are(tiny, tmp_path):
    path = tmp_path / "model.onnx"
    lines = list(export(*tiny, [path]))
    assert "largest difference of logits" in lines[1]
    graph = onnx.load(path)
    onnx.checker.check_model(graph)
    assert {node.domain for node in graph.graph.node} == {""}
    facts = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(facts["classes"]) == ["sky", "road", "tree", "car", "person"]
    (image,), (logits,) = graph.graph.input, graph.graph.output
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value for d in image.type.tensor_type.shape.dim] == [1, 3, 32, 48]
    assert [d.dim_value for d in logits.type.tensor_type.shape.dim] == [1, 5, 32, 48]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "small.pth", "small.py"]


def test_a_fixed_batch_takes_no_other(tiny, tmp_path):
    path = tmp_path / "model.onnx"
    list(export(*tiny, [path]))
    with pytest.raises(Exception, match=r"Got: 2 Expected: 1"):
        run(path, images(2))
    with pytest.raises(Exception, match="float"):  # images in 0 to 1 do not get in either
        run(path, images(1).astype(np.float32) / 255)


@pytest.mark.parametrize("classes", [5, 1])
def test_argmax_and_float_images(classes, trained, tmp_path):
    head = {"num_classes": classes}
    if classes == 1:
        head = dict(num_classes=2, out_channels=1, threshold=0.4)
    config, checkpoint = trained(TINY, head)
    path, program = tmp_path / "model.onnx", tmp_path / "model.pt2"
    list(export(config, checkpoint, [path, program], argmax=True, input_type="float32"))
    image = images(1)
    model = init_model(str(config), str(checkpoint), device="cpu")
    model.test_cfg.mode = "whole"
    bgr = torch.from_numpy(image[0, ::-1].copy())
    expected = model.test_step(dict(inputs=[bgr]))[0].pred_sem_seg.data.numpy()
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(run(path, image.astype(np.float32)), expected)
    loaded = torch.export.load(program).module()
    np.testing.assert_array_equal(loaded(torch.from_numpy(image).float()).numpy(), expected)


def test_a_torch_program_takes_any_batch(tiny, tmp_path):
    path = tmp_path / "model.pt2"
    list(export(*tiny, [path], dynamic_batch=True))
    rgb, loaded = images(3), torch.export.load(path).module()
    expected = predicted(*tiny, rgb)
    for part in (slice(0, 1), slice(0, 3)):
        got = loaded(torch.from_numpy(rgb[part])).detach().numpy()
        np.testing.assert_allclose(got, expected[part], rtol=0, atol=1e-4)


def test_half_precision(tiny, tmp_path):
    path = tmp_path / "model.onnx"
    lines = list(export(*tiny, [path], fp16=True))
    weights = [w for w in onnx.load(path).graph.initializer if len(w.dims) > 1]
    kinds = {w.data_type for w in weights if np.prod(w.dims) > 100}
    assert kinds == {onnx.TensorProto.FLOAT16}
    rgb = images(1)
    expected, got = predicted(*tiny, rgb), run(path, rgb)
    assert got.dtype == np.float32
    assert 0 < np.abs(got - expected).max() < 0.01 * np.abs(expected).max(), lines


@pytest.mark.parametrize("fp16", [False, True])
def test_adapters_are_merged(fp16, trained, tmp_path):
    config, checkpoint = trained({**TINY, "lora": dict(r=2)})
    path = tmp_path / "model.onnx"
    lines = list(export(config, checkpoint, [path], fp16=fp16))
    assert "adapters of 1 layers merged into their weights" in lines
    assert not any("lora" in weight.name for weight in onnx.load(path).graph.initializer)
    rgb = images(1)
    expected = predicted(config, checkpoint, rgb)
    np.testing.assert_allclose(run(path, rgb), expected, rtol=0, atol=0.02 if fp16 else 1e-4)


def test_channels_that_the_model_wants_as_bgr(trained, tmp_path):
    config, checkpoint = trained(TINY)
    text = config.read_text()
    assert "bgr_to_rgb=True" in text
    config.write_text(text.replace("bgr_to_rgb=True", "bgr_to_rgb=False"))
    list(export(config, checkpoint, [tmp_path / "model.onnx"]))
    rgb = images(1)
    expected = predicted(config, checkpoint, rgb)
    np.testing.assert_allclose(run(tmp_path / "model.onnx", rgb), expected, rtol=0, atol=1e-4)


def change(checkpoint, how):
    loaded = torch.load(checkpoint)
    how(loaded["state_dict"])
    torch.save(loaded, checkpoint)


NAME = "decode_head.conv_seg.bias"


@pytest.mark.parametrize(
    ("how", "text"),
    [
        (lambda s: s.pop(NAME), f"is of another model: 1 of .* weights do not fit, such as {NAME}"),
        (
            lambda s: s.update(extra=torch.ones(2)),
            r"beyond the model's, 1 weight.s., such as extra",
        ),
        (lambda s: s.update({NAME: torch.ones(3)}), f"such as {NAME} .5,., which is of shape .3,"),
        (lambda s: s[NAME].fill_(torch.nan), "not finite"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(how, text, tiny, tmp_path, capsys):
    change(tiny[1], how)
    status = main.main(["export", *map(str, tiny), "--out", str(tmp_path / "model.onnx")])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert status == 1
    assert line.startswith("vfm-ss export: error: ")

    assert re.search(text, line), line
    assert not (tmp_path / "model.onnx").exists()


def test_a_graph_that_computes_something_else_is_not_written(tiny, tmp_path, monkeypatch):
    """As an exporter with a fault in one operator would make it; --argmax sees it, too."""

    class Shifted(export_module.Exportable):
        def forward(self, image):
            out = super().forward(image)
            return (out + 1) % 5 if self.argmax else out + 0.002

    monkeypatch.setattr(export_module, "Exportable", Shifted)
    for argmax in (False, True):
        with pytest.raises(ValueError, match=r"model.onnx is not written, it differs"):
            list(export(*tiny, [tmp_path / "model.onnx"], argmax=argmax))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.pth", "small.py"]


def test_a_model_that_rounding_decides(tiny, tmp_path, monkeypatch):
    """Torch in fp32 is as far from fp64 as the graph is: that is no fault of the graph."""

    def forward(self, inputs):
        logits = self.cls_seg(self.chosen_features(inputs))
        return logits + 0.01 * (1e6 * logits).sin()

    monkeypatch.setattr("vfm_ss.models.decode_heads.linear_head.LinearHead.forward", forward)
    lines = list(export(*tiny, [tmp_path / "model.onnx"]))
    found = re.search(r"difference of logits ([\d.]+) from the model in fp64", lines[1])
    assert 0.001 < float(found[1]) < 0.03

    class Shifted(export_module.Exportable):
        def forward(self, image):
            return super().forward(image) + 0.2

    monkeypatch.setattr(export_module, "Exportable", Shifted)
    with pytest.raises(ValueError, match=r"other.onnx is not written"):
        list(export(*tiny, [tmp_path / "other.onnx"]))


def test_a_batch_that_the_graph_bakes_in_is_seen(tiny, tmp_path, monkeypatch):
    class FirstImageOnly(export_module.Exportable):
        def forward(self, image):
            return super().forward(image[:1].expand(image.shape[0], -1, -1, -1))

    monkeypatch.setattr(export_module, "Exportable", FirstImageOnly)
    with pytest.raises(ValueError, match=r"model.onnx is not written, it differs"):
        list(export(*tiny, [tmp_path / "model.onnx"], dynamic_batch=True))


def test_a_model_that_cannot_be_traced(tiny, tmp_path, monkeypatch):
    def forward(self, inputs):
        logits = self.cls_seg(self.chosen_features(inputs))
        return logits if logits.max().item() > 0 else -logits

    monkeypatch.setattr("vfm_ss.models.decode_heads.linear_head.LinearHead.forward", forward)
    with pytest.raises(ValueError, match=r"torch\.export cannot trace TimmViT with LinearHead"):
        list(export(*tiny, [tmp_path / "model.onnx"]))


def test_wrong_arguments(tiny, tmp_path, monkeypatch, capsys):
    def fails(*args):
        status = main.main(["export", *map(str, tiny), *args])
        return status, capsys.readouterr().err.strip().splitlines()[-1]

    assert fails("--out", "m.trt") == (
        2,
        "vfm-ss export: error: --out m.trt must end in .onnx or .pt2",
    )
    status, line = fails("--out", str(tmp_path / "no" / "m.onnx"))
    assert (status, "there is no folder" in line) == (2, True)
    status, line = fails("--out", str(tmp_path / "m.onnx"), "--images", str(tiny[0]))
    assert (status, "cannot be read as an image" in line) == (1, True)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, line = fails("--out", str(tmp_path / "m.onnx"))
    assert status == 2
    assert line.endswith("needs onnxruntime; install with: pip install 'vfm_ss[export]'")


def test_images_to_compare_on_keep_their_channels(tmp_path):
    """Red is the last channel of mmseg's BGR images, wherever they come from."""
    import cv2
    from mmengine.config import Config

    image = np.zeros((50, 90, 3), np.uint8)
    image[..., 2] = 200
    cv2.imwrite(str(tmp_path / "red.png"), image)
    shown, source = check_images.find_images(Config(), (32, 48), [tmp_path / "red.png"])
    assert source == "the images given"
    assert [s.shape for s in shown] == [(3, 32, 48)] * 3
    assert all((s[2] == 200).all() and not s[:2].any() for s in shown)
    photograph, source = check_images.find_images(Config(), (32, 48))
    assert "sample photograph, as the test data cannot be read (the config has none)" in source
    assert photograph[0].std() > 20
