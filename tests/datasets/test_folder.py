"""FolderDataset: a data set of one's own, from its files to training, check and predictions."""

import json
import os
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

from vfm_ss.datasets.check import check_config
from vfm_ss.datasets.label_files import inverse_table, plan_label_files, write_label
from vfm_ss.datasets.probe import image_paths
from vfm_ss.engine.run_facts import dataset_name
from vfm_ss.evaluation.miou import MeanIoUMetric
from vfm_ss.protocol.records import Record

SIZE = (24, 40)
CLASSES = {3: "soil", 7: "crop", 255: "weed"}
EVALUATION = [dict(type="LoadImage"), dict(type="LoadLabel"), dict(type="PackSegInputs")]
TRAINING = [dict(type="LoadRandomCrop", crop_size=(16, 16)), dict(type="PackSegInputs")]
SHARES = dict(train=0.7, val=0.2, test=0.1)


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmseg")


def write(root, names, values=tuple(CLASSES), image_end=".jpg", label_end=".png", labels="masks"):
    """Write images with masks of these values; return the masks by name."""
    rng = np.random.default_rng(0)
    masks = {}
    for name in names:
        mask = np.array(values, np.uint8)[rng.integers(len(values), size=SIZE)]
        masks[name] = mask.repeat(2, 0).repeat(2, 1)[: SIZE[0], : SIZE[1]]
        image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
        for folder, end, array in (
            ("photos", image_end, image),
            (labels, label_end, masks[name]),
        ):
            path = Path(root, folder, name + end)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return masks


def names(count):
    return [f"{k:03}" for k in range(count)]


def build(root, **changes):
    options = dict(
        type="FolderDataset", data_root=str(root), images="photos", labels="masks", classes=CLASSES
    )
    return DATASETS.build(options | changes)


def stems(dataset):
    return [Path(path).stem for path in sorted(image_paths(dataset))]


class TestLabels:
    def test_stored_values_become_classes_in_training_and_back_in_predictions(self, tmp_path):
        masks = write(tmp_path, names(3))
        dataset = build(tmp_path, pipeline=EVALUATION, test_mode=True)
        assert dataset.metainfo["classes"] == ("soil", "crop", "weed")
        plan = plan_label_files(dataset, tmp_path / "out")
        for sample in dataset:
            meta, classes = sample["data_samples"], sample["data_samples"].gt_sem_seg.data[0]
            mask = masks[Path(meta.img_path).stem]
            expected = np.select([mask == value for value in CLASSES], range(3))
            assert (classes.numpy() == expected).all()
            write_label(*[plan[meta.img_path][0], classes.numpy(), plan[meta.img_path][1]])
            assert (np.array(Image.open(plan[meta.img_path][0])) == mask).all()

    def test_a_score_is_torchmetrics_(self, tmp_path):
        masks = write(tmp_path, names(2), values=(0, *CLASSES))
        dataset = build(tmp_path, ignore=[0], pipeline=EVALUATION, test_mode=True)
        metric, other = MeanIoUMetric(), MulticlassJaccardIndex(3, "macro", ignore_index=9)
        metric.dataset_meta = dataset.metainfo
        rng = torch.Generator().manual_seed(0)
        for sample in dataset:
            data = sample["data_samples"]
            pred = torch.randint(3, SIZE, generator=rng)
            found = dict(
                pred_sem_seg=dict(data=pred),
                gt_sem_seg=dict(data=data.gt_sem_seg.data),
                img_path=data.img_path,
            )
            metric.process({}, [found])
            mask = masks[Path(data.img_path).stem]
            truth = np.select([mask == value for value in CLASSES], range(3), default=9)
            other.update(pred, torch.from_numpy(truth))
        assert metric.evaluate(2)["mIoU"] == pytest.approx(100 * other.compute().item(), abs=1e-4)
        assert list(metric.per_class["IoU"]) == ["soil", "crop", "weed"]

    def test_values_of_one_name_are_one_class(self, tmp_path):
        write(tmp_path, names(2))
        merged = {255: "plant", 3: "soil", 7: "plant"}
        dataset = build(tmp_path, classes=merged)
        assert dataset.metainfo["classes"] == ("soil", "plant")
        assert inverse_table(dataset).tolist() == [3, 7]
        dataset = build(tmp_path, classes=merged, order=["plant", "soil"])
        assert dataset.metainfo["classes"] == ("plant", "soil")
        assert inverse_table(dataset).tolist() == [7, 3]

    def test_a_list_names_the_values_from_0(self, tmp_path):
        write(tmp_path, names(2), values=(0, 1))
        assert inverse_table(build(tmp_path, classes=["a", "b"])).tolist() == [0, 1]

    @pytest.mark.parametrize("train", [True, False])
    def test_255_is_refused_unless_it_is_stated(self, tmp_path, train):
        write(tmp_path, names(1))
        two = dict(classes={3: "soil", 7: "crop"}, probe=False, test_mode=not train)
        dataset = build(tmp_path, pipeline=TRAINING if train else EVALUATION, **two)
        line = r"masks/000\.png: label values \[255\] are outside the classes \(stored as 3, 7\)"
        with pytest.raises(ValueError, match=line):
            dataset[0]
        with pytest.raises(ValueError, match=line):  # and before a training starts
            build(tmp_path, **two | dict(probe=True))
        assert len(build(tmp_path, **two | dict(probe=True, ignore=[255]))) == 1

    def test_a_palette_and_its_colours(self, tmp_path):
        write(tmp_path, names(1))
        colours = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
        assert build(tmp_path, palette=colours).metainfo["palette"] == [list(c) for c in colours]


