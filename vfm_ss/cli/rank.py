"""The command line of tools/rank.py."""

import argparse
import sys
from collections.abc import Sequence

FORMATS = ("text", "md", "csv", "json", "latex")


def main(argv: Sequence[str] | None = None) -> int:
    """Rank runs and print the result.

    Args:
        argv: Arguments; those of the process by default.

    Returns:
        Exit status: 0, or 2 where nothing is left to rank.
    """
    args = parser().parse_args(argv)
    if not (args.work_dirs or args.results):
        parser().error("nothing to read: give a WORK_DIR or --results TABLE.csv")
    # Imported late: --help and a wrong option need no pandas.
    from vfm_ss.protocol.runs import collect, drop_duplicates
    from vfm_ss.protocol.score_tables import read_outside, read_results
    from vfm_ss.ranking.analysis import analyse
    from vfm_ss.report.formats import render
    from vfm_ss.report.table import printable

    try:
        runs, skipped = collect(args.work_dirs, args.metric)
        for path in args.results:
            more, bad = read_results(path)
            runs, skipped = runs + more, skipped + bad
        runs, doubled = drop_duplicates(runs)
        skipped += doubled
        outside = {}
        for path in args.outside:
            values, bad = read_outside(path)
            outside |= values
            skipped += bad
        for item in skipped:
            print(f"not used: {printable(item.path)}: {printable(item.reason)}", file=sys.stderr)
        analysis = analyse(runs, args.baseline, args.metric, outside, skipped, args.note)
        target = args.target or analysis.dearest
        if target not in analysis.settings:
            raise ValueError(
                f"no finished run under the target {target!r}, only {', '.join(analysis.settings)}"
            )
    except ValueError as error:
        print(f"rank.py: error: {printable(str(error))}", file=sys.stderr)
        return 2
    for stream in (sys.stdout, sys.stderr):  # a terminal may lack a letter
        stream.reconfigure(errors="replace")
    print(render(analysis, args.format, target), end="")
    if args.out:
        from vfm_ss.report.write import write_report

        try:
            page = write_report(analysis, args.out, target)
        except OSError as error:
            print(f"rank.py: error: cannot write the report: {error}", file=sys.stderr)
            return 2
        print(f"report: {printable(str(page))}", file=sys.stderr)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = argparse.ArgumentParser(
        prog="rank.py",
        description="Rank vision foundation models from finished runs: mean IoU, Kendall's tau "
        "against a baseline setting, training cost. Reads record.json files and logs of plain "
        "mmengine; executes nothing it finds. Exits with 2 where nothing is left to rank.",
        epilog="How to read the numbers: docs/ranking.md.",
    )
    p.add_argument("work_dirs", nargs="*", metavar="WORK_DIR", help="searched for finished runs")
    p.add_argument(
        "--baseline",
        default="default",
        metavar="SETTING",
        help="setting to compare with (default: the paper's default, or what comes closest)",
    )
    p.add_argument(
        "--metric",
        choices=("last", "best"),
        default="last",
        help="rank the last validation of every run (default) or its best",
    )
    p.add_argument("--format", choices=FORMATS, default="text", help="of what is printed")
    p.add_argument(
        "--out",
        metavar="DIR",
        help="also write report.html, plots (PNG, PDF) and every format into this folder",
    )
    p.add_argument(
        "--results",
        action="append",
        default=[],
        metavar="CSV",
        help="further results: columns vfm, setting, miou and, if known, seed",
    )
    p.add_argument(
        "--outside",
        action="append",
        default=[],
        metavar="CSV",
        help="scores to compare the rankings with, such as ImageNet accuracy: column vfm and one "
        "per score",
    )
    p.add_argument(
        "--note",
        action="append",
        default=[],
        metavar="TEXT",
        help="say this at the top of every output, for instance that the data are synthetic",
    )
    p.add_argument(
        "--target",
        metavar="SETTING",
        help="setting whose ranking cheaper ones should predict (default: the one that costs most)",
    )
    return p
