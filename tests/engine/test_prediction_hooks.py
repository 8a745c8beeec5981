"""Predictions as label files and as pictures."""

import io
import logging
import zipfile
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmengine.visualization import Visualizer
from mmseg.datasets import ADE20KDataset, BaseSegDataset
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer
from PIL import Image

from vfm_ss.datasets import RawADE20KDataset, RawCityscapesDataset
from vfm_ss.datasets.raw_files import RawFilesMixin
from vfm_ss.engine.hooks import PaintPredictionsHook, SaveLabelsHook

SIZE = (24, 36)
PIPELINE = [dict(type="LoadImage"), dict(type="LoadLabel"), dict(type="PackSegInputs")]


class MaskDataset(RawFilesMixin, BaseSegDataset):
    METAINFO = dict(classes=("a", "b"), palette=[[0, 0, 0], [255, 0, 0]])  # noqa: RUF012


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmseg")


def encoded(array, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def write(root, names, values, image_end=".jpg", label_end=".png"):
    rng = np.random.default_rng(0)
    for name in names:
        image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
        label = np.array(values, np.uint8)[rng.integers(len(values), size=SIZE)]
        files = {f"images/{name}{image_end}": encoded(image), f"labels/{name}{label_end}": label}
        for file, data in files.items():
            path = root / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data if isinstance(data, bytes) else encoded(data))


def dataset(kind, root, **kwargs):
    prefix = dict(img_path="images", seg_map_path="labels")
    options = dict(data_root=str(root), data_prefix=prefix, pipeline=PIPELINE, test_mode=True)
    return kind(**(options | kwargs))


def runner_of(data):
    return SimpleNamespace(
        iter=0,
        test_dataloader=SimpleNamespace(dataset=data),
        val_dataloader=SimpleNamespace(dataset=data),
    )


def sample_of(path, classes):
    sample = SegDataSample(metainfo=dict(img_path=path))
    sample.pred_sem_seg = PixelData(data=torch.as_tensor(classes)[None])
    sample.gt_sem_seg = PixelData(data=torch.as_tensor(classes)[None])
    return sample


def save(data, out, count=None):
    """Save a random prediction for every image and return them by image."""
    hook, runner = SaveLabelsHook(str(out)), runner_of(data)
    hook.before_test(runner)
    rng = np.random.default_rng(1)
    classes = count or len(data.metainfo["classes"])
    predictions = {}
    for k in range(len(data)):
        path = data.get_data_info(k)["img_path"]
        predictions[path] = rng.integers(classes, size=SIZE)
        hook.after_test_iter(runner, k, None, [sample_of(path, predictions[path])])
    hook.after_test(runner)
    return predictions