class TestFiles:
    def test_names_end_as_they_like(self, tmp_path):
        write(tmp_path, ["a", "b.c"], image_end=".JPG", label_end=".tif")
        write(tmp_path, ["sub/d"], image_end=".png")
        (tmp_path / "photos" / "notes.txt").write_text("x")
        dataset = build(tmp_path)
        pairs = [
            (info["img_path"], info["seg_map_path"])
            for info in map(dataset.get_data_info, range(3))
        ]
        ends = [("a.JPG", "a.tif"), ("b.c.JPG", "b.c.tif"), ("sub/d.png", "sub/d.png")]
        assert pairs == [(f"{tmp_path}/photos/{a}", f"{tmp_path}/masks/{b}") for a, b in ends]

    def test_masks_beside_images(self, tmp_path):
        write(tmp_path, names(3), label_end="_mask.png", labels="photos")
        dataset = build(tmp_path, labels="photos", seg_map_suffix="_mask.png")
        assert stems(dataset) == names(3)

    def test_an_archive(self, tmp_path):
        write(tmp_path, names(2))
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            for path in sorted(tmp_path.glob("*/*")):
                archive.write(path, f"top/{path.relative_to(tmp_path)}")
        plain, packed = (
            build(tmp_path, pipeline=EVALUATION),
            build(tmp_path / "all.zip", pipeline=EVALUATION),
        )
        for a, b in zip(plain, packed, strict=True):
            assert (a["inputs"] == b["inputs"]).all()

    def test_without_data_root_paths_start_where_the_command_runs(self, tmp_path, monkeypatch):
        write(tmp_path / "fields", names(1))
        monkeypatch.chdir(tmp_path)
        dataset = build("", images="fields/photos", labels="fields/masks/")
        assert (len(dataset), dataset_name(dataset)) == (1, "fields")

    @pytest.mark.parametrize("kind", ["photos", "masks"])
    def test_half_a_pair_is_named(self, tmp_path, kind):
        write(tmp_path, names(3))
        next((tmp_path / kind).glob("001.*")).unlink()
        with pytest.raises(FileNotFoundError, match=rf"{kind}/001.* is missing \(1 such"):
            build(tmp_path)

    def test_two_images_of_one_name(self, tmp_path):
        write(tmp_path, names(1))
        write(tmp_path, names(1), image_end=".png")
        with pytest.raises(ValueError, match=r"000\.jpg and 000\.png would be one sample"):
            build(tmp_path)
        assert len(build(tmp_path, img_suffix=".png")) == 1


