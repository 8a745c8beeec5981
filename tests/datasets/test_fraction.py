"""Fractions of a training set: which samples, of which data sets, and that none other is read."""

import hashlib
import os
import shutil
import zipfile
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from PIL import Image

from vfm_ss.datasets import class_presence as cache
from vfm_ss.datasets import fraction as module
from vfm_ss.datasets.check import check_config
from vfm_ss.datasets.fraction import build_dataset, nested_order
from vfm_ss.datasets.seeding import SampleIndex

CAMVID = Path(__file__).parents[3] / "shared" / "data" / "camvid.zip"
FRACTIONS = ("1/64", "1/16", "1/4", "1/3", "1")
CLASSES = ("sky", "road", "car", "sign")


@pytest.fixture(autouse=True)
def _scope_and_cache(tmp_path, monkeypatch):
    init_default_scope("mmseg")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def random_presence(seed, samples=512, classes=24):
    """Classes from everywhere to in a handful of images."""
    rng = np.random.default_rng(seed)
    share = np.geomspace(0.9, 4 / samples, classes)
    return rng.random((samples, classes)) < share


class TestOrder:
    @pytest.mark.parametrize("seed", range(5))
    def test_every_fraction_holds_the_classes_of_16_images(self, seed):
        presence = random_presence(seed)
        order = nested_order([f"{k}.png" for k in range(512)], presence, seed)
        assert sorted(order) == list(range(512))
        wanted = set(np.flatnonzero(presence.sum(0) >= 16))
        assert 10 < len(wanted) < 24
        assert wanted <= set(np.flatnonzero(presence[order[:8]].any(0))), "1/64 of 512"

    def test_it_follows_from_names_alone(self):
        presence = random_presence(0)
        names = [f"{k:04}" for k in range(512)]
        order = nested_order(names, presence, 0)
        other = np.random.default_rng(1).permutation(512)
        again = nested_order([names[i] for i in other], presence[other], 0)
        assert [names[other[i]] for i in again] == [names[i] for i in order]
        assert nested_order(names, presence, 1) != order

    def test_it_is_by_checksums(self):
        """Not by anything that differs from machine to machine."""
        names = [f"0/{k}" for k in range(15)]
        order = nested_order(names, np.ones((15, 2), bool), 7)
        expected = sorted(names, key=lambda n: hashlib.sha256(f"7\n{n}".encode()).hexdigest())
        assert [names[i] for i in order] == expected
        assert expected[:4] == ["0/1", "0/14", "0/3", "0/6"]

    def test_only_the_cover_departs_from_chance(self):
        presence = random_presence(2)
        names = [str(k) for k in range(512)]
        order = nested_order(names, presence, 0)
        plain = nested_order(names, np.zeros((512, 1), bool), 0)
        rest = [i for i in plain if i not in set(order[:8])]
        assert [i for i in order if i in set(rest)] == rest


def write_set(folder, count=64, prefix="", rare=()):
    """Images and labels of 4x4; `rare` are those with the last class."""
    for k in range(count):
        for kind, end in (("images", "jpg"), ("labels", "png")):
            path = folder / kind / f"{prefix}{k:03}.{end}"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((4, 4), k % 3, np.uint8)
            pixels[0] = 3 if k in rare else 0
            if kind == "images":
                Image.fromarray(pixels).convert("RGB").save(path)
            else:
                Image.fromarray(pixels).save(path)
    return folder


def config(folder, **changes):
    return dict(
        type="BaseSegDataset", data_root=str(folder), metainfo=dict(classes=CLASSES),
        data_prefix=dict(img_path="images", seg_map_path="labels"), **changes,
    )  # fmt: skip


def files_of(dataset):
    return [os.path.basename(dataset.get_data_info(i)["img_path"]) for i in range(len(dataset))]


