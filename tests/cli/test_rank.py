import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vfm_ss.cli.rank import main
from vfm_ss.protocol.records import write_record

RANK = Path(__file__).parents[2] / "tools" / "rank.py"


def test_the_ranking_is_printed_and_the_status_is_0(tmp_path, write_grid, capsys):
    write_grid(tmp_path, ("mae", "sam"), ("default", "probe"), seeds=1)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "record.json").write_text("")
    assert main([str(tmp_path), "--format", "json"]) == 0
    out, err = capsys.readouterr()
    ranking = json.loads(out)
    assert ranking["settings"]["probe"]["baseline"] == "default"
    assert ranking["skipped"][0]["reason"] == "the file is empty"
    assert err == f"not used: {tmp_path}/bad/record.json: the file is empty\n"


def test_baseline_metric_and_target(tmp_path, write_grid, capsys):
    write_grid(tmp_path, ("mae", "sam", "dfn"), ("default", "probe", "large"), seeds=1)
    assert (
        main([str(tmp_path), "--baseline", "large", "--metric", "best", "--target", "probe"]) == 0
    )
    out = capsys.readouterr().out
    assert "ranked by the best validation" in out
    assert "Best under ViT-L" in out
    assert "Which settings predict Linear probing?" in out


def test_numbers_from_tables_join_the_runs(tmp_path, write_grid, capsys):
    write_grid(tmp_path / "runs", ("mae", "sam"), ("default",), seeds=1)
    (tmp_path / "r.csv").write_text(
        "vfm,setting,seed,miou\nmae,probe,0,30\nsam,probe,0,31\nmae,default,0,99\n"
    )
    (tmp_path / "o.csv").write_text("vfm,top1\nmae,83.6\nsam,80\n")
    tables = ["--results", str(tmp_path / "r.csv"), "--outside", str(tmp_path / "o.csv")]
    assert main([str(tmp_path / "runs"), *tables, "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["settings"]["probe"]["tau"] == -1
    assert "r.csv line 4: duplicate of" in err
    assert main([*tables, "--note", "made-up numbers"]) == 0
    out = capsys.readouterr().out
    assert "- made-up numbers" in out
    assert "top1" in out


def test_runs_of_other_configurations_are_separated_and_said(tmp_path, make_record, capsys):
    for k, batch in enumerate((16, 16, 8)):
        folder = tmp_path / f"run{k}"
        folder.mkdir()
        record = make_record("mae", seed=k // 2, effective_batch=batch, miou=50.0 - 9 * k)
        write_record(folder / "record.json", record)
    assert main([str(tmp_path), "--format", "json"]) == 0
    out, err = capsys.readouterr()
    settings = json.loads(out)["settings"]
    means = {name: s["models"][0]["miou_mean"] for name, s in settings.items()}
    assert means == {"default": 50.0, "default@batch=8": 32.0}
    assert err.count("\n") == 1, "the second run of one configuration and seed"
    assert "run1/record.json: duplicate of" in err
    assert main([str(tmp_path), "--baseline", "default@batch=8", "--out", str(tmp_path / "o")]) == 0
    out, _ = capsys.readouterr()
    assert "default: NOT MIXED: runs of different configurations." in " ".join(out.split())
    assert "NOT MIXED" in (tmp_path / "o" / "report.html").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["{}/empty"], "no finished run to rank"),
        (["{}/gone"], "no finished run to rank"),
        (
            ["{}/runs", "--baseline", "large"],
            "no finished run under the baseline 'large', only def",
        ),
        (
            ["{}/runs", "--target", "large"],
            "no finished run under the target 'large', only default",
        ),
        (["{}/runs", "--results", "{}/gone.csv"], "gone.csv: No such file or directory"),
        (["{}/runs", "--outside", "{}/gone.csv"], "gone.csv: No such file or directory"),
    ],
)
def test_status_2_and_one_line_where_nothing_can_be_ranked(
    tmp_path, write_grid, capsys, args, message
):
    write_grid(tmp_path / "runs", ("mae", "sam"), ("default",), seeds=1)
    (tmp_path / "empty").mkdir()
    assert main([a.format(tmp_path) for a in args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("vfm-ss rank: error: ")
    assert message in last


def test_a_report_that_cannot_be_written_is_said(tmp_path, write_grid, capsys):
    write_grid(tmp_path / "runs", ("mae", "sam"), ("default",), seeds=1)
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "file")]) == 2
    assert "cannot write the report: [Errno" in capsys.readouterr().err


@pytest.mark.parametrize("args", [[], ["x", "--format", "xml"], ["x", "--metric", "worst"]])
def test_wrong_arguments_exit_with_2(args):
    with pytest.raises(SystemExit) as error:
        main(args)
    assert error.value.code == 2


def test_the_script_runs_by_itself_without_torch(tmp_path, write_grid):
    write_grid(tmp_path / "runs", ("mae", "sam"), ("default", "probe"), seeds=2)
    # A torch that cannot be imported: nothing may try. Nor statsmodels, without interactions.
    for name in ("torch", "mmengine", "mmcv", "mmseg", "timm", "statsmodels"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('rank.py imported this')")
    root = str(RANK.parents[1])
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), root])}
    env |= {"PYTHONIOENCODING": "ascii"}  # a terminal that lacks most letters
    command = [sys.executable, str(RANK), str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Does the ranking change?" in done.stdout
    assert done.stderr == f"report: {tmp_path}/out/report.html\n"
    assert (tmp_path / "out" / "report.html").is_file()


def test_thousands_of_records(tmp_path, write_grid, capsys):
    vfms = [f"model-{i}" for i in range(100)]
    write_grid(tmp_path, vfms, seeds=3)
    assert main([str(tmp_path), "--format", "json"]) == 0
    out, err = capsys.readouterr()
    settings = json.loads(out)["settings"]
    assert err == ""
    assert len(settings) == 8
    assert all(s["n"] == 100 for s in settings.values())
    assert sum(m["seeds"] for s in settings.values() for m in s["models"]) == 2400