class TestSplit:
    def test_folders(self, tmp_path):
        write(tmp_path, ["train/a", "train/b", "val/c"])
        assert stems(build(tmp_path, split="train")) == ["a", "b"]
        assert stems(build(tmp_path, split="val")) == ["c"]
        assert len(build(tmp_path)) == 3

    @pytest.mark.parametrize("end", ["", ".jpg"])
    def test_a_list_of_names_with_or_without_their_ends(self, tmp_path, end):
        write(tmp_path, ["a", "b", "sub/c.d"])
        (tmp_path / "some.txt").write_text(f"sub/c.d{end}\nb{end}\n")
        assert stems(build(tmp_path, split="some.txt")) == ["b", "c.d"]
        (tmp_path / "some.txt").write_text(f"x{end}\n")
        with pytest.raises(FileNotFoundError, match=r"x.* is missing"):
            build(tmp_path, split="some.txt")

    def test_shares_are_disjoint_complete_and_as_large_as_stated(self, tmp_path):
        write(tmp_path, names(50))
        parts = {s: stems(build(tmp_path, split=s, shares=SHARES)) for s in SHARES}
        assert {s: len(part) for s, part in parts.items()} == dict(train=35, val=10, test=5)
        assert sorted(name for part in parts.values() for name in part) == names(50)
        again = stems(build(tmp_path, split="val", shares=SHARES))
        assert again == parts["val"]
        assert stems(build(tmp_path, split="val", shares=SHARES, split_seed=1)) != again
        # No run of neighbours, as a cut of the sorted names would be.
        assert np.ptp([int(name) for name in again]) > 10

    def test_shares_follow_from_names_alone(self, tmp_path, monkeypatch):
        write(tmp_path / "one", ["é", *names(20)])
        composed = stems(build(tmp_path / "one", split="val", shares=SHARES))
        # Another place, another order of writing, and macOS's way to write accents.
        other = [*names(20)[::-1], unicodedata.normalize("NFD", "é")]
        write(tmp_path / "two" / "deep", other, image_end=".png")
        decomposed = stems(build(tmp_path / "two" / "deep", split="val", shares=SHARES))
        normal = [unicodedata.normalize("NFC", name) for name in decomposed]
        assert sorted(normal) == sorted(composed)
        # An order of the file system's own.
        scan = os.scandir

        class Reversed(list):
            __enter__, __exit__ = list.__iter__, lambda *_: None

        monkeypatch.setattr(os, "scandir", lambda path: Reversed([*scan(path)][::-1]))
        monkeypatch.setattr(Reversed, "__enter__", lambda self: self)
        assert stems(build(tmp_path / "one", split="val", shares=SHARES)) == composed

    def test_a_group_is_never_in_two_shares(self, tmp_path, caplog):
        write(tmp_path, [f"{scene}_{k}" for scene in "abcdefghij" for k in range(3)])
        parts = {
            s: stems(build(tmp_path, split=s, shares=SHARES, group="([a-z])_")) for s in SHARES
        }
        scenes = {s: {name[0] for name in part} for s, part in parts.items()}
        assert {s: len(found) for s, found in scenes.items()} == dict(train=7, val=2, test=1)
        assert set.union(*scenes.values()) == set("abcdefghij")
        assert sum(len(part) for part in parts.values()) == 30

    def test_the_log_says_which(self, tmp_path, capsys):
        write(tmp_path, names(10))
        build(tmp_path, split="val", shares=SHARES)
        out = " ".join(capsys.readouterr().out.split())
        assert "'val' is 2 of 10 images, by shares {'test': 0.1," in out
        assert "split_seed 0" in out
        assert "unless `group` keeps them together" in out

    def test_check_data_refuses_to_evaluate_what_was_trained_on(self, tmp_path, capsys):
        write(tmp_path, names(20))
        config = tmp_path / "config.py"

        def check(seed):
            loaders = {
                split: dict(
                    dataset=dict(
                        type="FolderDataset", data_root=str(tmp_path), images="photos",
                        labels="masks", classes=CLASSES, split=split, split_seed=seed,
                        shares=dict(train=0.5, val=0.5),
                    )
                )
                for split, seed in (("train", 0), ("val", seed))
            }  # fmt: skip
            text = [f"{split}_dataloader = {loader!r}" for split, loader in loaders.items()]
            config.write_text("\n".join(["default_scope = 'mmseg'", *text]))
            return check_config(str(config)), capsys.readouterr().out

        status, out = check(0)
        assert status == 0
        assert "| weed  |       255 |     10 |" in out
        status, out = check(1)
        assert status == 1
        assert "images of val are in train, too" in out


