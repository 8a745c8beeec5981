"""Predictions side by side: the pictures in the page are those of the runs, and of their scores."""

import base64
import io
import json
import os
import re
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from vfm_ss.protocol.examples import (
    EXAMPLES_NAME,
    Example,
    Examples,
    encoded,
    of_record,
    places,
    write_examples,
)
from vfm_ss.protocol.runs import collect
from vfm_ss.ranking.analysis import analyse
from vfm_ss.report.examples import example_blocks
from vfm_ss.report.page import page

CLASSES = ["road", "sky", "<i>tree</i>"]
PALETTE = [[0, 0, 0], [10, 200, 30], [255, 0, 7]]
SIZE = (12, 20)
STRIPES = {(128, 128, 128), (208, 208, 208)}


def file(array, form="PNG"):
    data = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(data, form)
    return encoded(data.getvalue())


def labels(images=9, count=2):
    """Draw labels, and return them by place; 255 is ignored."""
    rng = np.random.default_rng(3)
    return {p: rng.choice([0, 1, 2, 255], SIZE).astype(np.uint8) for p in places(images, count)}


def save(folder, record, shown, predicted, **changes):
    """Write a run with its examples, and return its predictions by place."""
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(asdict(record)))
    rows = [
        Example(f"{p}.jpg", p, 12.5, file(np.full((*SIZE, 3), 90, np.uint8), "JPEG"),
                file(label), file(predicted[p]))
        for p, label in shown.items()
    ]  # fmt: skip
    values = of_record(record, record.step, record.miou)
    values |= dict(images=9, classes=CLASSES, palette=PALETTE, examples=rows)
    write_examples(folder, Examples(**values | changes))


@pytest.fixture
def runs(tmp_path, make_record):
    """Write three models under two settings, two seeds each, all with examples."""
    rng, predicted = np.random.default_rng(4), {}
    for setting in ("default", "probe"):
        for i, vfm in enumerate(("mae", "sam", "dfn")):
            for seed in (0, 1):
                record = make_record(vfm, setting, seed, 50.0 - i + 0.25 * seed)
                maps = {p: rng.integers(3, size=SIZE).astype(np.uint8) for p in labels()}
                save(tmp_path / "runs" / f"{setting}-{vfm}-{seed}", record, labels(), maps)
                predicted[setting, vfm, seed] = maps
    return tmp_path / "runs", predicted


def blocks(root, metric="last"):
    return example_blocks(analyse(collect([root], metric)[0], metric=metric))


