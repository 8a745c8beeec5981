import json
import os
import re
import threading
from dataclasses import asdict

import pytest

from vfm_ss.protocol.identity import config_hash
from vfm_ss.protocol.records import Record, read_record, write_record


def make(miou=47.25, **changes):
    values = {
        "name": "dinov2_b16_linear_ade20k",
        "vfm": "dinov2",
        "size": "b",
        "patch": 16,
        "decoder": "linear",
        "train_dataset": "ade20k",
        "eval_dataset": "ade20k",
        "seed": 0,
        "status": "finished",
        "step": 100,
        "max_steps": 100,
        "miou": miou,
        "best_miou": 48.5,
        "iou": {"wall": miou, "sky & <sea>": None},
        "history": [[50, 48.5], [100, miou]],
        "train_seconds": 12.5,
        "versions": {"torch": "2.12.1"},
        "compiled": False,
    }
    return Record(**values | changes)


def test_round_trip_keeps_every_field(tmp_path):
    record = make()
    write_record(tmp_path / "record.json", record)
    assert read_record(tmp_path / "record.json") == record
    on_disk = json.loads((tmp_path / "record.json").read_text())
    assert on_disk == asdict(record)
    assert on_disk["schema"] == 2
    assert on_disk["device"] is None
    assert record.setting == "default"


def test_write_leaves_nothing_beside_the_record(tmp_path):
    path = tmp_path / "record.json"
    write_record(path, make(miou=1.0))
    write_record(path, make(miou=2.0))
    assert read_record(path).miou == 2.0
    assert os.listdir(tmp_path) == ["record.json"]
    record = make()
    record.miou = float("nan")
    with pytest.raises(ValueError, match="field 'miou' is nan"):
        write_record(path, record)
    assert os.listdir(tmp_path) == ["record.json"]
    assert read_record(path).miou == 2.0


