"""Records: what is written comes back, and no JSON gets further than one line of refusal."""

import json
import string
from dataclasses import asdict, fields

from hypothesis import given, settings
from hypothesis import strategies as st

from vfm_ss.protocol.records import STATUSES, Record, read_record, write_record

every = settings(max_examples=150, deadline=None, derandomize=True)

printable = st.characters(exclude_categories=["C", "Z"]) | st.just(" ")
names = st.text(printable, min_size=1, max_size=12)
percents = st.floats(0, 100)
counts = st.integers(0, 2**63 - 1)
positive = st.integers(1, 2**63 - 1)
seconds = st.floats(0, exclude_min=True, allow_infinity=False)
checksums = st.text("0123456789abcdef", min_size=64, max_size=64)
optional = {
    "size": names,
    "patch": positive,
    "seed": counts,
    "train_seconds": seconds,
    "step_seconds": seconds,
    "peak_memory_mb": st.floats(0, allow_infinity=False),
    "device": names,
    "world_size": positive,
    "micro_batch": positive,
    "effective_batch": positive,
    "precision": names,
    "compiled": st.booleans(),
    "versions": st.dictionaries(names, names, max_size=5),
    "commit": names,
    "model_name": names,
    "weights": st.fixed_dictionaries({"source": names, "sha256": st.none() | checksums}),
    "crop_size": st.lists(positive, min_size=2, max_size=2),
    "lr": st.floats(0, allow_infinity=False),
    "layer_decay": seconds,
    "data": st.fixed_dictionaries(
        {
            "train_samples": st.none() | counts,
            "fraction": st.none() | st.floats(0, 1, exclude_min=True),
            "subset_seed": st.none() | counts,
        }
    ),
    "config_hash": checksums,
}


@st.composite
def records(draw):
    """Make one that does not contradict itself."""
    step, more = sorted([draw(counts), draw(positive)])
    steps = sorted(draw(st.lists(st.integers(0, step), max_size=5)))
    history = [[at, draw(st.none() | percents)] for at in steps]
    miou = history[-1][1] if history else draw(st.none() | percents)
    known = [score for _, score in history if score is not None]
    ious = draw(st.dictionaries(names, st.sampled_from([None, miou]), max_size=5))
    in_mean = sum(iou is not None for iou in ious.values())
    params = sorted([draw(counts), draw(counts)])
    return Record(
        **{k: draw(names) for k in ("name", "vfm", "decoder", "train_dataset", "eval_dataset")},
        status=draw(st.sampled_from(STATUSES)),
        step=draw(st.sampled_from([step, None])),
        max_steps=draw(st.sampled_from([max(more, 1), None])),
        miou=miou,
        best_miou=draw(st.sampled_from([None, max(known, default=miou)])),
        history=history,
        iou=draw(st.sampled_from([None, ious])),
        classes=draw(st.sampled_from([None, {"total": len(ious) or 1, "in_mean": in_mean}])),
        trainable_params=draw(st.sampled_from([None, params[0]])),
        total_params=draw(st.sampled_from([None, params[1]])),
        stopped_early=True,
        **{name: draw(st.none() | values) for name, values in optional.items()},
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=8,
)


def test_every_record_comes_back_as_it_was(tmp_path):
    path = tmp_path / "record.json"

    @every
    @given(records())
    def check(record):
        write_record(path, record)
        assert read_record(path) == record
        assert json.loads(path.read_text(encoding="utf-8")) == asdict(record)

    check()


def test_any_json_in_any_field_is_a_record_or_refused_with_one_line(tmp_path):
    path = tmp_path / "record.json"

    @every
    @given(records(), st.sampled_from([f.name for f in fields(Record)]), json_values)
    def check(record, name, value):
        path.write_text(json.dumps({**asdict(record), name: value}), encoding="utf-8")
        try:
            read = read_record(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
            assert str(error).isprintable()
            assert value != getattr(record, name) or value != value
        else:
            assert getattr(read, name) == value
            assert read.setting

    check()


def test_any_json_and_any_text_is_refused_with_one_line(tmp_path):
    path = tmp_path / "record.json"

    @every
    @given(json_values.map(json.dumps) | st.text(string.printable + "é\u2028", max_size=50))
    def check(text):
        path.write_text(text, encoding="utf-8")
        try:
            read_record(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
            assert str(error).isprintable()
        else:
            raise AssertionError(f"accepted {text!r}")

    check()