def pixels(address):
    assert re.match("data:image/(png|jpeg);base64,", address)
    data = base64.b64decode(address.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_each_picture_is_the_one_of_its_model_and_image(runs):
    root, predicted = runs
    found = blocks(root)
    assert [block["title"] for block in found] == ["Default", "Linear probing"]
    for block, setting in zip(found, ("default", "probe"), strict=True):
        assert block["left_out"] == []
        for image, (place, label) in zip(block["images"], labels().items(), strict=True):
            assert (image["name"], image["place"]) == (f"{place}.jpg", place + 1)
            assert (pixels(image["photo"]) == 90).all()
            shown = pixels(image["label"])
            counted = label != 255
            assert (shown[counted] == np.array(PALETTE)[label[counted]]).all()
            assert {tuple(c) for c in shown[~counted].tolist()} == STRIPES
            assert [p["vfm"] for p in image["predictions"]] == ["mae", "sam", "dfn"]
            for p in image["predictions"]:
                expected = np.array(PALETTE)[predicted[setting, p["vfm"], 0][place]]
                assert (pixels(p["picture"]) == expected).all()
                assert (p["seed"], p["miou"]) == (0, 12.5)
        scores = [p["run_miou"] for p in block["images"][0]["predictions"]]
        assert scores == [50.0, 49.0, 48.0]
        assert "Images 3 and 7 of 9 in the sorted list" in block["text"]


def test_the_page_shows_them_and_needs_nothing_else(runs, tmp_path):
    root, _ = runs
    source = page(analyse(collect([root])[0]), tmp_path, "default")
    assert source.count("<figure>") == 2 * 2 * (2 + 3)
    addresses = re.findall(r'<img[^>]* src="([^"]*)"', source)
    assert len(addresses) == source.count("<figure>")
    assert all(re.match(r"data:image/(png|jpeg);base64,[\w+/]+=*$", a) for a in addresses)
    assert "&lt;i&gt;tree&lt;/i&gt;" in source
    assert "here 12.5 %, all 50.00 %" in source


def test_a_page_without_examples_has_no_such_section(tmp_path, write_grid):
    root = write_grid(tmp_path / "runs", ("mae", "sam"), ("default",), seeds=1)
    a = analyse(collect([root])[0])
    assert example_blocks(a) == []
    body = page(a, tmp_path, "default").partition("</style>")[2].partition("<script")[0]
    assert 'id="examples"' not in body


def test_the_next_seed_takes_the_place_of_one_without(runs):
    root, predicted = runs
    (root / "default-mae-0" / EXAMPLES_NAME).unlink()
    edit(root / "default-sam-0" / EXAMPLES_NAME, lambda d: d.update(step=1))
    block = blocks(root)[0]
    assert block["left_out"] == []
    for image, place in zip(block["images"], labels(), strict=True):
        shown = {p["vfm"]: p for p in image["predictions"]}
        assert {vfm: p["seed"] for vfm, p in shown.items()} == {"mae": 1, "sam": 1, "dfn": 0}
        for vfm, p in shown.items():
            maps = predicted["default", vfm, p["seed"]]
            assert (pixels(p["picture"]) == np.array(PALETTE)[maps[place]]).all()
        assert shown["mae"]["run_miou"] == 50.25


def drop_seed_1(root):
    for path in root.glob(f"*-1/{EXAMPLES_NAME}"):
        path.unlink()


FOREIGN = {
    "another step": (lambda d: d.update(step=10), "its step is 10"),
    "another seed": (lambda d: d.update(seed=3), "its seed is 3"),
    "another score": (lambda d: d.update(miou=50.5), "its miou is 50.5"),
    "another configuration": (lambda d: d.update(config_hash="ab" * 32), "its config_hash is"),
    "other classes": (lambda d: d.update(classes=["sky", "road", "x"]), "other images, labels or"),
    "another set": (lambda d: (d.update(images=10), d["examples"][1].update(place=7)), "other im"),
    "another image": (lambda d: d["examples"][0].update(name="z.jpg"), "other images, labels or"),
    "another label": (
        lambda d: d["examples"][0].update(label=d["examples"][0]["prediction"]),
        "other images, labels or",
    ),
    "no class": (
        lambda d: d["examples"][0].update(prediction=file(np.full(SIZE, 3, np.uint8))),
        "the prediction of 2.jpg holds a value that is not a class",
    ),
    "ignored prediction": (
        lambda d: d["examples"][0].update(prediction=file(np.full(SIZE, 255, np.uint8))),
        "the prediction of 2.jpg holds a value that is not a class",
    ),
    "another size": (
        lambda d: d["examples"][0].update(prediction=file(np.zeros((12, 21), np.uint8))),
        "differ in size",
    ),
    "too large": (
        lambda d: d["examples"][0].update(prediction=file(np.zeros((513, 4), np.uint8))),
        "L of 4 x 513 pixels",
    ),
    "colours": (
        lambda d: d["examples"][0].update(label=file(np.zeros((*SIZE, 3), np.uint8))),
        "RGB of 20 x 12 pixels",
    ),
    "GIF": (
        lambda d: d["examples"][0].update(label=file(np.zeros(SIZE, np.uint8), "GIF")),
        "the label of 2.jpg is not a PNG file",
    ),
    "cut": (
        lambda d: d["examples"][0].update(label=d["examples"][0]["label"][:88]),
        "the label of 2.jpg cannot be used",
    ),
    "no base64": (lambda d: d["examples"][0].update(label="<b>"), "is not base64"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_not_of_the_score_or_of_the_same_images_is_not_shown(runs, case):
    root, _ = runs
    drop_seed_1(root)
    change, words = FOREIGN[case]
    edit(root / "default-mae-0" / EXAMPLES_NAME, change)
    block = blocks(root)[0]
    assert [p["vfm"] for p in block["images"][0]["predictions"]] == ["sam", "dfn"]
    ((vfm, reason),) = block["left_out"]
    assert vfm == "mae"
    assert words in reason
    assert str(root / "default-mae-0") in reason


def test_a_photo_that_cannot_be_read_is_left_out(runs):
    root, _ = runs
    for path in root.glob(f"default-*/{EXAMPLES_NAME}"):
        edit(path, lambda d: d["examples"][0].update(photo=d["examples"][0]["label"]))
    block = blocks(root)[0]
    assert [bool(image["photo"]) for image in block["images"]] == [False, True]
    assert len(block["images"][0]["predictions"]) == 3


def test_a_pipe_a_huge_file_and_no_file_hang_nothing(runs):
    root, _ = runs
    drop_seed_1(root)
    for vfm in ("mae", "sam", "dfn"):
        (root / f"default-{vfm}-0" / EXAMPLES_NAME).unlink()
    os.mkfifo(root / "default-mae-0" / EXAMPLES_NAME)
    with open(root / "default-sam-0" / EXAMPLES_NAME, "wb") as huge:
        huge.truncate(2**30)
    block = blocks(root)[0]
    assert block["images"] == []
    left_out = dict(block["left_out"])
    assert "not a regular file" in left_out["mae"]
    assert "too big" in left_out["sam"]
    assert left_out["dfn"] == "without examples.json"


def test_the_best_validation_needs_examples_of_its_own_step(tmp_path, make_record):
    for vfm, seed in (("mae", 0), ("sam", 0)):
        record = make_record(vfm, "default", seed, 50.0, best_miou=60.0)
        best_step = record.history[0][0]
        changes = dict(step=best_step, miou=60.0) if vfm == "sam" else {}
        maps = {p: np.zeros(SIZE, np.uint8) for p in labels()}
        save(tmp_path / "runs" / vfm, record, labels(), maps, **changes)
    for metric, shown, other in (("last", "mae", "sam"), ("best", "sam", "mae")):
        (block,) = blocks(tmp_path / "runs", metric)
        assert [p["vfm"] for p in block["images"][0]["predictions"]] == [shown]
        ((vfm, reason),) = block["left_out"]
        assert vfm == other
        assert "its step is" in reason


def test_a_page_stays_small(runs, monkeypatch):
    root, _ = runs
    images = blocks(root)[0]["images"]
    bytes_of = {vfm: sum(len(image["predictions"][k]["picture"]) for image in images)
                for k, vfm in enumerate(("mae", "sam", "dfn"))}  # fmt: skip
    own = sum(len(image["photo"]) + len(image["label"]) for image in images)
    room = own + bytes_of["mae"] + bytes_of["sam"]
    monkeypatch.setattr("vfm_ss.report.examples._MOST_BYTES", room)
    (first,) = blocks(root)
    assert [p["vfm"] for p in first["images"][0]["predictions"]] == ["mae", "sam"]
    assert first["left_out"] == [
        ("dfn", "the page would become too large"),
        ("other settings", "the page would become too large: Linear probing"),
    ]


def test_255_classes_have_a_colour_each(tmp_path, make_record):
    record = make_record("mae")
    label = np.arange(256, dtype=np.uint8).reshape(16, 16)
    palette = [[k, 255 - k, 0] for k in range(255)]
    names = [f"c{k}" for k in range(255)]
    (place,) = places(9, 1)
    save(tmp_path / "a", record, {place: label}, {place: np.minimum(label, 254)},
         classes=names, palette=palette)  # fmt: skip
    (block,) = blocks(tmp_path)
    shown = pixels(block["images"][0]["label"]).reshape(-1, 3)
    assert shown[:255].tolist() == palette
    assert tuple(shown[255]) in STRIPES
    assert len(block["legend"]) == 42
    assert block["legend"][-2]["name"] == "and 215 rarer ones"
    assert block["legend"][-1]["name"] == "no label, not counted"
