"""The demo: its scenes, its dataset and its configs."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from PIL import Image

PROJECT = Path(__file__).parents[2] / "projects" / "demo"
sys.path.append(str(PROJECT))

import demo_scenes
from demo_scenes import CLASSES, constant_miou, make_demo_scenes
from scene_painter import LABELS, paint_scene

from vfm_ss.protocol.settings import parse_config_name


def digests(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def labels(folder):
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "scenes"
    make_demo_scenes(root, num_train=12, num_val=5, seed=3)
    return root


def test_the_same_seed_gives_the_same_bytes_in_another_process(scenes, tmp_path):
    code = (
        "import sys; from demo_scenes import make_demo_scenes;"
        "make_demo_scenes(sys.argv[1], num_train=12, num_val=5, seed=3)"
    )
    other = tmp_path / "other"
    command = [sys.executable, "-c", code, str(other)]
    subprocess.run(command, check=True, capture_output=True, cwd=PROJECT)
    assert digests(other) == digests(scenes)


def test_every_scene_is_another_one(scenes, tmp_path):
    make_demo_scenes(tmp_path / "scenes", num_train=12, num_val=5, seed=4)
    pictures = [v for k, v in digests(scenes).items() if k.endswith("jpg")]
    pictures += [v for k, v in digests(tmp_path / "scenes").items() if k.endswith("jpg")]
    assert len(set(pictures)) == len(pictures) == 34


def test_layout_is_ade20ks(scenes):
    for split, count in (("training", 12), ("validation", 5)):
        pictures = {path.stem for path in (scenes / "images" / split).glob("*.jpg")}
        maps = {path.stem for path in (scenes / "annotations" / split).glob("*.png")}
        assert pictures == maps
        assert len(pictures) == count
    assert Image.open(scenes / "images/training/scene_00000.jpg").mode == "RGB"
    assert Image.open(scenes / "annotations/training/scene_00000.png").mode == "L"


def test_labels_are_other_and_every_class(scenes):
    values = np.unique(labels(scenes / "annotations" / "training"))
    assert values.tolist() == list(range(len(CLASSES) + 1))


def test_the_picture_follows_the_labels():
    steps = {"sky": [], "ground": [], "tree": []}
    for i in range(20):
        picture, label = paint_scene(np.random.default_rng(i))
        assert picture.shape == (*label.shape, 3)
        assert picture.dtype == label.dtype == np.uint8
        assert (label[-1] == LABELS["sky"]).sum() == 0
        step = np.abs(np.diff(picture.astype(int), axis=1)).mean(2)
        inside = label[:, 1:] == label[:, :-1]
        for name, values in steps.items():
            values.extend(step[inside & (label[:, 1:] == LABELS[name])])
    # Textures differ, whatever the colours.
    assert np.mean(steps["ground"]) > 1.2 * np.mean(steps["sky"])
    assert np.mean(steps["tree"]) > 1.2 * np.mean(steps["ground"])


def test_no_colour_tells_the_classes_apart():
    # The best guess from nothing but a pixel's colour and this very picture set errs often.
    pixels, values = [], []
    for i in range(40):
        picture, label = paint_scene(np.random.default_rng(i))
        pixels.append((picture // 16).reshape(-1, 3).astype(int) @ [256, 16, 1])
        values.append(label.ravel())
    table = np.zeros((4096, len(CLASSES) + 1), int)
    np.add.at(table, (np.concatenate(pixels), np.concatenate(values)), 1)
    assert table.max(1).sum() / table.sum() < 0.75


def test_a_finished_dataset_is_left_alone(scenes, monkeypatch):
    monkeypatch.setattr(demo_scenes, "paint_scene", None)
    before = {path: path.stat().st_mtime_ns for path in scenes.rglob("*")}
    make_demo_scenes(scenes, num_train=12, num_val=5, seed=3)
    assert {path: path.stat().st_mtime_ns for path in scenes.rglob("*")} == before


def test_an_interrupted_dataset_is_made_again(scenes, tmp_path, monkeypatch):
    root = tmp_path / "scenes"
    painted = []

    def interrupted(rng):
        if len(painted) == 9:
            raise KeyboardInterrupt
        painted.append(rng)
        return paint_scene(rng)

    with monkeypatch.context() as patch:
        patch.setattr(demo_scenes, "paint_scene", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_demo_scenes(root, num_train=12, num_val=5, seed=3)
    assert not root.exists()
    make_demo_scenes(root, num_train=12, num_val=5, seed=3)
    assert digests(root) == digests(scenes)
    assert list(tmp_path.iterdir()) == [root]


def test_a_folder_that_holds_something_else_is_refused(scenes, tmp_path):
    with pytest.raises(ValueError, match=r"holds other demo scenes .*'seed': 3.*'seed': 4"):
        make_demo_scenes(scenes, num_train=12, num_val=5, seed=4)
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ValueError, match=r"holds something else .*choose another folder"):
        make_demo_scenes(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "photo.jpg"]


def test_constant_miou_is_that_of_mmsegs_metric(scenes):
    from mmseg.evaluation import IoUMetric
    from torch import from_numpy

    folder = scenes / "annotations" / "validation"
    maps = [from_numpy(label.astype(int) - 1) for label in labels(folder)]  # -1 is "other"
    for label in maps:
        label[label < 0] = 255
    best = 0.0
    for guess in range(len(CLASSES)):
        metric = IoUMetric()
        metric.dataset_meta = {"classes": CLASSES}
        areas = [
            metric.intersect_and_union(label.new_full(label.shape, guess), label, 8, 255)
            for label in maps
        ]
        best = max(best, metric.compute_metrics(areas)["mIoU"])
    assert constant_miou(folder) == pytest.approx(best, abs=0.01)  # the metric rounds


def test_constant_miou_of_classes_that_do_not_occur(tmp_path):
    Image.fromarray(np.array([[0, 0, 1, 1], [2, 1, 0, 0]], np.uint8)).save(tmp_path / "a.png")
    assert constant_miou(tmp_path) == pytest.approx(100 * (3 / 4 + 0) / 2)
    with pytest.raises(FileNotFoundError, match=r"holds no label map"):
        constant_miou(tmp_path / "missing")


def test_mmseg_reads_the_dataset(scenes):
    import demo_scenes_dataset  # noqa: F401  registers it

    dataset = DATASETS.build(
        {
            "type": "DemoScenesDataset",
            "data_root": str(scenes),
            "data_prefix": {
                "img_path": "images/training",
                "seg_map_path": "annotations/training",
            },
            "pipeline": [
                {"type": "mmseg.LoadImageFromFile"},
                {"type": "mmseg.LoadAnnotations"},
                {"type": "mmseg.PackSegInputs"},
            ],
        }
    )
    assert len(dataset) == 12
    assert dataset.metainfo["classes"] == CLASSES
    assert len(dataset.metainfo["palette"]) == len(CLASSES)
    sample = dataset[0]
    path = scenes / "annotations/training" / "scene_00000.png"
    expected = np.asarray(Image.open(path)).astype(int) - 1
    expected[expected < 0] = 255
    assert np.array_equal(sample["data_samples"].gt_sem_seg.data[0].numpy(), expected)
    picture = np.asarray(Image.open(str(path).replace("annotations", "images")[:-3] + "jpg"))
    difference = sample["inputs"].numpy()[::-1].transpose(1, 2, 0).astype(int) - picture
    assert np.abs(difference).mean() < 1  # BGR; decoders of JPEG may round differently


@pytest.mark.parametrize("path", sorted(PROJECT.glob("configs/*.py")), ids=lambda path: path.stem)
def test_a_config_is_what_its_name_says(path, scenes):
    name = parse_config_name(path.stem, own=True)
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.cfg = cfg  # as mmseg's `init_model` does: the pipelines get the size
    assert (name.size, name.patch) == (cfg.default_hooks.record.size, model.backbone.patch_size)
    assert name.vfm == cfg.default_hooks.record.vfm
    assert model.backbone.frozen == (name.decoder == "probe")
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        dataset = DATASETS.build({**loader.dataset, "data_root": str(scenes)})
        assert len(dataset.metainfo["classes"]) == model.decode_head.num_classes
    assert dataset[0]["inputs"].shape == (3, 96, 128)
