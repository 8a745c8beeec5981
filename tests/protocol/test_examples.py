"""A run's examples.json: which images, whose predictions, and what is refused."""

import json
from dataclasses import replace

import pytest

from vfm_ss.protocol.examples import (
    EXAMPLES_NAME,
    Example,
    Examples,
    encoded,
    of_record,
    places,
    read_examples,
    write_examples,
)

HASH = "ab" * 32


def example(place, **changes):
    values = dict(name=f"{place}.jpg", place=place, miou=50.0)
    values |= {kind: encoded(b"bytes") for kind in ("photo", "label", "prediction")}
    return Example(**values | changes)


def examples(record, **changes):
    values = of_record(record, record.step, record.miou)
    values |= dict(images=4, classes=["a", "b"], palette=[[0, 0, 0], [1, 2, 255]])
    values |= dict(examples=[example(1), example(3)])
    return Examples(**values | changes)


@pytest.fixture
def record(make_record):
    return make_record(config_hash=HASH, config=None)


@pytest.mark.parametrize("images", [*range(1, 40), 101, 2000])
@pytest.mark.parametrize("count", [1, 2, 4, 16])
def test_images_are_the_middles_of_equal_parts(images, count):
    found = places(images, count)
    count = min(count, images)
    assert len(set(found)) == count
    for part, place in enumerate(found):
        # In exact numbers: the part is [part, part + 1) * images / count, its middle the place.
        middle = (part + 0.5) * images / count
        assert place <= middle < place + 1
        assert part * images <= (place + 1) * count
        assert place * count < (part + 1) * images


def test_what_is_written_is_read(tmp_path, record):
    written = examples(record)
    write_examples(tmp_path, written)
    assert read_examples(tmp_path / EXAMPLES_NAME) == written
    assert written.examples[0].file("photo") == b"bytes"


@pytest.mark.parametrize(
    ("name", "value"),
    [("step", 7), ("seed", 5), ("miou", 49.99), ("config_hash", "cd" * 32), ("eval_dataset", "x")],
)
def test_predictions_of_another_score_are_told(record, name, value):
    assert examples(record).foreign_to(record, record.step, record.miou) is None
    reason = examples(record, **{name: value}).foreign_to(record, record.step, record.miou)
    assert reason.startswith(f"its {name} is ")
    moved = replace(record, **{name: value}) if name in ("seed", "eval_dataset") else record
    other = {"step": record.step, "miou": record.miou} | {name: value}
    if name != "config_hash":
        assert examples(record).foreign_to(moved, other["step"], other["miou"]) is not None


WRONG = {
    "of another rule": (lambda d: d["examples"][0].update(place=0), "not those that the rule"),
    "left out": (lambda d: d["examples"].pop(), "not those that the rule"),
    "unordered": (lambda d: d["examples"].reverse(), "not those that the rule"),
    "none": (lambda d: d.update(examples=[]), "0 examples"),
    "no list": (lambda d: d.update(examples={"a": 1}), "'examples' is {'a': 1}"),
    "no object": (lambda d: d.update(examples=[1]), "an example is 1"),
    "without a name": (lambda d: d["examples"][0].pop("name"), "'name' is missing"),
    "steering": (lambda d: d["examples"][0].update(name="a\x1b[2J"), "field 'name'"),
    "without a step": (lambda d: d.pop("step"), "'step' is missing"),
    "too good": (lambda d: d["examples"][0].update(miou=101), "field 'miou'"),
    "too few colours": (lambda d: d["palette"].pop(), "2 classes and 1 colours"),
    "no colour": (lambda d: d["palette"][0].append(0), "field 'palette'"),
    "bright": (lambda d: d["palette"][0].__setitem__(0, 256), "field 'palette'"),
    "of another schema": (lambda d: d.update(schema=2), "schema 1"),
    "many": (lambda d: d.update(classes=["a"] * 256, palette=[[0, 0, 0]] * 256), "at most 255"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_named(tmp_path, record, case):
    write_examples(tmp_path, examples(record))
    path = tmp_path / EXAMPLES_NAME
    data = json.loads(path.read_text())
    change, words = WRONG[case]
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r".") as error:
        read_examples(path)
    assert str(path) in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_base64_is_told():
    with pytest.raises(ValueError, match=r"the label of 1\.jpg is not base64"):
        example(1, label="*").file("label")