class TestDataSets:
    def test_nested_for_a_stock_data_set_of_mmseg(self, tmp_path):
        folder = write_set(tmp_path / "set", rare=range(20, 36))
        chosen = [files_of(build_dataset(config(folder, fraction=f))) for f in FRACTIONS]
        assert [len(names) for names in chosen] == [1, 4, 16, 21, 64]
        for smaller, larger in pairwise(chosen):
            assert set(smaller) < set(larger)
            assert larger == sorted(larger), "the order of the data set stays"
        assert {f"{k:03}.jpg" for k in range(20, 36)} & set(chosen[0])
        other = build_dataset(config(folder, fraction="1/4", subset_seed=1))
        assert files_of(other) != chosen[2]

    def test_a_sample_that_cannot_be_used_is_replaced_from_the_fraction(self, tmp_path):
        folder = write_set(tmp_path / "set")
        dataset = build_dataset(config(folder, fraction="1/16", pipeline=[lambda results: results]))
        inside = set(files_of(dataset))
        np.random.seed(0)
        drawn = {files_of(dataset)[dataset._rand_another()] for _ in range(200)}
        assert drawn == inside
        assert os.path.basename(dataset[SampleIndex(3)]["img_path"]) in inside

    def test_archive_folder_and_file_type_make_no_difference(self, tmp_path):
        folder = write_set(tmp_path / "ADEChallengeData2016")
        for kind in ("images", "annotations"):
            (folder / kind / "training").mkdir(parents=True)
        for k in range(64):
            shutil.move(folder / f"images/{k:03}.jpg", folder / f"images/training/{k:03}.jpg")
            shutil.move(folder / f"labels/{k:03}.png", folder / f"annotations/training/{k:03}.png")
        with zipfile.ZipFile(tmp_path / "ade.zip", "w") as archive:
            for path in folder.rglob("*.*"):
                archive.write(path, path.relative_to(tmp_path))

        def names(root, **changes):
            cfg = dict(
                type="RawADE20KDataset", data_root=str(root), fraction="1/8",
                data_prefix=dict(
                    img_path="images/training", seg_map_path="annotations/training"
                ), **changes,
            )  # fmt: skip
            return build_dataset(cfg).subset.names

        expected = names(folder)
        assert len(expected) == 8
        assert names(tmp_path / "ade.zip") == expected
        shutil.move(folder, tmp_path / "elsewhere")
        for path in (tmp_path / "elsewhere/images/training").iterdir():
            path.rename(path.with_suffix(".jpeg"))
        assert names(tmp_path / "elsewhere", img_suffix=".jpeg") == expected

    def test_parts_of_wrappers_are_chosen_from_together(self, tmp_path):
        a = config(write_set(tmp_path / "a", 64, "a", rare=[5]))
        b = config(write_set(tmp_path / "b", 32, "b", rare=range(15)))
        both = dict(type="ConcatDataset", datasets=[a, b])
        dataset = build_dataset(dict(type="RepeatDataset", times=3, dataset=both, fraction="1/8"))
        assert len(dataset) == 3 * 12
        assert dataset.subset.whole == 96
        parts = dataset.dataset.datasets
        assert sum(len(part) for part in parts) == dataset.dataset.cumulative_sizes[1] == 12
        # 16 images over both parts hold the class, 1 and 15 of each would not be enough.
        assert dataset.subset.lost == {}
        assert {name[:2] for name in dataset.subset.names} == {"0/", "1/"}
        with pytest.raises(ValueError, match="inside of a wrapper"):
            build_dataset(
                dict(type="RepeatDataset", times=2, dataset={**a, "fraction": "1/2"}, fraction=0.5)
            )

    def test_lost_classes_are_named(self, tmp_path):
        folder = write_set(tmp_path / "set", rare=[7, 8])
        subset = build_dataset(config(folder, fraction="1/16")).subset
        assert subset.lost == {"sign": 2}
        assert subset.loss == (
            "fraction 1/16 of the training set (subset seed 0): 4 of 64 samples, none of which "
            "holds classes that the whole set holds: 'sign' (in 2)"
        )
        for k in range(64):
            Image.fromarray(np.full((4, 4), k % 2, np.uint8)).save(folder / f"labels/{k:03}.png")
        with pytest.raises(ValueError, match=r"1 of 64 samples hold pixels of '\w+' only"):
            build_dataset(config(folder, fraction="1/64"))

    def test_what_cannot_be_a_fraction_is_refused(self, tmp_path):
        folder = write_set(tmp_path / "set")
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            build_dataset(config(folder, fraction="16"))
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            build_dataset(config(folder, fraction=0))
        with pytest.raises(ValueError, match="subset_seed is '1'"):
            build_dataset(config(folder, fraction="1/4", subset_seed="1"))
        unlabelled = {**config(folder, fraction="1/4"), "data_prefix": dict(img_path="images")}
        with pytest.raises(ValueError, match=r"000\.jpg has no label"):
            build_dataset(unlabelled)


