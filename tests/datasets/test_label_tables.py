"""Label tables that leave a class without a pixel, from the files to the score."""

import logging
from typing import ClassVar

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.dataset import ConcatDataset
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

from vfm_ss.datasets.check import check_config
from vfm_ss.datasets.probe import probe_others
from vfm_ss.datasets.raw_files import RawFilesMixin
from vfm_ss.datasets.transforms.labels import label_table, stored_values
from vfm_ss.evaluation.miou import MeanIoUMetric

SIZE = (24, 40)
EVALUATION = [dict(type="LoadImage"), dict(type="LoadLabel"), dict(type="PackSegInputs")]
TRAINING = [dict(type="LoadRandomCrop", crop_size=(16, 16)), dict(type="PackSegInputs")]


@DATASETS.register_module()
class MaskDataset(RawFilesMixin, BaseSegDataset):
    METAINFO: ClassVar = dict(classes=("ground", "object"), palette=[[0, 0, 0], [255, 0, 0]])

    def __init__(self, **kwargs):
        super().__init__(img_suffix=".png", seg_map_suffix=".png", **kwargs)


@DATASETS.register_module()
class ThreeDataset(MaskDataset):
    METAINFO: ClassVar = dict(classes=("a", "b", "c"), palette=[[0] * 3, [1] * 3, [2] * 3])


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmseg")


def write_masks(root, values, count=3, split=""):
    """Write random images with labels of these values, and return the labels."""
    rng = np.random.default_rng(0)
    labels = []
    for k in range(count):
        label = np.array(values, np.uint8)[rng.integers(len(values), size=SIZE)]
        label = label.repeat(2, 0).repeat(2, 1)[: SIZE[0], : SIZE[1]]
        labels.append(label)
        image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
        for folder, array in (("images", image), ("labels", label)):
            path = root / split / folder / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return labels


def build(root, train=True, **kwargs):
    kwargs.setdefault("pipeline", TRAINING if train else EVALUATION)
    prefix = dict(img_path="images", seg_map_path="labels")
    cfg = dict(type="MaskDataset", data_root=str(root), data_prefix=prefix, test_mode=not train)
    return DATASETS.build(cfg | kwargs)


BINARY = [
    dict(stored_ids={0: 0, 255: 1}),
    dict(metainfo=dict(label_map={0: 0, 255: 1})),
    dict(metainfo=dict(classes=("ground", "object"), label_map={0: 0, 255: 1})),
]


@pytest.mark.parametrize("options", BINARY)
def test_masks_of_0_and_255_are_two_classes_in_training(tmp_path, options):
    write_masks(tmp_path, [0, 255])
    seen = set()
    for sample in build(tmp_path, **options, serialize_data=False):
        seen |= set(sample["data_samples"].gt_sem_seg.data.unique().tolist())
    assert {0, 1} <= seen <= {0, 1, 255}  # 255 is the padding of the crop


@pytest.mark.parametrize("options", BINARY)
def test_masks_of_0_and_255_are_scored_as_torchmetrics_scores_them(tmp_path, options):
    stored = write_masks(tmp_path, [0, 255])
    metric = MeanIoUMetric()
    dataset = build(tmp_path, train=False, **options)
    metric.dataset_meta = dataset.metainfo
    predictions = torch.randint(0, 2, (len(stored), *SIZE), generator=torch.manual_seed(0))
    for sample, prediction in zip(dataset, predictions, strict=True):
        truth = sample["data_samples"].gt_sem_seg.data
        metric.process({}, [dict(pred_sem_seg={"data": prediction}, gt_sem_seg={"data": truth})])
    expected = MulticlassJaccardIndex(2)(predictions, torch.tensor(np.stack(stored) == 255).long())
    assert metric.evaluate(len(stored))["mIoU"] == pytest.approx(100 * expected.item())


def test_a_class_s_own_stored_ids_may_name_255(tmp_path, monkeypatch):
    monkeypatch.setattr(MaskDataset, "STORED_IDS", {".png": {0: 0, 255: 1}})
    stored = write_masks(tmp_path, [0, 255])
    sample = build(tmp_path, train=False)[0]
    assert np.array_equal(sample["data_samples"].gt_sem_seg.data[0].numpy(), stored[0] == 255)