def test_a_failed_write_keeps_the_old_record(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    write_record(path, make(miou=1.0))

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_record(path, make(miou=2.0))
    assert os.listdir(tmp_path) == ["record.json"]
    assert read_record(path).miou == 1.0


def test_readers_never_see_a_part(tmp_path):
    path = tmp_path / "record.json"
    write_record(path, make(miou=0.0))
    done = threading.Event()

    def write():
        for i in range(60):
            row = {"best_miou": float(i), "history": [[k, float(i)] for k in range(100)]}
            write_record(path, make(float(i), **row))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        record = read_record(path)
        assert all(value == record.miou for _, value in record.history[2:])
    writer.join()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"miou": 101}, "field 'miou' is 101, expected a number from 0 to 100"),
        ({"miou": "47"}, "field 'miou' is '47'"),
        ({"miou": True}, "field 'miou' is True"),
        ({"miou": float("inf")}, "field 'miou' is inf"),
        ({"seed": 1.0}, "field 'seed' is 1.0, expected an integer"),
        ({"seed": -1}, "field 'seed' is -1"),
        ({"status": "done"}, "field 'status' is 'done', expected one of running, finished"),
        ({"vfm": None}, "field 'vfm' is None"),
        ({"vfm": "a\nb"}, "field 'vfm'"),
        ({"vfm": "\x1b[31m"}, "field 'vfm'"),
        ({"decoder": ["linear"]}, "field 'decoder'"),
        ({"history": [[1, 2, 3]]}, "field 'history'"),
        ({"history": None}, "field 'history'"),
        ({"iou": {"wall": -1}}, "field 'iou'"),
        ({"train_seconds": 0}, "field 'train_seconds' is 0, expected a number above 0 or null"),
        ({"trainable_params": -5}, "field 'trainable_params'"),
        ({"compiled": 1}, "field 'compiled' is 1"),
        ({"step": 101}, "field 'step' is 101, more than 'max_steps' 100"),
        ({"schema": 3}, "field 'schema' is 3, expected one of 1, 2"),
    ],
)
def test_values_outside_the_schema_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)
    path = tmp_path / "record.json"
    path.write_text(json.dumps(asdict(make()) | changes))
    with pytest.raises(ValueError) as error:
        read_record(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b'{"schema": 1, "name": "dino', "not valid JSON, perhaps truncated"),
        (b"[1, 2]", r"holds \[1, 2\], expected a JSON object"),
        (b"null", "holds None, expected a JSON object"),
        (b"{}", "field 'schema' is None, expected one of 1, 2"),
        (b'{"schema": 1}', "field 'name' is missing"),
        (b'{"schema": true}', "field 'schema' is True"),
        (b'{"schema": 1, "miou": NaN}', "holds NaN, expected a number or null"),
        (b'{"schema": 1, "miou": -Infinity}', "holds -Infinity"),
        (b"\xff\xfe\x00", "utf-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "integer"),
        (b"\x80\x04\x95.", "utf-8"),
    ],
)
def test_files_that_are_not_records_are_refused(tmp_path, content, message):
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_record(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_number_too_big_for_a_float_is_refused(tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(asdict(make())).replace("47.25", "1e999"))
    with pytest.raises(ValueError, match="is inf"):
        read_record(path)


def test_what_is_not_a_regular_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_record(tmp_path / "record.json")
    with pytest.raises(ValueError, match="not a regular file"):
        read_record(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        read_record(tmp_path / "pipe")
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    with pytest.raises(ValueError, match="cannot be read: Too many levels of symbolic links"):
        read_record(tmp_path / "loop")


IDENTITY = {
    "model_name": "vit_base_patch14_dinov2.lvd142m",
    "weights": {"source": "model.safetensors of x", "sha256": "0" * 64},
    "crop_size": [512, 512],
    "lr": 1e-4,
    "layer_decay": 1.0,
    "data": {"train_samples": 20210, "fraction": 0.0625, "subset_seed": 0},
    "classes": {"total": 2, "in_mean": 1},
    "config": {"optim_wrapper.optimizer.lr": 1e-4, "model.out": [1, None]},
    "config_hash": config_hash({"optim_wrapper.optimizer.lr": 1e-4, "model.out": [1, None]}),
}


def test_the_identity_comes_back_as_it_was(tmp_path):
    path = tmp_path / "record.json"
    write_record(path, make(**IDENTITY))
    assert read_record(path) == make(**IDENTITY)
    assert set(IDENTITY) <= set(json.loads(path.read_text()))
    for name in IDENTITY:
        if name not in ("config", "config_hash"):
            assert getattr(make(), name) is None, "what is not known is null"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"source": "x"}}, "field 'weights' is {'source': 'x'}, expected an object"),
        ({"weights": {"source": "x", "sha256": "abc"}}, "field 'weights'"),
        ({"data": {"train_samples": 1, "fraction": 0, "subset_seed": 0}}, "field 'data'"),
        ({"data": {"train_samples": 1, "fraction": 1.5, "subset_seed": 0}}, "field 'data'"),
        ({"crop_size": 512}, "field 'crop_size' is 512"),
        ({"lr": "1e-4"}, "field 'lr' is '1e-4'"),
        ({"layer_decay": 0}, "field 'layer_decay' is 0"),
        ({"classes": {"total": 0, "in_mean": 0}}, "field 'classes'"),
        ({"config_hash": "xyz"}, "field 'config_hash'"),
        ({"config_hash": "0" * 64}, "field 'config_hash' is not the checksum of 'config'"),
        ({"config": {"lr": 1}}, "field 'config_hash' is not the checksum of 'config'"),
    ],
)
def test_an_identity_outside_the_schema_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**IDENTITY | changes)


def test_records_of_schema_1_are_read(tmp_path):
    """As the first version wrote them: without identity, and without what came before it."""
    path = tmp_path / "record.json"
    new = {*IDENTITY, "stopped_early", "remarks", "evaluations"}
    old = {k: v for k, v in asdict(make()).items() if k not in new} | {"schema": 1}
    path.write_text(json.dumps(old))
    assert read_record(path) == make(schema=1)
    assert read_record(path).config_hash is None
    write_record(path, read_record(path))
    assert read_record(path) == make(schema=1)
    path.write_text(json.dumps(old | {"schema": 2}))
    with pytest.raises(ValueError, match="field 'stopped_early' is missing"):
        read_record(path)
    del old["seed"]
    path.write_text(json.dumps(old))
    with pytest.raises(ValueError, match="field 'seed' is missing"):
        read_record(path)


def test_unknown_fields_are_ignored(tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(asdict(make()) | {"note": "x"}))
    assert read_record(path) == make()


