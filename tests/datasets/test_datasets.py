"""The four datasets on miniatures of what is published: as archives and unpacked."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from PIL import Image

from vfm_ss.datasets.label_ids import CITYSCAPES_TRAIN_IDS
from vfm_ss.engine.run_facts import dataset_name
from vfm_ss.image_size import fill_image_size

CONFIGS = Path(__file__).parents[2] / "configs" / "_base_" / "datasets"
SIZE = (40, 60)


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmseg")


def encoded(array, kind="PNG", palette=False, **options):
    image = Image.fromarray(array)
    if palette:
        image = Image.frombytes("P", image.size, array.tobytes())
        image.putpalette([(7 * k) % 256 for k in range(768)])
        options["bits"] = 8
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def image(seed, kind="PNG", size=SIZE):
    return encoded(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8), kind)


def label(seed, high, low=0, size=SIZE, **options):
    values = np.random.default_rng(seed).integers(low, high, (size[0] // 4, size[1] // 4), np.uint8)
    return encoded(values.repeat(4, 0).repeat(4, 1), **options)


def ade20k():
    files = {"ADEChallengeData2016/objectInfo150.txt": b"x", "ADEChallengeData2016/x.txt": b""}
    for split, short, count in (("training", "train", 5), ("validation", "val", 3)):
        for k in range(1, count + 1):
            stem = f"{split}/ADE_{short}_{k:08}"
            files[f"ADEChallengeData2016/images/{stem}.jpg"] = image(k, "JPEG")
            files[f"ADEChallengeData2016/annotations/{stem}.png"] = label(k, 151)
    return files


def voc():
    root = "VOCdevkit/VOC2012"
    files = {f"{root}/Annotations/{k}.xml": b"x" for k in range(9)}
    for k in range(9):
        files[f"{root}/JPEGImages/2007_{k:06}.jpg"] = image(k, "JPEG")
    for k in range(6):
        files[f"{root}/SegmentationClass/2007_{k:06}.png"] = label(k, 21, palette=True)
    lists = f"{root}/ImageSets/Segmentation"
    files[f"{lists}/train.txt"] = "".join(f"2007_{k:06}\n" for k in range(4)).encode()
    files[f"{lists}/val.txt"] = "".join(f"2007_{k:06}\n" for k in (4, 5)).encode()
    return files


def cityscapes():
    archives = {"leftImg8bit_trainvaltest.zip": {"README": b"x"}, "gtFine_trainvaltest.zip": {}}
    images, labels = archives.values()
    labels["license.txt"] = b"x"
    for split, city, count in (("train", "aachen", 3), ("train", "bonn", 2), ("val", "ulm", 2)):
        for k in range(count):
            stem = f"{split}/{city}/{city}_{k:06}_000019"
            images[f"leftImg8bit/{stem}_leftImg8bit.png"] = image(k)
            labels[f"gtFine/{stem}_gtFine_labelIds.png"] = label(k, 34)
            labels[f"gtFine/{stem}_gtFine_color.png"] = image(k)
            labels[f"gtFine/{stem}_gtFine_polygons.json"] = b"{}"
    return archives


def gta():
    archives = {}
    for part in range(1, 11):
        names = [f"{2 * part + k:05}.png" for k in range(2)]
        archives[f"{part:02}_images.zip"] = {f"images/{n}": image(int(n[:5])) for n in names}
        # The published set has a few labels of another size than their image.
        size = (20, 32) if part == 3 else SIZE
        archives[f"{part:02}_labels.zip"] = {
            f"labels/{n}": label(int(n[:5]), 35, size=size, palette=True) for n in names
        }
    return archives


def bdd100k():
    archives = {
        "10k_images_train.zip": {},
        "10k_images_val.zip": {},
        "bdd100k_sem_seg_labels_trainval.zip": {},
    }
    labels = archives["bdd100k_sem_seg_labels_trainval.zip"]
    for split, count in (("train", 3), ("val", 2)):
        for k in range(count):
            stem = f"{split}/{k:08x}-0000{k}"
            images = archives[f"10k_images_{split}.zip"]
            images[f"bdd100k/images/10k/{stem}.jpg"] = image(k, "JPEG")
            labels[f"bdd100k/labels/sem_seg/masks/{stem}.png"] = label(k, 19)
            labels[f"bdd100k/labels/sem_seg/colormaps/{stem}.png"] = image(k)
        labels[f"bdd100k/labels/sem_seg/polygons/sem_seg_{split}.json"] = b"[]"
    return archives


def acdc():
    images, labels = {"License.pdf": b"x"}, {"License.pdf": b"x"}
    for condition, count in (("fog", 1), ("night", 2), ("rain", 1), ("snow", 1)):
        for split in ("train", "val", "test", "val_ref"):
            for k in range(count):
                stem = f"{condition}/{split}/GOPR0{k}/GOPR0{k}_frame_{k:06}"
                images[f"rgb_anon/{stem}_rgb_anon.png"] = image(k + len(condition))
                if split in ("train", "val"):
                    trained = label(k, 19)
                    labels[f"gt/{stem}_gt_labelTrainIds.png"] = trained
                    labels[f"gt/{stem}_gt_labelColor.png"] = image(k)
                    ids = {k: v for v, k in CITYSCAPES_TRAIN_IDS.items() if k < 255}
                    classes = np.array(Image.open(io.BytesIO(trained)))
                    stored = np.vectorize(ids.get)(classes).astype(np.uint8)
                    labels[f"gt/{stem}_gt_labelIds.png"] = encoded(stored)
    return {"rgb_anon_trainvaltest.zip": images, "gt_trainval.zip": labels}


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def write_folder(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Return {data set: (data_root as downloaded, data_root unpacked)}."""
    root = tmp_path_factory.mktemp("data")
    plain = root / "plain"
    write_zip(root / "ADEChallengeData2016.zip", ade20k())
    write_folder(plain, ade20k())
    with tarfile.open(root / "VOCtrainval_11-May-2012.tar", "w") as archive:
        for name, data in voc().items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    write_folder(plain, voc())
    for name, archives in (
        ("cityscapes", cityscapes()),
        ("gta", gta()),
        ("bdd100k", bdd100k()),
        ("acdc", acdc()),
    ):
        (root / name).mkdir()
        for archive, files in archives.items():
            write_zip(root / name / archive, files)
            write_folder(plain / name, files)
    return {
        "ade20k": (root / "ADEChallengeData2016.zip", plain / "ADEChallengeData2016"),
        "voc2012": (root / "VOCtrainval_11-May-2012.tar", plain / "VOCdevkit" / "VOC2012"),
        "cityscapes": (root / "cityscapes", plain / "cityscapes"),
        "gta2cityscapes": (root / "gta", plain / "gta"),
        "bdd100k": (root / "bdd100k", plain / "bdd100k" / "bdd100k"),
        "acdc": (root / "acdc", plain / "acdc"),
    }