THREE = dict(type="ThreeDataset")
# Stored values, options of the dataset, and the classes that get no pixel.
TABLES = {
    "0 and 255 without a map": ([0, 255], {}, ["object"]),
    "all 255": ([255], {}, ["ground", "object"]),
    "reduced 0 and 1": ([0, 1], dict(reduce_zero_label=True), ["object"]),
    "reduced 0": ([0], dict(reduce_zero_label=True), ["ground", "object"]),
    "reduced 0 and 255": ([0, 255], dict(reduce_zero_label=True), ["ground", "object"]),
    "both to one": ([0, 255], dict(stored_ids={0: 0, 255: 0}), ["object"]),
    "one ignored": ([0, 255], dict(stored_ids={0: 255, 255: 1}), ["ground"]),
    "all ignored": ([0, 255], dict(stored_ids={0: 255, 255: 255}), ["ground", "object"]),
    "ignore_index is a class": ([0, 1], dict(ignore_index=0), ["ground"]),
    "only the background": ([0], {}, ["object"]),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_leaves_less_than_two_classes_does_not_train(tmp_path, name):
    values, options, missing = TABLES[name]
    write_masks(tmp_path, values)
    with pytest.raises(ValueError, match="training needs two classes") as error:
        build(tmp_path, **options)
    found = [k for k in ("ground", "object") if k not in missing]
    line = str(error.value)
    assert f"{tmp_path}/labels: the 3 labels hold pixels of " in line
    assert (", ".join(map(repr, found)) or "no class") + ", training" in line
    assert all(f"{value} (" in line for value in values)
    assert "set stored_ids" in line
    assert "\n" not in line
    assert len(build(tmp_path, train=False, **options)) == 3  # an evaluation says so and goes on


def write_config(root, train, val=None):
    loader = "dict(dataset={!r}, batch_size=1, num_workers=0)"
    text = f"default_scope = 'mmseg'\ntrain_dataloader = {loader.format(train)}\n"
    text += f"val_dataloader = {loader.format(val)}\n" if val else ""
    (root / "config.py").write_text(text)
    return str(root / "config.py")


def mask_config(root, **kwargs):
    prefix = dict(img_path="images", seg_map_path="labels")
    return dict(type="MaskDataset", data_root=str(root), data_prefix=prefix) | kwargs


@pytest.mark.parametrize("name", TABLES)
def test_check_data_names_the_classes_without_a_pixel(tmp_path, capsys, name):
    values, options, missing = TABLES[name]
    write_masks(tmp_path, values)
    assert check_config(write_config(tmp_path, mask_config(tmp_path, **options))) == 1
    out = capsys.readouterr().out
    rows = {
        row.split("|")[1].strip(): row.split("|")[3:5] for row in out.splitlines() if "|" in row
    }
    for klass in ("ground", "object"):
        images, pixels = map(int, rows[klass])
        assert (images, pixels) == (0, 0) if klass in missing else (images > 0 and pixels > 0)
    assert "UNUSABLE: train has" in out
    assert "data: not complete or not usable" in out


@pytest.mark.parametrize("options", BINARY)
def test_check_data_counts_images_and_pixels_of_each_class(tmp_path, capsys, options):
    labels = write_masks(tmp_path, [0, 255], count=4)
    labels[0][:] = 0
    Image.fromarray(labels[0]).save(tmp_path / "labels" / "0.png")
    config = write_config(tmp_path, mask_config(tmp_path, **options))
    assert check_config(config) == 0
    out = capsys.readouterr().out
    for name, value, images in (("ground", 0, 4), ("object", 255, 3)):
        pixels = sum(int((label == value).sum()) for label in labels)
        row = next(row for row in out.splitlines() if f" {name} " in row)
        assert [cell.strip() for cell in row.split("|")[2:5]] == [
            str(value),
            str(images),
            str(pixels),
        ]


def test_a_class_that_only_the_evaluation_lacks_is_reported(tmp_path, capsys):
    write_masks(tmp_path / "train", [0, 1, 2])
    write_masks(tmp_path / "val", [0, 2])
    parts = [mask_config(tmp_path / split, **THREE) for split in ("train", "val")]
    assert check_config(write_config(tmp_path, *parts)) == 0
    row = [row for row in capsys.readouterr().out.splitlines() if row.startswith("| b ")][1]
    assert [cell.strip() for cell in row.split("|")[2:5]] == ["1", "0", "0"]
    assert check_config(write_config(tmp_path, *parts[::-1])) == 1
    assert "UNUSABLE: train has no pixel of 'b'" in capsys.readouterr().out
    write_masks(tmp_path / "val", [2])
    assert check_config(write_config(tmp_path, *parts)) == 1
    assert "UNUSABLE: val has pixels of 'c' only" in capsys.readouterr().out


def test_parts_of_a_training_set_are_judged_together(tmp_path, capsys):
    write_masks(tmp_path / "one", [0, 1])
    write_masks(tmp_path / "two", [0, 2], count=2)
    one, two = (mask_config(tmp_path / name, **THREE) for name in ("one", "two"))
    repeated = dict(type="RepeatDataset", dataset=two, times=3)
    both = dict(type="ConcatDataset", datasets=[one, repeated])
    assert check_config(write_config(tmp_path, both)) == 0
    out = capsys.readouterr().out
    assert "3 samples, 3 read" in out
    assert "2 samples, 2 read" in out
    assert check_config(write_config(tmp_path, repeated)) == 1
    assert "UNUSABLE: train has no pixel of 'b'" in capsys.readouterr().out


def test_a_part_without_a_valid_pixel_is_named(tmp_path, capsys):
    write_masks(tmp_path / "one", [0, 1])
    write_masks(tmp_path / "two", [255])
    parts = [mask_config(tmp_path / name) for name in ("one", "two")]
    assert check_config(write_config(tmp_path, dict(type="ConcatDataset", datasets=parts))) == 1
    assert "no label of this part has a valid pixel" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (("object", "ground"), "class 0 is 'object' in val, but 'ground' in training"),
        (("ground", "object", "x"), "val has 3 classes, but 2 are trained"),
        (("Ground", "object"), None),
    ],
)
def test_classes_of_the_evaluation_in_another_order(tmp_path, capsys, classes, told):
    write_masks(tmp_path, [0, 1])
    val = dict(type="BaseSegDataset", img_suffix=".png", metainfo=dict(classes=classes))
    write_masks(tmp_path / "val", [0, 1])
    config = write_config(tmp_path, mask_config(tmp_path), mask_config(tmp_path / "val", **val))
    assert check_config(config) == (told is not None)
    out, err = capsys.readouterr()
    if told is None:
        assert "class 0 is 'Ground' in val, but 'ground' in training; they are taken" in out
    else:
        assert f"val: UNUSABLE: {told}" in err


