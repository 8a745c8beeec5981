"""mmseg's own ways to apply a model, with a config of ours: paths, arrays, lists."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.apis import MMSegInferencer, inference_model, init_model
from mmseg.registry import MODELS
from PIL import Image

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a config, a checkpoint of it, and images."""
    folder = tmp_path_factory.mktemp("inference")
    cfg = Config.fromfile(ROOT / "configs/vfm/dinov2_b16_linear_ade20k.py")
    cfg.model.backbone.update(
        type="TimmViT", model_name="vit_tiny_patch16_224", depth=1, img_size=(32, 32),
        pretrained="nowhere.pth",
    )  # fmt: skip
    del cfg.model.backbone["arch"]
    cfg.dump(folder / "x.py")
    init_default_scope("mmseg")
    torch.manual_seed(0)
    cfg.model.backbone.pretrained = False
    model = MODELS.build(cfg.model)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=0.5)
    meta = dict(dataset_meta=dict(classes=[str(k) for k in range(150)], palette=[[9, 9, 9]] * 150))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / "iter_1.pth")
    rng = np.random.default_rng(0)
    for k, size in enumerate([(40, 60), (70, 50), (32, 32)]):
        pixels = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), size[::-1])
        Image.fromarray(pixels).save(folder / f"{k}.png")
    Image.fromarray(pixels[..., 0]).save(folder / "gray.png")
    return folder


@pytest.fixture
def model(place):
    return init_model(str(place / "x.py"), str(place / "iter_1.pth"), device="cpu")


def expected(model, path):
    """What the pipeline of a test gives, without mmseg's help."""
    from mmengine.dataset import Compose

    size = model.backbone.img_size
    steps = ["LoadImage", dict(type="ResizeToCover", size=size), "PackSegInputs"]
    pipeline = Compose([dict(type=s) if isinstance(s, str) else s for s in steps])
    sample = pipeline(dict(img_path=str(path)))
    with torch.no_grad():
        result = model.test_step({name: [value] for name, value in sample.items()})
    return result[0].pred_sem_seg.data


def classes(result):
    return result.pred_sem_seg.data


def test_inference_model_takes_paths_arrays_and_lists_in_any_order(place, model):
    paths = [str(place / f"{k}.png") for k in range(3)]
    arrays = [cv2.imread(path) for path in paths]
    wanted = [expected(model, path) for path in paths]
    assert len(wanted[0].unique()) > 3
    for _ in range(2):
        assert torch.equal(classes(inference_model(model, paths[0])), wanted[0])
        assert torch.equal(classes(inference_model(model, arrays[1])), wanted[1])
        for given in (paths, arrays, tuple(paths)):
            results = inference_model(model, given)
            assert len(results) == 3
            assert all(torch.equal(classes(r), w) for r, w in zip(results, wanted, strict=True))


def test_gray_and_opaque_arrays_are_images(place, model):
    gray = cv2.imread(str(place / "gray.png"), cv2.IMREAD_UNCHANGED)
    wanted = expected(model, place / "gray.png")
    for array in (gray, gray[..., None]):
        assert torch.equal(classes(inference_model(model, array)), wanted)
    bgr = cv2.imread(str(place / "0.png"))
    bgra = np.dstack([bgr, np.full(bgr.shape[:2], 255, np.uint8)])
    wanted = expected(model, place / "0.png")
    assert torch.equal(classes(inference_model(model, bgra)), wanted)
    assert torch.equal(classes(inference_model(model, bgr[:, ::-1][:, ::-1])), wanted)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((9, 9, 4), np.uint8), "an array with transparent pixels"),
        (np.zeros((9, 9, 3), np.float32), "this array has float32"),
        (np.zeros((9, 9), bool), "this array has bool"),
        (np.zeros((9, 9), np.uint16), "this array has uint16"),
        (np.zeros((3, 9, 9), np.uint8), r"an array of the shape \(3, 9, 9\) is not an image"),
        (np.zeros((0, 9, 3), np.uint8), r"an array of the shape \(0, 9, 3\) is not an image"),
    ],
)
def test_other_arrays_are_refused(model, array, message):
    with pytest.raises(ValueError, match=message):
        inference_model(model, array)


def test_deep_arrays_and_files_by_the_bit_depth_of_the_test_set(place):
    cfg = Config.fromfile(place / "x.py")
    cfg.test_dataloader.dataset.bit_depth = 12
    deep = init_model(cfg, str(place / "iter_1.pth"), device="cpu")
    plain = init_model(str(place / "x.py"), str(place / "iter_1.pth"), device="cpu")
    gray = cv2.imread(str(place / "gray.png"), cv2.IMREAD_UNCHANGED)
    stored = ((gray.astype(np.uint32) * 4095 + 127) // 255).astype(np.uint16)
    cv2.imwrite(str(place / "deep.png"), stored)
    wanted = classes(inference_model(plain, gray))
    for given in (stored, str(place / "deep.png")):
        assert torch.equal(classes(inference_model(deep, given)), wanted)
    with pytest.raises(ValueError, match="bit_depth=12 was stated"):
        inference_model(deep, gray)


def test_the_inferencer(place, model):
    inferencer = MMSegInferencer(str(place / "x.py"), str(place / "iter_1.pth"), device="cpu")
    paths = [str(place / f"{k}.png") for k in range(3)]
    wanted = [expected(model, path)[0].numpy() for path in paths]
    assert np.array_equal(inferencer(paths[0])["predictions"], wanted[0])
    arrays = [cv2.imread(path) for path in paths]
    for given in (paths, arrays):
        found = inferencer(given, batch_size=2)["predictions"]
        assert all(np.array_equal(f, w) for f, w in zip(found, wanted, strict=True))
    gray = cv2.imread(str(place / "gray.png"), cv2.IMREAD_UNCHANGED)
    found = inferencer(gray)["predictions"]
    assert np.array_equal(found, expected(model, place / "gray.png")[0].numpy())
    inferencer(paths[:1], out_dir=str(place / "out"))
    (saved,) = (place / "out/pred").iterdir()
    assert np.array_equal(cv2.imread(str(saved), cv2.IMREAD_UNCHANGED), wanted[0])
    assert (place / "out/vis/0.png").is_file()


@pytest.mark.parametrize("holder", ["meta", "runtime_info"])
def test_an_inferencer_executes_no_config_that_a_checkpoint_holds(place, holder):
    code = f"open({str(place / 'executed')!r}, 'w')"
    saved = torch.load(place / "iter_1.pth", weights_only=False)
    text = dict(cfg=code)
    saved["meta"] = text if holder == "meta" else {}
    saved["message_hub"] = dict(runtime_info=text if holder == "runtime_info" else {})
    torch.save(saved, place / "hostile.pth")
    with pytest.raises(ValueError, match="Cannot find the config in the checkpoint"):
        MMSegInferencer(None, str(place / "hostile.pth"), device="cpu")
    assert not (place / "executed").exists()