BAD = {
    "classes": (dict(classes={}), "classes is {}; expected"),
    "text": (dict(classes="soil"), "classes is 'soil'"),
    "value": (dict(classes={300: "x"}), "the stored value 300 is not an integer from 0 to 255"),
    "name": (dict(classes={0: "two\nlines"}), "calls 0 'two"),
    "both": (dict(ignore=[3]), "3 is in classes and in ignore"),
    "ignore": (dict(ignore=255), "ignore is 255; expected a list"),
    "palette": (dict(palette=[[0, 0, 0]]), "palette has 1 colours for 3 classes"),
    "colour": (dict(palette=[[0, 0, 256]] * 3), "the colour [0, 0, 256]"),
    "share": (dict(split="x", shares=SHARES), "split is 'x' and shares is"),
    "no split": (dict(shares=SHARES), "split is None and shares is"),
    "sum": (dict(split="a", shares=dict(a=0.8, b=0.3)), "are 1.1 in all"),
    "none": (dict(split="b", shares=dict(a=0.9, b=0.1)), "'b', 0.1 of 3 images, holds none"),
    "negative": (dict(split="a", shares=dict(a=-1)), "shares says -1 of 'a'"),
    "group": (dict(split="a", shares=dict(a=1), group="("), "group='(' is not a regular"),
    "order": (dict(order=["soil", "crop"]), "order is ['soil', 'crop']; expected"),
    "no group": (dict(split="a", shares=dict(a=1), group="x"), "the name '000' does not start"),
    "published": (dict(name="ade20k"), "must not be called 'ade20k'"),
    "slash": (dict(name="a/b"), "name is 'a/b'"),
    "mmseg": (dict(metainfo=dict(classes=["a"])), "takes no metainfo: set classes and palette"),
    "folder": (dict(split="nowhere"), "photos/nowhere does not exist"),
    "split": (dict(split=3), "split is 3, expected a text"),
    "no palette": (dict(palette=1), "palette is 1, expected a list of"),
    "no text": (dict(group=1, split="a", shares={"a": 1}), "group=1 is not a regular expression"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_in_one_line(tmp_path, case):
    write(tmp_path, names(3))
    options, text = BAD[case]
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        build(tmp_path, **options)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["file", "folder"])
@pytest.mark.parametrize("kind", ["panoptic", "stuff", "instances"])
def test_coco_is_refused_with_the_command_that_makes_masks(tmp_path, kind, place):
    write(tmp_path, names(1))
    inner = (
        dict(segments_info=[]) if kind == "panoptic" else dict(segmentation=[[0, 0, 1, 1, 0, 1]])
    )
    path = tmp_path / "annotations" / f"{kind}_val.json"
    path.parent.mkdir()
    path.write_text(json.dumps(dict(images=[], annotations=[dict(id=1, image_id=1, **inner)])))
    labels = "annotations" if place == "folder" else f"annotations/{path.name}"
    with pytest.raises(ValueError, match=f"datum convert -if coco_{kind} -i ") as caught:
        build(tmp_path, labels=labels)
    assert ("polygons_to_masks" in str(caught.value)) == (kind == "instances")
    path.write_text(json.dumps(dict(shapes=[])))  # another program's
    with pytest.raises(ValueError, match="labels are masks"):
        build(tmp_path, labels=labels)


def test_records_hold_the_name_of_the_data_set_and_of_its_classes(tmp_path):
    write(tmp_path, names(2))
    dataset = build(tmp_path, name="fields-2024")
    values = dict(name="x", vfm="mae", decoder="linear", status="finished", size="b", patch=16)
    key = dataset_name(dataset)
    iou = dict.fromkeys(dataset.metainfo["classes"], 50.0)
    record = Record(train_dataset=key, eval_dataset=key, iou=iou, **values)
    assert record.setting == "b16_linear_fields-2024"


def test_a_saved_config_is_the_same_data_set(tmp_path):
    write(tmp_path, names(40))
    data = dict(type="FolderDataset", data_root=str(tmp_path), images="photos", labels="masks")
    data |= dict(classes=CLASSES, split="val", shares=SHARES)
    (tmp_path / "a.py").write_text(f"data = {data!r}")
    Config.fromfile(tmp_path / "a.py").dump(tmp_path / "b.py")  # as into every work dir
    first, saved = (DATASETS.build(Config.fromfile(tmp_path / f).data) for f in ("a.py", "b.py"))
    assert saved.metainfo == first.metainfo
    assert inverse_table(saved).tolist() == inverse_table(first).tolist() == [3, 7, 255]
    assert stems(saved) == stems(first)