def test_quick_says_that_it_does_not_judge_classes(tmp_path, capsys):
    write_masks(tmp_path, [0, 255])
    assert check_config(write_config(tmp_path, mask_config(tmp_path)), quick=True) == 0
    assert "data: usable as far as it was read; without --quick" in capsys.readouterr().out


def test_training_warns_of_classes_that_the_probed_labels_lack(tmp_path, caplog):
    write_masks(tmp_path, [0, 1])
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING):
            build(tmp_path, **THREE)
    finally:
        logger.removeHandler(caplog.handler)
    assert "3 labels of 3 were read and 1 of 3 classes have no pixel in them: 'c';" in caplog.text


@TRANSFORMS.register_module()
class MaskTo01(BaseTransform):
    """What a user may add to a pipeline: the check cannot know what it makes of the labels."""

    def transform(self, results):
        results["gt_seg_map"] = (results["gt_seg_map"] == 255).astype(np.uint8)
        return results


STOCK = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]


def mmsegs(root, pipeline, **kwargs):
    """Build a data set of mmseg's own class, which looks at no file."""
    cfg = dict(
        type="BaseSegDataset", metainfo=dict(classes=("ground", "object")), data_root=str(root),
        data_prefix=dict(img_path="images", seg_map_path="labels"), img_suffix=".png",
        pipeline=pipeline,
    )  # fmt: skip
    return DATASETS.build(cfg | kwargs)


def test_check_data_names_values_outside_the_classes_of_mmsegs_own_data_sets(tmp_path, capsys):
    write_masks(tmp_path, [0, 1, 2])
    own = dict(type="BaseSegDataset", img_suffix=".png", metainfo=dict(classes=("a", "b")))
    assert check_config(write_config(tmp_path, mask_config(tmp_path, **own))) == 1
    assert "labels/0.png: label values [2] are outside the classes" in capsys.readouterr().out


@pytest.mark.parametrize("pipeline", [STOCK, TRAINING])
def test_mmsegs_own_data_sets_are_probed_for_training(tmp_path, pipeline):
    write_masks(tmp_path / "a", [0, 255])
    write_masks(tmp_path / "b", [0, 1])
    bad, good = (mmsegs(tmp_path / name, pipeline) for name in "ab")
    for dataset in (bad, ConcatDataset([bad, bad])):
        with pytest.raises(ValueError, match=r"'ground', training needs two.*by FolderDataset"):
            probe_others(dataset)
    for dataset in (good, ConcatDataset([bad, good])):
        probe_others(dataset)
    write_masks(tmp_path / "c", [0, 1, 2])
    with pytest.raises(ValueError, match=r"c/labels/0\.png: label values \[2\] are outside"):
        probe_others(mmsegs(tmp_path / "c", pipeline))