def build(name, split, root, **changes):
    cfg = Config.fromfile(CONFIGS / f"{name}.py")[f"{split}_dataloader"].dataset
    dataset = DATASETS.build({**cfg, "data_root": str(root), **changes})
    fill_image_size(dataset, (1024, 1024) if "cityscapes" in name else (512, 512))
    return dataset


COUNTS = {
    ("ade20k", "train"): 5,
    ("ade20k", "val"): 3,
    ("voc2012", "train"): 4,
    ("voc2012", "val"): 2,
    ("cityscapes", "train"): 5,
    ("cityscapes", "val"): 2,
    ("gta2cityscapes", "train"): 20,
    ("bdd100k", "train"): 3,
    ("bdd100k", "val"): 2,
    ("acdc", "train"): 5,
    ("acdc", "val"): 5,
}


@pytest.mark.parametrize(("name", "split"), COUNTS)
def test_archives_and_folders_give_the_same_samples(published, name, split):
    datasets = [build(name, split, root) for root in published[name]]
    assert [len(dataset) for dataset in datasets] == [COUNTS[name, split]] * 2
    np.random.seed(0)
    first = [datasets[0][k] for k in range(len(datasets[0]))]
    np.random.seed(0)
    for k, sample in enumerate(first):
        other = datasets[1][k]
        assert sample["inputs"].equal(other["inputs"])
        gt = sample["data_samples"].gt_sem_seg.data
        assert gt.equal(other["data_samples"].gt_sem_seg.data)
        classes = len(datasets[0].metainfo["classes"])
        assert set(gt.unique().tolist()) <= {*range(classes), 255}


