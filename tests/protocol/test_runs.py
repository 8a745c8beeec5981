import os

import pytest

from vfm_ss.protocol.records import write_record
from vfm_ss.protocol.runs import Run, collect, drop_duplicates


def put(folder, record):
    folder.mkdir(parents=True)
    write_record(folder / "record.json", record)
    return folder / "record.json"


def reasons(skipped):
    return {s.path: s.reason for s in skipped}


def test_every_run_below_the_folders_is_found(tmp_path, write_grid):
    write_grid(tmp_path / "a", vfms=("mae", "sam"), settings=("default", "probe"), seeds=2)
    runs, skipped = collect([tmp_path / "a"])
    assert skipped == []
    assert {(r.setting, r.vfm, r.seed) for r in runs} == {
        (s, v, k) for s in ("default", "probe") for v in ("mae", "sam") for k in (0, 1)
    }
    assert all(run.record.miou == run.miou for run in runs)


def test_metric_best(tmp_path, make_record):
    put(tmp_path / "a", make_record(miou=40.0, best_miou=45.0))
    assert collect([tmp_path])[0][0].miou == 40.0
    assert collect([tmp_path], "best")[0][0].miou == 45.0


def test_every_unusable_file_is_named_with_its_reason(tmp_path, make_record):
    good = put(tmp_path / "good", make_record())
    running = put(tmp_path / "running", make_record(status="running", step=70))
    null = put(tmp_path / "null", make_record(miou=None))
    for name, content in {
        "truncated": b'{"schema": 1, "na',
        "empty": b"",
        "list": b"[]",
        "schema": b'{"schema": 3}',
        "nan": b'{"schema": 1, "miou": NaN}',
        "binary": b"\x80\x04\x95",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_bytes(content)
    (tmp_path / "folder" / "record.json").mkdir(parents=True)
    (tmp_path / "dangling").mkdir()
    os.symlink(tmp_path / "nowhere", tmp_path / "dangling" / "record.json")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "record.json")
    runs, skipped = collect([tmp_path, tmp_path / "gone"])
    assert [run.path for run in runs] == [str(good)]
    found = reasons(skipped)
    expected = {
        str(running): "not finished: step 70 of 40000",
        str(null): "finished without a score: its last mIoU is null",
        str(tmp_path / "gone"): "cannot be read: No such file or directory",
    }
    for name, reason in {
        "truncated": "not valid JSON, perhaps truncated",
        "empty": "the file is empty",
        "list": "holds [], expected a JSON object",
        "schema": "field 'schema' is 3, expected one of 1, 2",
        "nan": "holds NaN, expected a number or null",
        "binary": "can't decode byte",
        "folder": "not a regular file",
        "dangling": "cannot be read: No such file",
        "pipe": "not a regular file",
    }.items():
        expected[str(tmp_path / name / "record.json")] = reason
    assert set(found) == set(expected)
    for path, reason in expected.items():
        assert reason in found[path]
        assert "\n" not in found[path]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_named(tmp_path, make_record):
    path = put(tmp_path / "secret", make_record())
    path.chmod(0)
    folder = tmp_path / "locked"
    folder.mkdir(mode=0)
    _, skipped = collect([tmp_path])
    assert reasons(skipped) == {
        str(path): "cannot be read: Permission denied",
        str(folder): "cannot be read: Permission denied",
    }


def test_unreadable_folder_is_named_for_root_too(tmp_path, make_record, monkeypatch):
    put(tmp_path / "a", make_record())
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    (tmp_path / "locked").mkdir()
    monkeypatch.setattr(os, "scandir", refuse)
    runs, skipped = collect([tmp_path])
    assert len(runs) == 1
    assert reasons(skipped) == {str(tmp_path / "locked"): "cannot be read: Permission denied"}


def test_links_are_followed_once_and_loops_end(tmp_path, make_record):
    put(tmp_path / "disk" / "run", make_record())
    work_dirs = tmp_path / "work_dirs"
    work_dirs.mkdir()
    os.symlink(tmp_path / "disk", work_dirs / "linked")
    os.symlink(work_dirs, work_dirs / "loop")
    os.symlink(work_dirs / "self", work_dirs / "self")
    os.symlink(tmp_path, tmp_path / "disk" / "up")
    runs, skipped = collect([work_dirs, tmp_path])
    assert len(runs) == 1
    assert skipped == []


def test_nothing_found_is_executed(tmp_path, make_record):
    trap = f"open({str(tmp_path / 'trap')!r}, 'w')\n"
    put(tmp_path / "run", make_record())
    for name in ("sitecustomize.py", "conftest.py", "__init__.py", "mae_b16_linear_ade20k.py"):
        (tmp_path / "run" / name).write_text(trap)
    vis = tmp_path / "plain" / "20260101_000000" / "vis_data"
    vis.mkdir(parents=True)
    (vis / "scalars.json").write_text('{"mIoU": 40.0, "step": 10}\n')
    (vis / "config.py").write_text(trap)
    (tmp_path / "plain" / "mae_b16_linear_ade20k.py").write_text(
        trap + "train_cfg = dict(max_iters=10)\n"
    )
    runs, _ = collect([tmp_path])
    assert len(runs) == 2
    assert not (tmp_path / "trap").exists()


def test_a_file_can_be_named_itself(tmp_path, make_record):
    path = put(tmp_path / "run", make_record())
    assert [run.path for run in collect([path])[0]] == [str(path)]


def test_duplicates_keep_the_first_and_are_named():
    runs = [
        Run("default", "mae", 0, 40.0, "first"),
        Run("default", "mae", 1, 41.0, "other seed"),
        Run("probe", "mae", 0, 42.0, "other setting"),
        Run("default", "mae", 0, 43.0, "again"),
        Run("default", "sam", None, 44.0, "unknown seed"),
        Run("default", "sam", None, 44.0, "unknown seed too"),
    ]
    kept, skipped = drop_duplicates(runs)
    assert [run.path for run in kept] == [
        "first",
        "other seed",
        "other setting",
        "unknown seed",
        "unknown seed too",
    ]
    assert [s.path for s in skipped] == ["again"]
    assert skipped[0].reason.startswith(
        "duplicate of first: mae under default with seed 0 again (mIoU 43.00, used: 40.00)"
    )


def test_every_evaluation_of_a_run_is_a_run_of_its_setting(tmp_path, make_record):
    steps = 20_000
    found = {
        "bdd100k": {"miou": 30.0, "history": [[100, 33.0], [steps, 30.0]]},
        "acdc": {"miou": None},
    }
    path = put(
        tmp_path / "a",
        make_record(
            setting="gta2cityscapes",
            miou=40.0,
            best_miou=45.0,
            history=[[100, 45.0], [steps, 40.0]],
            evaluations=found,
        ),
    )
    runs, skipped = collect([tmp_path])
    assert [(r.setting, r.miou, r.path) for r in runs] == [
        ("gta2cityscapes", 40.0, str(path)),
        ("b16_linear_gta2bdd100k", 30.0, str(path)),
    ]
    assert reasons(skipped) == {
        str(path): "evaluation on acdc: finished without a score: its last mIoU is null"
    }
    assert [run.miou for run in collect([tmp_path], "best")[0]] == [45.0, 33.0]
    assert drop_duplicates(runs) == (runs, [])