CITYSCAPES = dict(img_suffix="_leftImg8bit.png")
# Dataset, stored values to write, options, and what each class is stored as.
TABLES = {
    "cityscapes": (
        RawCityscapesDataset,
        range(34),
        CITYSCAPES,
        [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33],
    ),
    "cityscapes, two classes": (
        RawCityscapesDataset,
        range(34),
        CITYSCAPES | dict(metainfo=dict(classes=("car", "sky"))),
        [26, 23],
    ),
    "cityscapes, converted": (
        RawCityscapesDataset,
        [*range(19), 255],
        CITYSCAPES | dict(seg_map_suffix="_gtFine_labelTrainIds.png"),
        list(range(19)),
    ),
    "ade20k": (RawADE20KDataset, range(151), {}, list(range(1, 151))),
    "ade20k, two classes": (
        RawADE20KDataset,
        range(151),
        dict(metainfo=dict(classes=("sky", "wall"))),
        [3, 1],
    ),
    "masks of 0 and 255": (MaskDataset, [0, 255], dict(stored_ids={0: 0, 255: 1}), [0, 255]),
    "masks turned round": (MaskDataset, [0, 255], dict(stored_ids={0: 1, 255: 0}), [255, 0]),
    "a map in metainfo": (
        MaskDataset,
        [3, 9],
        dict(metainfo=dict(label_map={9: 0, 3: 1, 7: 255})),
        [9, 3],
    ),
    "mmseg's own": (ADE20KDataset, range(151), {}, list(range(1, 151))),
    "mmseg's own, two classes": (
        ADE20KDataset,
        range(151),
        dict(metainfo=dict(classes=("sky", "wall"))),
        [3, 1],
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_saved_labels_hold_what_the_data_set_stores(tmp_path, name):
    kind, values, options, stored = TABLES[name]
    ends = dict(image_end=options.get("img_suffix", ".jpg"))
    if kind is RawCityscapesDataset:
        ends["label_end"] = options.get("seg_map_suffix", "_gtFine_labelIds.png")
    write(tmp_path, ["x/0", "x/1", "y/1"], values, **ends)
    data = dataset(kind, tmp_path, **options)
    predictions = save(data, tmp_path / "out")
    for path, classes in predictions.items():
        file = tmp_path / "out" / Path(path).relative_to(tmp_path / "images").with_suffix(".png")
        saved = np.asarray(Image.open(file))
        assert np.array_equal(saved, np.array(stored)[classes])
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3


@pytest.mark.parametrize("seed", range(10))
def test_saved_labels_are_read_back_as_the_predictions(tmp_path, seed):
    """For any map, also one that sends several values to one class."""
    rng = np.random.default_rng(seed)
    values = rng.choice(256, rng.integers(2, 60), replace=False).tolist()
    stored_ids = dict(zip(values, rng.integers(0, 2, len(values)).tolist(), strict=True))
    stored_ids |= {values[0]: 0, values[1]: 1}
    write(tmp_path, ["0", "1"], values)
    predictions = save(dataset(MaskDataset, tmp_path, stored_ids=stored_ids), tmp_path / "out")
    prefix = dict(img_path="images", seg_map_path="out")
    again = dataset(MaskDataset, tmp_path, stored_ids=stored_ids, data_prefix=prefix)
    for sample in again:
        samples = sample["data_samples"]
        assert np.array_equal(samples.gt_sem_seg.data[0], predictions[samples.img_path])


def test_a_table_without_an_inverse_says_so(tmp_path, caplog):
    write(tmp_path, ["0"], [0, 4, 7])
    data = dataset(MaskDataset, tmp_path, stored_ids={0: 0, 4: 0, 7: 255}, probe=False)
    with pytest.raises(ValueError, match=r"no stored value stands for the class 'b' \(1 such"):
        save(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING):
            save(dataset(MaskDataset, tmp_path, stored_ids={0: 0, 4: 1, 7: 1}), tmp_path / "out")
    finally:
        logger.removeHandler(caplog.handler)
    assert "'b' is stored as 4 and 7; predictions of it are saved as 4" in caplog.text


class TestNames:
    @pytest.mark.parametrize("store", ["folder", "zip"])
    def test_equal_names_in_sub_folders_are_kept_apart(self, tmp_path, store):
        names = [f"{city}/{k}" for city in ("aachen", "bonn", "ulm/old") for k in (0, 1)]
        write(tmp_path, names, [0, 1])
        root = tmp_path
        if store == "zip":
            root = tmp_path / "x.zip"
            with zipfile.ZipFile(root, "w") as archive:
                for path in [*tmp_path.rglob("*.jpg"), *tmp_path.rglob("*.png")]:
                    archive.write(path, path.relative_to(tmp_path))
        save(dataset(MaskDataset, root), tmp_path / "out")
        saved = [
            p.relative_to(tmp_path / "out").with_suffix("") for p in tmp_path.rglob("out/**/*.png")
        ]
        assert sorted(map(str, saved)) == sorted(names)

    def test_nothing_is_overwritten(self, tmp_path):
        write(tmp_path, ["0", "1"], [0, 1])
        data = dataset(MaskDataset, tmp_path)
        save(data, tmp_path / "out")
        before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        with pytest.raises(ValueError, match=r"out/0\.png exists: choose another folder"):
            save(data, tmp_path / "out")
        assert before == {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def test_two_data_sets_with_equal_names(self, tmp_path):
        for name in ("one", "two"):
            write(tmp_path / name, ["0"], [0, 1])
        parts = [dataset(MaskDataset, tmp_path / name) for name in ("one", "two")]
        both = DATASETS.build(dict(type="ConcatDataset", datasets=parts))
        with pytest.raises(
            ValueError, match=r"0\.png would be the prediction of .*one.* and of .*two"
        ):
            save(both, tmp_path / "out")

    def test_a_repeated_data_set_is_one(self, tmp_path):
        write(tmp_path, ["0", "1"], [0, 1])
        data = DATASETS.build(
            dict(type="RepeatDataset", dataset=dataset(MaskDataset, tmp_path), times=2)
        )
        save(data, tmp_path / "out")
        assert len(list((tmp_path / "out").iterdir())) == 2


def paint(folder, data, mode):
    """Paint the first image of a dataset with a fixed prediction, and return the picture."""
    visualizer = SegLocalVisualizer(
        name=f"{folder.name}_{mode}",
        vis_backends=[dict(type="LocalVisBackend")],
        save_dir=str(folder),
    )
    visualizer.dataset_meta = dict(classes=["a", "b"], palette=[[0, 0, 0], [255, 0, 0]])
    Visualizer._instance_dict.clear()
    Visualizer._instance_dict["now"] = visualizer
    hook, runner = PaintPredictionsHook(draw=True, interval=1), runner_of(data)
    classes = np.zeros(SIZE, np.int64)
    classes[:8, :12] = 1
    sample = sample_of(data.get_data_info(0)["img_path"], classes)
    getattr(hook, f"after_{mode}_iter")(runner, 0, {}, [sample])
    (picture,) = folder.rglob("*.png")
    return cv2.imread(str(picture))


@pytest.mark.parametrize("mode", ["val", "test"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("turn", range(2, 9))
def test_pictures_are_painted_on_the_pixels_as_stored(tmp_path, turn, kind, mode, monkeypatch):
    monkeypatch.setattr(Visualizer, "_instance_dict", {})
    exif = Image.Exif()
    exif[0x0112] = turn
    pictures = []
    for name, options in (("plain", {}), ("turned", dict(exif=exif))):
        root = tmp_path / name
        write(root, ["0"], [0, 1])
        pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
        (root / "images" / "0.jpg").write_bytes(encoded(pixels, kind, **options))
        pictures.append(paint(root / "shown", dataset(MaskDataset, root), mode))
    assert pictures[0].shape == (SIZE[0], 2 * SIZE[1], 3)  # label left, prediction right
    assert np.array_equal(*pictures)


def test_deep_images_are_painted_as_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Visualizer, "_instance_dict", {})
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    pictures = []
    for name, image, bits in (("plain", pixels, 8), ("deep", pixels.astype(np.uint16) * 16, 12)):
        root = tmp_path / name
        write(root, ["0"], [0, 1])
        (root / "images" / "0.jpg").write_bytes(cv2.imencode(".png", image)[1].tobytes())
        pictures.append(paint(root / "shown", dataset(MaskDataset, root, bit_depth=bits), "test"))
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 1


def test_nothing_is_painted_unless_asked(tmp_path, monkeypatch):
    visualizer = SegLocalVisualizer(name="unused")
    monkeypatch.setattr(Visualizer, "_instance_dict", {"now": visualizer})
    hook = PaintPredictionsHook()
    hook.after_test_iter(None, 0, {}, [None])
    hook.after_val_iter(SimpleNamespace(iter=1), 0, {}, [None])