@pytest.mark.parametrize("split", ["train", "val"])
def test_ade20k_classes_start_at_zero(published, split):
    info = build("ade20k", split, published["ade20k"][0]).get_data_info(0)
    dataset = build("ade20k", "val", published["ade20k"][0])
    stored = np.asarray(
        Image.open(
            io.BytesIO(ade20k()["ADEChallengeData2016/annotations/validation/ADE_val_00000001.png"])
        )
    )
    gt = dataset[0]["data_samples"].gt_sem_seg.data[0].numpy()
    assert np.array_equal(gt, np.where(stored == 0, 255, stored.astype(int) - 1))
    assert info["reduce_zero_label"] is True


def test_voc_keeps_border_and_background(published):
    gt = build("voc2012", "val", published["voc2012"][0])[0]["data_samples"].gt_sem_seg.data[0]
    files = voc()
    stored = Image.open(io.BytesIO(files["VOCdevkit/VOC2012/SegmentationClass/2007_000004.png"]))
    assert np.array_equal(gt.numpy(), np.asarray(stored))


def test_label_ids_equal_cityscapes_own_table():
    """trainIds as in cityscapesScripts, written out independently of the table in the package."""
    names = dict(
        road=(7, 0), sidewalk=(8, 1), building=(11, 2), wall=(12, 3), fence=(13, 4), pole=(17, 5),
        light=(19, 6), sign=(20, 7), vegetation=(21, 8), terrain=(22, 9), sky=(23, 10),
        person=(24, 11), rider=(25, 12), car=(26, 13), truck=(27, 14), bus=(28, 15),
        train=(31, 16), motorcycle=(32, 17), bicycle=(33, 18),
    )  # fmt: skip
    assert {k: v for k, v in CITYSCAPES_TRAIN_IDS.items() if v != 255} == dict(names.values())
    assert set(CITYSCAPES_TRAIN_IDS) == set(range(35))


def test_cityscapes_train_ids_files_work_too(published, tmp_path):
    root = published["cityscapes"][1]
    files = {}
    for path in root.rglob("*_labelIds.png"):
        table = np.array([CITYSCAPES_TRAIN_IDS.get(k, 255) for k in range(256)], np.uint8)
        name = str(path.relative_to(root)).replace("_labelIds", "_labelTrainIds")
        files[name] = encoded(table[np.asarray(Image.open(path))])
    for path in root.rglob("*_leftImg8bit.png"):
        files[str(path.relative_to(root))] = path.read_bytes()
    write_folder(tmp_path, files)
    raw = build("cityscapes", "val", root)
    converted = build("cityscapes", "val", tmp_path, seg_map_suffix="_gtFine_labelTrainIds.png")
    for k in range(2):
        pair = [data[k]["data_samples"].gt_sem_seg.data for data in (raw, converted)]
        assert pair[0].equal(pair[1])


def test_a_choice_of_classes_combines_with_raw_labels(published):
    chosen = build(
        "cityscapes", "val", published["cityscapes"][0], metainfo=dict(classes=("car", "sky"))
    )
    every = build("cityscapes", "val", published["cityscapes"][0])
    old = every[0]["data_samples"].gt_sem_seg.data
    new = chosen[0]["data_samples"].gt_sem_seg.data
    assert (new[old == 13] == 0).all()
    assert (new[old == 10] == 1).all()
    assert (new[(old != 13) & (old != 10)] == 255).all()


def test_bdd100k_in_the_older_archive_of_all_splits(published, tmp_path):
    archives = bdd100k()
    name = "bdd100k_sem_seg_labels_trainval.zip"
    write_zip(tmp_path / name, archives.pop(name))
    merged = {name: data for files in archives.values() for name, data in files.items()}
    write_zip(tmp_path / "bdd100k_images_10k.zip", merged)
    old, new = (build("bdd100k", "val", root) for root in (tmp_path, published["bdd100k"][0]))
    for a, b in zip(old, new, strict=True):
        assert a["inputs"].equal(b["inputs"])


@pytest.mark.parametrize("conditions", ["night", ["rain", "night"]])
def test_acdc_by_condition(published, conditions):
    dataset = build("acdc", "val", published["acdc"][0], conditions=conditions)
    wanted = {conditions} if isinstance(conditions, str) else set(conditions)
    paths = [dataset.get_data_info(k)["img_path"] for k in range(len(dataset))]
    assert {path.split("/")[-4] for path in paths} == wanted
    assert len(dataset) == (2 if wanted == {"night"} else 3)
    assert dataset_name(dataset) == "acdc-night" + "-rain" * ("rain" in wanted)
    assert dataset.published == 106 + 100 * ("rain" in wanted)
    assert dataset_name(build("acdc", "val", published["acdc"][0])) == "acdc"


