import json

import pytest

from vfm_ss.protocol.mmengine_logs import read_plain_work_dir
from vfm_ss.protocol.runs import collect

CONFIG = """\
data_root = 'data/ade/'
randomness = dict(deterministic=False, seed=3)
train_cfg = dict(
    max_iters=400, type='IterBasedTrainLoop', val_interval=200)
"""


def work_dir(root, name="dinov2_b16_linear_ade20k", config=CONFIG, logs=None):
    folder = root / name
    logs = logs or {
        "20260101_120000": [
            {"lr": 1e-5, "loss": 2.0, "time": 0.5, "iter": 50, "step": 50},
            {"lr": 1e-5, "loss": float("nan"), "time": 0.3, "iter": 100, "step": 100},
            {"aAcc": 70.0, "mIoU": 30.0, "mAcc": 40.0, "time": 0.1, "step": 200},
        ],
        "20260102_120000": [
            {"loss": 1.0, "time": 0.4, "iter": 250, "step": 250},
            {"mIoU": 29.5, "step": 400},
        ],
    }
    for stamp, lines in logs.items():
        vis = folder / stamp / "vis_data"
        vis.mkdir(parents=True)
        (vis / "scalars.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (vis / f"{stamp}.json").write_text((vis / "scalars.json").read_text())
    if config is not None:
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(config)
    return folder


def test_a_resumed_run_is_read_from_its_logs(tmp_path):
    record = read_plain_work_dir(work_dir(tmp_path))
    assert (record.setting, record.vfm, record.seed) == ("default", "dinov2", 3)
    assert (record.status, record.step, record.max_steps) == ("finished", 400, 400)
    assert (record.miou, record.best_miou) == (29.5, 30.0)
    assert record.history == [[200, 30.0], [400, 29.5]]
    assert record.step_seconds == 0.4
    assert record.train_seconds is None
    assert record.name == "dinov2_b16_linear_ade20k"


def test_collect_takes_plain_work_dirs_and_prefers_records(tmp_path, make_record):
    from vfm_ss.protocol.records import write_record

    work_dir(tmp_path, "mae_b16_probe_ade20k")
    with_record = work_dir(tmp_path, "sam_b16_probe_ade20k")
    write_record(with_record / "record.json", make_record("sam", "probe", miou=77.0))
    runs, skipped = collect([tmp_path])
    assert {(r.setting, r.vfm, r.miou) for r in runs} == {
        ("probe", "mae", 29.5),
        ("probe", "sam", 77.0),
    }
    assert skipped == []


def test_the_name_comes_from_the_config_or_the_folder(tmp_path):
    folder = work_dir(tmp_path, "whatever", config=None)
    (folder / "tiny-vit_b16_probe_camvid.py").write_text(CONFIG)
    record = read_plain_work_dir(folder)
    assert (record.vfm, record.setting) == ("tiny-vit", "b16_probe_camvid")
    folder = work_dir(tmp_path, "mae_l16_linear_ade20k", config=None)
    (folder / "config.py").write_text(CONFIG)
    assert read_plain_work_dir(folder).setting == "large"
    folder = work_dir(tmp_path / "eva02_b8_linear_ade20k", "seed5", config=None)
    (folder / "config.py").write_text(CONFIG.replace(", seed=3", ""))
    record = read_plain_work_dir(folder)
    assert (record.vfm, record.setting, record.seed) == ("eva02", "patch8", 5)


def test_a_cut_last_line_is_ignored(tmp_path):
    folder = work_dir(tmp_path)
    with open(folder / "20260102_120000" / "vis_data" / "scalars.json", "a") as file:
        file.write('{"mIoU": 99.0, "st')
    assert read_plain_work_dir(folder).miou == 29.5


def test_an_unfinished_run_is_not_ranked(tmp_path):
    work_dir(tmp_path, config=CONFIG.replace("400", "800"))
    runs, skipped = collect([tmp_path])
    assert runs == []
    assert [s.reason for s in skipped] == ["not finished: step 400 of 800"]


@pytest.mark.parametrize(
    ("name", "config", "logs", "message"),
    [
        ("mae_b16_linear_ade20k", None, None, "no config beside the logs"),
        ("mae_b16_linear_ade20k", "x = (", None, "no config beside the logs"),
        ("mae_b16_linear_ade20k", "train_cfg = dict(max_iters=f())", None, "no config beside"),
        ("some_run", CONFIG, None, "neither a config in it nor the folder is named like"),
        ("mae_b16_linear_ade20k", CONFIG, {"t": [{"loss": 1.0, "step": 5}]}, "hold no validation"),
        (
            "mae_b16_linear_ade20k",
            CONFIG,
            {"t": [{"mIoU": 140.0, "step": 400}]},
            "holds mIoU 140.0 at step 400, expected",
        ),
    ],
)
def test_what_cannot_be_told_is_said(tmp_path, name, config, logs, message):
    folder = work_dir(tmp_path, name, config, logs)
    _, skipped = collect([tmp_path])
    assert [s.path for s in skipped] == [str(folder)]
    assert message in skipped[0].reason
