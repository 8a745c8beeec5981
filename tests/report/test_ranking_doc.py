import re
from pathlib import Path

from scipy.stats import kendalltau

from vfm_ss.cli.rank import main

DOC = (Path(__file__).parents[2] / "docs" / "ranking.md").read_text(encoding="utf-8")


def test_the_worked_example_is_what_the_tool_prints(tmp_path, capsys):
    table = re.search(r"```csv\n(.*?)```", DOC, re.S)[1]
    (tmp_path / "example.csv").write_text(table)
    assert main(["--results", str(tmp_path / "example.csv")]) == 0
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    quoted = re.search(r"```\n(Setting .*?)```", DOC, re.S)[1].splitlines()
    start = printed.index(quoted[0])
    assert printed[start : start + len(quoted)] == quoted


def test_the_table_of_model_counts_is_right():
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (0\.\d\d) \| (none|[01]\.\d\d) \|$", DOC, re.M)
    assert len(rows) == 6
    for n, pairs, step, smallest in rows:
        n = int(n)
        assert int(pairs) == n * (n - 1) // 2
        assert float(step) == round(4 / (n * (n - 1)), 2)
        assert smallest == smallest_significant(n)


def smallest_significant(n):
    """The smallest tau with an exact p-value below 0.05, one flip after the other from tau = 1."""
    found, order = "none", list(range(n))
    for left in range(n - 1, 0, -1):  # bubble the largest down: each swap flips one pair
        for k in range(left):
            tau = kendalltau(range(n), order, method="exact")
            if tau.pvalue >= 0.05:
                return found
            found = f"{tau.statistic:.2f}"
            order[k], order[k + 1] = order[k + 1], order[k]
    return found