def test_acdc_s_two_kinds_of_labels_agree(published):
    ids, trained = (
        build("acdc", "val", published["acdc"][0], **changes)
        for changes in (dict(seg_map_suffix="_gt_labelIds.png"), {})
    )
    for a, b in zip(ids, trained, strict=True):
        assert a["data_samples"].gt_sem_seg.data.equal(b["data_samples"].gt_sem_seg.data)


@pytest.mark.parametrize(
    "changes", [dict(conditions="sun"), dict(split="test"), dict(conditions=[])]
)
def test_acdc_has_no_such_part(published, changes):
    with pytest.raises(ValueError, match="splits are train and val, conditions fog, night, rain"):
        DATASETS.build(dict(type="RawACDCDataset", data_root=str(published["acdc"][0])) | changes)


@pytest.mark.parametrize("name", ["bdd100k", "acdc"])
def test_what_is_evaluated_on_has_cityscapes_classes(published, name):
    classes = build(name, "val", published[name][0]).metainfo["classes"]
    assert classes == build("cityscapes", "val", published["cityscapes"][0]).metainfo["classes"]


def test_gta_label_of_another_size_is_resized(published):
    dataset = build("gta2cityscapes", "train", published["gta2cityscapes"][0])
    paths = [dataset.get_data_info(k)["seg_map_path"] for k in range(len(dataset))]
    (index, _) = [k for k, path in enumerate(paths) if "03_labels" in path]
    sample = dataset[index]
    assert sample["data_samples"].ori_shape == SIZE
    assert sample["data_samples"].gt_sem_seg.shape == (1024, 1024)


def test_stock_mmseg_transforms_read_the_same_labels(published):
    """The lookup is mmseg's own `label_map`, so its LoadAnnotations applies it too."""
    root = published["cityscapes"][1]
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations"),
        dict(type="PackSegInputs"),
    ]
    stock = build("cityscapes", "val", root, pipeline=pipeline)
    ours = build("cityscapes", "val", root)
    pair = [data[0]["data_samples"].gt_sem_seg.data for data in (stock, ours)]
    assert pair[0].equal(pair[1])


def test_remote_store_by_path_alone(published):
    import fsspec

    local = published["ade20k"][0]
    with fsspec.open("memory://bucket/ADE.zip", "wb") as file:
        file.write(local.read_bytes())
    remote = build("ade20k", "val", "memory://bucket/ADE.zip")
    assert remote[0]["inputs"].equal(build("ade20k", "val", local)[0]["inputs"])