def test_a_further_evaluation_is_a_record_of_its_own(tmp_path):
    found = {
        "night": {
            "miou": 20.5,
            "iou": {"wall": 20.5, "sky": None},
            "history": [[50, 21], [100, 20.5]],
        },
        "fog": {"miou": None},
    }
    write_record(tmp_path / "record.json", make(evaluations=found))
    record = read_record(tmp_path / "record.json")
    night = record.on("night")
    assert (night.train_dataset, night.eval_dataset) == ("ade20k", "night")
    assert night.setting == "b16_linear_ade20k2night"
    assert (night.miou, night.iou["wall"], night.history) == (20.5, 20.5, [[50, 21], [100, 20.5]])
    # The best model is the one that is best on the run's own data set: step 50, as in `make`.
    assert night.best_miou == 21
    assert (night.vfm, night.train_seconds, night.evaluations) == ("dinov2", 12.5, None)
    assert (record.on("fog").miou, record.on("fog").best_miou) == (None, None)
    assert (record.miou, record.eval_dataset) == (47.25, "ade20k")


def test_a_record_without_further_evaluations_is_read(tmp_path):
    data = asdict(make(schema=1))
    del data["evaluations"]
    (tmp_path / "record.json").write_text(json.dumps(data))
    assert read_record(tmp_path / "record.json").evaluations is None


@pytest.mark.parametrize(
    "evaluations",
    [
        {"night": {"miou": 101}},
        {"night": 3},
        {"": {}},
        {"n": {"iou": [1]}},
        {"n": {"history": [3]}},
    ],
)
def test_evaluations_outside_the_schema_are_refused(evaluations):
    with pytest.raises(ValueError, match="field 'evaluations' is"):
        make(evaluations=evaluations)


def test_an_evaluation_on_the_runs_own_data_set_again_is_refused():
    with pytest.raises(ValueError, match="'evaluations' holds 'ade20k' again"):
        make(evaluations={"ade20k": {"miou": 3}})


CONTRADICTIONS = {
    "it is finished at step 1 of 100, but not stopped early": {"step": 1, "history": []},
    "its best mIoU 40.0 is below its last 47.25": {"best_miou": 40.0},
    "7 of its 6 parameters are trainable": {"trainable_params": 7, "total_params": 6},
    "its history goes back, from step 100": {"history": [[100, 48.5], [50, 47.25]]},
    "its history goes up to step 100, but it is at step 90": {"step": 90, "status": "running"},
    "its mIoU is 47.25, the last of its history 46.0": {"history": [[50, 48.5], [100, 46.0]]},
    "its mIoU is 47.25, the last of its history None": {"history": [[50, 48.5], [100, None]]},
    "its best mIoU is 48.5, in its history 47.25": {"history": [[100, 47.25]]},
    "its mIoU is 47.25, the mean of its 2 IoUs 25.00": {"iou": {"a": 20.0, "b": 30.0}},
    "its field 'classes' says in_mean 2, its IoUs are 1": {"classes": {"total": 2, "in_mean": 2}},
    "its field 'classes' says total 150, its IoUs are 2": {
        "classes": {"total": 150, "in_mean": None}
    },
    "on night, its mIoU is 20, the last of its history 30": {
        "evaluations": {"night": {"miou": 20, "history": [[100, 30]]}}
    },
    "on night, its mIoU is 20, but its history lacks step 100": {
        "evaluations": {"night": {"miou": 20, "history": [[50, 20]]}}
    },
}


@pytest.mark.parametrize("reason", CONTRADICTIONS)
def test_a_record_that_contradicts_itself_is_skipped_with_the_reason(reason, tmp_path):
    path = tmp_path / "record.json"
    write_record(path, make())
    data = json.loads(path.read_text()) | CONTRADICTIONS[reason]
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=re.escape(f"{path}: contradicts itself: {reason}")):
        read_record(path)


@pytest.mark.parametrize("changes", [
    {"step": 60, "history": [[60, 47.25]], "stopped_early": True, "best_miou": 47.25},
    {"step": None, "max_steps": None, "history": [], "iou": None, "best_miou": None},
    {"history": [[50, None], [50, 48.504], [100, 47.2549]], "miou": 47.25, "best_miou": 48.5},
    {"iou": {"a": None}, "miou": None, "history": [], "best_miou": None},
    {"iou": {"a": 40.51, "b": 54.01, "c": None}},
    {"evaluations": {"night": {"miou": None, "history": [[50, 20]]}}},
])  # fmt: skip
def test_gaps_and_rounding_are_no_contradiction(changes, tmp_path):
    write_record(tmp_path / "record.json", make(**changes))
    assert read_record(tmp_path / "record.json").status == "finished"


def test_a_key_given_twice_is_refused(tmp_path):
    path = tmp_path / "record.json"
    write_record(path, make())
    path.write_text(path.read_text().replace('"miou": 47.25,', '"miou": 47.25, "miou": 90.0,'))
    with pytest.raises(ValueError, match="holds 'miou' twice in one object"):
        read_record(path)