def test_what_the_check_cannot_know_of_mmsegs_own_data_sets_is_a_warning(tmp_path, caplog):
    write_masks(tmp_path / "a", [0, 255])
    write_masks(tmp_path / "b", [0, 1])
    Image.new("1", SIZE[::-1]).save(tmp_path / "b/labels/0.png")  # mmseg's loader reads it
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        probe_others(mmsegs(tmp_path / "a", [*STOCK[:2], dict(type="MaskTo01"), STOCK[2]]))
        assert "hold pixels of 'ground', training needs two classes" in caplog.text
        probe_others(mmsegs(tmp_path / "b", STOCK))
        assert f"ended at a file: {tmp_path}/b/labels/0.png" in caplog.text
    finally:
        logger.removeHandler(caplog.handler)


def test_a_rare_class_is_searched_for_in_all_labels(tmp_path):
    """Background in nearly every image is no reason to refuse."""
    write_masks(tmp_path, [0], count=90)
    Image.fromarray(np.ones(SIZE, np.uint8)).save(tmp_path / "labels" / "47.png")
    assert len(build(tmp_path)) == 90
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "labels" / "47.png")
    with pytest.raises(ValueError, match=r"the 90 labels hold pixels of 'ground', training needs"):
        build(tmp_path)
    assert len(build(tmp_path, probe=False)) == 90


@pytest.mark.parametrize(
    ("stored_ids", "text"),
    [
        ({0: 0, 1: 2}, r"sends 1 to 2, which is neither a class \(0 to 1\) nor 255"),
        ({0: 0, 1: -1}, "sends 1 to -1"),
        ({0: 0, 256: 1}, "value 256, labels hold 0 to 255"),
        ({"0": 0, "255": 1}, "value '0', labels hold 0 to 255"),
        ({0: 0, 255: "object"}, "sends 255 to 'object'"),
        ({0: 0, 255: 254}, "sends 255 to 254"),
    ],
)
def test_a_map_to_what_is_no_class_is_refused(tmp_path, stored_ids, text):
    write_masks(tmp_path, [0, 255])
    with pytest.raises(ValueError, match=text):
        build(tmp_path, stored_ids=stored_ids)


def test_a_map_beside_reduce_zero_label_is_refused(tmp_path):
    write_masks(tmp_path, [0, 255])
    with pytest.raises(ValueError, match="set reduce_zero_label=False beside it"):
        build(tmp_path, stored_ids={0: 0, 255: 1}, reduce_zero_label=True)


@pytest.mark.parametrize("seed", range(20))
def test_a_random_map_is_what_every_reader_applies(tmp_path, monkeypatch, seed):
    """Training, evaluation and the inverse agree with numpy's look-up on any map."""
    rng = np.random.default_rng(seed)
    values = rng.choice(256, rng.integers(2, 12), replace=False)
    classes = np.append(rng.permutation(len(values)), 255)
    stored_ids = {int(value): int(classes[k]) for k, value in enumerate(values)}
    ignored = rng.choice(np.setdiff1d(np.arange(256), values))
    stored_ids[int(ignored)] = 255
    names = tuple(f"class {k}" for k in range(len(values)))
    stored = write_masks(tmp_path, [*values, ignored], count=2)
    palette = [[k, k, k] for k in range(len(names))]
    monkeypatch.setattr(MaskDataset, "METAINFO", dict(classes=names, palette=palette))
    evaluation = build(tmp_path, train=False, stored_ids=stored_ids)
    training = build(tmp_path, stored_ids=stored_ids)
    for k, label in enumerate(stored):
        expected = np.vectorize(stored_ids.get)(label)
        truth = evaluation[k]["data_samples"].gt_sem_seg.data[0].numpy()
        assert np.array_equal(truth, expected)
        crop = training[k]["data_samples"].gt_sem_seg.data.unique().tolist()
        assert set(crop) <= {*expected.ravel().tolist(), 255}
    table = label_table(evaluation.get_data_info(0))
    inverse = stored_values(table, len(names))
    assert inverse == [[int(values[np.flatnonzero(classes == k)[0]])] for k in range(len(names))]