class TestBadData:
    def test_missing_root(self, tmp_path):
        with pytest.raises(
            FileNotFoundError, match=r"none\.zip does not exist|none\.zip/images/training does not"
        ):
            build("ade20k", "train", tmp_path / "none.zip")
        with pytest.raises(
            FileNotFoundError, match=r"none/images/training does not .*ADEChallenge"
        ):
            build("ade20k", "train", tmp_path / "none")

    def test_missing_archives_of_gta_are_listed(self, published, tmp_path):
        for name in ("01_images.zip", "01_labels.zip", "02_images.zip"):
            (tmp_path / name).write_bytes((published["gta2cityscapes"][0] / name).read_bytes())
        with pytest.raises(FileNotFoundError, match=r"missing: 02_labels\.zip, 03_images\.zip, "):
            build("gta2cityscapes", "train", tmp_path)

    def test_empty_folder(self, tmp_path):
        for folder in ("images/training", "annotations/training"):
            (tmp_path / folder).mkdir(parents=True)
        with pytest.raises(ValueError, match=r"images/training: no file .*'\.jpg'.*found: nothing"):
            build("ade20k", "train", tmp_path)

    def test_wrong_suffix(self, published):
        with pytest.raises(ValueError, match=r"no file ends in '\.jpeg' \(found: 5 \.jpg\)"):
            build("ade20k", "train", published["ade20k"][0], img_suffix=".jpeg")

    @pytest.mark.parametrize("store", ["zip", "folder"])
    @pytest.mark.parametrize("missing", ["annotations", "images"])
    def test_half_a_pair(self, tmp_path, store, missing):
        suffix = "jpg" if missing == "images" else "png"
        name = f"{missing}/training/ADE_train_00000003.{suffix}"
        files = ade20k()
        del files[f"ADEChallengeData2016/{name}"]
        root = tmp_path / "x.zip" if store == "zip" else tmp_path / "ADEChallengeData2016"
        write_zip(root, files) if store == "zip" else write_folder(tmp_path, files)
        with pytest.raises(FileNotFoundError, match=rf"{name} is missing \(1 such"):
            build("ade20k", "train", root)

    def test_listed_image_that_is_missing(self, tmp_path):
        files = voc()
        del files["VOCdevkit/VOC2012/JPEGImages/2007_000002.jpg"]
        write_folder(tmp_path, files)
        with pytest.raises(FileNotFoundError, match=r"2007_000002\.jpg is missing .*train\.txt"):
            build("voc2012", "train", tmp_path / "VOCdevkit" / "VOC2012")

    @pytest.mark.parametrize("split", ["train", "val"])
    @pytest.mark.parametrize(
        ("bad", "text"),
        [
            (label(0, 200), "label values .* are outside the classes"),
            (encoded(np.full(SIZE, 258, np.uint16)), "one 8-bit class index .*mode I;16"),
            (encoded(np.zeros((*SIZE, 3), np.uint8)), "one 8-bit class index .*mode RGB"),
            (encoded(np.zeros((*SIZE, 4), np.uint8)), "one 8-bit class index .*mode RGBA"),
            (label(0, 150)[:60], "damaged"),
            (b"", r"0 bytes.*damaged"),
        ],
        ids=["range", "16-bit", "rgb", "rgba", "truncated", "empty"],
    )
    def test_bad_label_is_refused_before_training(self, tmp_path, split, bad, text):
        long, short = ("training", "train") if split == "train" else ("validation", "val")
        files = ade20k()
        name = f"annotations/{long}/ADE_{short}_00000002.png"
        files[f"ADEChallengeData2016/{name}"] = bad
        write_zip(tmp_path / "x.zip", files)
        with pytest.raises(ValueError, match=rf"x\.zip/{name}: .*{text}") as error:
            build("ade20k", split, tmp_path / "x.zip")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_bad_label_found_later_names_its_file(self, published, split):
        """The probe reads a few labels only; the transforms see all."""
        dataset = build("ade20k", split, published["ade20k"][1], serialize_data=False)
        dataset.data_list[1]["num_classes"] = 3
        with pytest.raises(ValueError, match=r"ADE_\w+_00000002\.png: label values .* 1 to 3\)"):
            dataset[1]

    @pytest.mark.parametrize("split", ["train", "val"])
    @pytest.mark.parametrize(
        "cut", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:2]]
    )
    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_truncated_image_names_its_file(self, tmp_path, split, cut, kind):
        long, short = ("training", "train") if split == "train" else ("validation", "val")
        files = ade20k()
        name = f"images/{long}/ADE_{short}_00000001.jpg"
        files[f"ADEChallengeData2016/{name}"] = cut(image(0, kind))
        write_zip(tmp_path / "x.zip", files)
        dataset = build("ade20k", split, tmp_path / "x.zip", probe=False)
        for read in (lambda: dataset[0], lambda: build("ade20k", split, tmp_path / "x.zip")):
            with pytest.raises(ValueError, match=rf"x\.zip/{name}: cannot be decoded") as error:
                read()
            assert "\n" not in str(error.value)

    def test_image_and_label_of_different_size(self, tmp_path):
        files = ade20k()
        name = "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png"
        files[name] = label(0, 150, size=(40, 64))
        write_zip(tmp_path / "x.zip", files)
        dataset = build("ade20k", "val", tmp_path / "x.zip", probe=False)
        for read in (lambda: dataset[0], lambda: build("ade20k", "val", tmp_path / "x.zip")):
            with pytest.raises(ValueError, match=r"ADE_val_00000001\.png: .*64 x 40.*not a pair"):
                read()

    def test_image_without_a_valid_pixel_is_never_a_training_sample(self, tmp_path):
        files = ade20k()
        name = "ADEChallengeData2016/annotations/training/ADE_train_00000002.png"
        files[name] = encoded(np.zeros(SIZE, np.uint8))
        write_zip(tmp_path / "x.zip", files)
        dataset = build("ade20k", "train", tmp_path / "x.zip")
        paths = [Path(dataset[1]["data_samples"].img_path).stem for _ in range(30)]
        assert "ADE_train_00000002" not in paths
        assert len(set(paths)) > 2