class TestCache:
    def test_labels_are_decoded_once_and_again_when_they_change(self, tmp_path, monkeypatch):
        folder = write_set(tmp_path / "set", 20, rare=range(16))
        reads = []
        real = cache.read_pair
        monkeypatch.setattr(
            cache, "read_pair", lambda *args, **kwargs: reads.append(1) or real(*args, **kwargs)
        )
        first = build_dataset(config(folder, fraction="1/4")).subset
        assert build_dataset(config(folder, fraction="1/4")).subset == first
        assert len(reads) == 20

        for k in range(1, 20):  # now one image alone holds the class
            Image.fromarray(np.full((4, 4), k % 3, np.uint8)).save(folder / f"labels/{k:03}.png")
        subset = build_dataset(config(folder, fraction="1/4")).subset
        assert subset.lost.get("sign") == 1
        assert "0/000" not in subset.names
        assert len(reads) == 40
        build_dataset({**config(folder, fraction="3/4"), "reduce_zero_label": True})
        assert len(reads) == 60, "read in another way"

    @pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
    def test_a_damaged_cache_is_read_past(self, tmp_path, damage):
        folder = write_set(tmp_path / "set", 20, rare=range(16))
        first = build_dataset(config(folder, fraction="1/4")).subset
        (path,) = cache.cache_folder().iterdir()
        if damage is None:
            np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        else:
            path.write_bytes(damage)
        assert build_dataset(config(folder, fraction="1/4")).subset == first
        assert np.load(path).shape == (20, 1)

    def test_a_folder_that_cannot_be_written_is_no_error(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        dataset = build_dataset(config(write_set(tmp_path / "set", 20), fraction="1/4"))
        assert len(dataset) == 5

    def test_a_bad_label_is_named(self, tmp_path):
        folder = write_set(tmp_path / "set", 20)
        (folder / "labels" / "013.png").write_bytes(b"")
        with pytest.raises(ValueError, match=r"013\.png"):
            build_dataset(config(folder, fraction="1/4"))


def test_check_data_says_the_fraction(tmp_path, capsys):
    folder = write_set(tmp_path / "set", rare=[7, 8])
    path = tmp_path / "config.py"
    train = config(folder)
    path.write_text(f"train_dataloader = dict(dataset={train!r})\n")

    def check(**options):
        status = check_config(
            str(path), {f"train_dataloader.dataset.{k}": v for k, v in options.items()}
        )
        return status, capsys.readouterr().out

    status, out = check()
    assert (status, "fraction" in out) == (0, False)
    status, out = check(fraction="1/16")
    assert status == 0
    assert "train: fraction 1/16 of the training set (subset seed 0): 4 of 64 samples" in out
    assert "'sign' (in 2)" in out
    assert "64 samples, 4 read" in out


@pytest.mark.skipif(not CAMVID.exists(), reason="CamVid is not here")
def test_camvid(monkeypatch):
    """Against a count of the labels by Pillow and numpy."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "projects" / "camvid"))
    import camvid  # noqa: F401

    root = f"{CAMVID}/CamVid"
    cfg = dict(
        type="CamVidDataset", data_root=root, backend_args=dict(backend="archive"),
        data_prefix=dict(img_path="images/train", seg_map_path="annotations/train"),
    )  # fmt: skip
    holds = {}
    with zipfile.ZipFile(CAMVID) as archive:
        for name in archive.namelist():
            if "annotations/train/" in name and name.endswith(".png"):
                with archive.open(name) as file:
                    holds[Path(name).stem] = set(np.unique(np.asarray(Image.open(file)))) - {11}
    everything = set.union(*holds.values())
    often = {k for k in everything if sum(k in found for found in holds.values()) >= 16}
    before: set = set()
    for share in FRACTIONS:
        dataset = build_dataset({**cfg, "fraction": share})
        stems = {Path(name).stem for name in files_of(dataset)}
        assert len(stems) == round(Fraction(share) * len(holds))
        assert before <= stems
        assert often <= set.union(*(holds[stem] for stem in stems))
        before = stems


def test_processes_agree(tmp_path, monkeypatch):
    """The main process chooses; the others take its choice, and its error."""
    folder = write_set(tmp_path / "set", 20)
    sent = []
    monkeypatch.setattr(module, "broadcast_object_list", lambda answer: sent.append(list(answer)))
    main = build_dataset(config(folder, fraction="1/4"))
    monkeypatch.setattr(module, "is_main_process", lambda: False)
    monkeypatch.setattr(
        module, "broadcast_object_list", lambda answer: answer.__setitem__(slice(None), sent[0])
    )
    monkeypatch.setattr(module, "class_presence", None)
    other = build_dataset(config(folder, fraction="1/4"))
    assert other.subset == main.subset
    assert files_of(other) == files_of(main)
    sent[0] = [None, None, ValueError("no")]
    with pytest.raises(ValueError, match="no"):
        build_dataset(config(folder, fraction="1/4"))