class TestBesideEachOther:
    """Images and labels in one folder, or one inside the other."""

    def write(self, root, names):
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            values = np.random.default_rng(0).integers(0, 2, SIZE, np.uint8)
            array = values if "mask" in name else np.zeros((*SIZE, 3), np.uint8)
            Image.fromarray(array).save(root / name)

    def dataset(self, root, images, labels, suffix):
        return BesideDataset(
            data_root=str(root),
            data_prefix=dict(img_path=images, seg_map_path=labels),
            img_suffix=".png",
            seg_map_suffix=suffix,
            metainfo=dict(classes=("ground", "object")),
        )

    def test_a_mask_beside_its_image_is_no_image(self, tmp_path):
        self.write(tmp_path, ["a.png", "a_mask.png", "b.png", "b_mask.png"])
        dataset = self.dataset(tmp_path, "", "", "_mask.png")
        pairs = [dataset.get_data_info(k) for k in range(len(dataset))]
        assert [(p["img_path"], p["seg_map_path"]) for p in pairs] == [
            (f"{tmp_path}/{stem}.png", f"{tmp_path}/{stem}_mask.png") for stem in "ab"
        ]

    def test_the_same_suffix_in_one_folder_is_refused(self, tmp_path):
        self.write(tmp_path, ["a.png", "a_mask.png"])
        with pytest.raises(ValueError, match=r"images and labels at once; set seg_map_suffix"):
            self.dataset(tmp_path, "", "", ".png")

    @pytest.mark.parametrize("folders", [("data", "data/masks"), ("masks/data", "masks")])
    def test_one_folder_in_the_other(self, tmp_path, folders):
        images, labels = folders
        self.write(tmp_path, [f"{images}/a.png", f"{labels}/a_mask.png"])
        assert len(self.dataset(tmp_path, images, labels, "_mask.png")) == 1

    def test_a_name_that_nearly_fits_is_offered(self, tmp_path):
        self.write(tmp_path, ["images/a.png", "labels/a_mask.png"])
        with pytest.raises(
            FileNotFoundError, match=r"labels/a\.png is missing .*a_mask\.png.*'_mask\.png'"
        ):
            self.dataset(tmp_path, "images", "labels", ".png")


class BesideDataset(RawFilesMixin, BaseSegDataset):
    METAINFO: ClassVar = dict(classes=("ground", "object"))


class TestLists:
    def listed(self, root, data):
        write_masks(root, [0, 1], count=3)
        (root / "list.txt").write_bytes(data)
        dataset = build(root, ann_file="list.txt")
        names = [dataset.get_data_info(k)["img_path"] for k in range(len(dataset))]
        return dataset, [name.rpartition("/")[2] for name in names]

    @pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b" \n", b"\t\r\n"])
    @pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
    def test_utf_8_with_or_without_a_mark(self, tmp_path, bom, end):
        dataset, names = self.listed(tmp_path, bom + b"0" + end + b"2" + end)
        assert names == ["0.png", "2.png"]
        assert dataset.notes == []

    @pytest.mark.parametrize(
        "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"]
    )
    def test_another_encoding_is_named_with_the_file(self, tmp_path, encoding):
        with pytest.raises(ValueError, match=r"list\.txt: the list is not UTF-8 text .*save it"):
            self.listed(tmp_path, "0\nfüß\n".encode(encoding))

    def test_repeated_lines_are_counted(self, tmp_path, capsys):
        dataset, names = self.listed(tmp_path, b"0\n2\n2\n0\n2 \n1\n")
        assert names == ["0.png", "1.png", "2.png"]
        (note,) = dataset.notes
        assert note == f"{tmp_path}/list.txt: 3 repeated lines (first: 0); each image is used once"
        config = write_config(tmp_path, mask_config(tmp_path, ann_file="list.txt"))
        assert check_config(config) == 0
        assert note in capsys.readouterr().out

    def test_lines_with_the_suffix(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"write the lines of the list without '\.png'"):
            self.listed(tmp_path, b"0.png\n1.png\n")

    @pytest.mark.parametrize("line", ["# mine", "images/0"])
    def test_lines_that_name_no_image(self, tmp_path, line):
        with pytest.raises(FileNotFoundError, match=r"is the name of an image.*such as 0$"):
            self.listed(tmp_path, f"{line}\n1\n".encode())


def test_a_map_survives_a_config_file(tmp_path):
    """Integer keys stay integers when a config is dumped into the work dir and read back."""
    write_masks(tmp_path, [0, 255])
    cfg = Config.fromfile(write_config(tmp_path, mask_config(tmp_path, stored_ids={0: 0, 255: 1})))
    cfg.dump(tmp_path / "dumped.py")
    again = Config.fromfile(tmp_path / "dumped.py").train_dataloader.dataset
    assert len(DATASETS.build(again)) == 3
