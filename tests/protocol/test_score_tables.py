import pytest

from vfm_ss.protocol.score_tables import read_outside, read_results
from vfm_ss.protocol.vfms import FAMILIES


def write(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_results_are_read(tmp_path):
    path = write(
        tmp_path,
        "\ufeffvfm, setting ,seed,miou,comment\n"
        "dinov2,default,0,47.5,x\n"
        '"my, model",own setting,, 30 ,\n',
    )
    runs, skipped = read_results(path)
    assert skipped == []
    assert [(r.vfm, r.setting, r.seed, r.miou) for r in runs] == [
        ("dinov2", "default", 0, 47.5),
        ("my, model", "own setting", None, 30.0),
    ]
    assert runs[0].path == f"{path} line 2"


def test_bad_rows_are_named_and_the_others_used(tmp_path):
    path = write(
        tmp_path,
        "vfm,setting,seed,miou\n"
        "a,default,0,abc\na,default,0,nan\na,default,0,101\na,default,one,50\n,default,0,50\n"
        f"a,default\na,default,{9**20},50\na,default,0,4_7\n"
        "a,default,0,50\n",
    )
    runs, skipped = read_results(path)
    assert [r.miou for r in runs] == [50]
    percent = "expected a number from 0 to 100 (percent)"
    assert [(s.path.rpartition(" ")[2], s.reason) for s in skipped] == [
        ("2", f"miou is 'abc', {percent}"),
        ("3", f"miou is 'nan', {percent}"),
        ("4", f"miou is '101', {percent}"),
        ("5", "seed is 'one', expected an integer of 64 bits, 0 or more"),
        ("6", "vfm is '', expected a non-empty printable string"),
        ("7", f"miou is '', {percent}"),
        ("8", f"seed is '{9**20}', expected an integer of 64 bits, 0 or more"),
        ("9", f"miou is '4_7', {percent}"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'vfm'; found no header"),
        ("vfm,miou\na,1\n", "has no column 'setting'; found vfm, miou"),
        ('vfm,setting,miou\n"a,default,1\n', "unexpected end of data"),
        ("vfm,setting,miou,miou\na,default,1,2\n", "has the column 'miou' twice"),
    ],
)
def test_files_that_are_no_table_are_refused(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        read_results(path)
    assert str(error.value).startswith(f"{path}: ")


def test_missing_and_binary_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"gone.csv: No such file"):
        read_results(tmp_path / "gone.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"binary.csv: .*utf-8"):
        read_outside(tmp_path / "binary.csv")


def test_outside_scores_are_read_with_gaps(tmp_path):
    path = write(tmp_path, "vfm,top1,other\na,80.5,\nb,81,7\nb,99,\nc,x,\n")
    scores, skipped = read_outside(path)
    assert scores == {"top1": {"a": 80.5, "b": 81.0}, "other": {"b": 7.0}}
    assert [s.reason for s in skipped] == [
        "'b' again; its first top1 counts",
        "top1 is 'x', expected a number",
    ]


def test_outside_without_scores_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no score"):
        read_outside(write(tmp_path, "vfm,top1\na,\n"))


def test_the_papers_table_is_shipped_and_nothing_is_pooled():
    scores, skipped = read_outside("paper")
    assert skipped == []
    assert sum(map(len, scores.values())) == 12  # of 18 numbers printed, 6 have no other beside
    assert {vfm for values in scores.values() for vfm in values} < {*FAMILIES["paper"]}
    fine = scores["IN1K fine-tuning, accuracy, 1024 tokens (paper, Table 1)"]
    assert fine == {"eva02": 88.3, "dinov2": 88.9}
    assert scores["IN1K zero-shot, accuracy, 196 tokens (paper, Table 1)"]["siglip"] == 76.2
