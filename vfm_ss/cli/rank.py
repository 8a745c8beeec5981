"""Rank VFMs from finished runs."""

import argparse
import sys

from vfm_ss.cli.call import EXIT_STATUSES, command
from vfm_ss.errors import UsageError
from vfm_ss.text import printable

FORMATS = ("text", "md", "csv", "json", "latex")


def run(args: argparse.Namespace) -> None:
    """Read, rank, print and write.

    Raises:
        UsageError: If nothing is left to rank, or the report cannot be written.
    """
    if not (args.work_dirs or args.results):
        args.error("nothing to read: give a WORK_DIR or --results TABLE.csv")
    # Imported late: --help and a wrong option need no pandas.
    from vfm_ss.report.formats import render

    try:
        analysis = _analyse(args)
        target = args.target or analysis.costliest
        if target not in analysis.settings:
            raise ValueError(
                f"no finished run under the target {target!r}, only {', '.join(analysis.settings)}"
            )
    except ValueError as error:
        raise UsageError(str(error)) from error
    print(render(analysis, args.format, target), end="")
    if args.out:
        from vfm_ss.report.write import write_report

        try:
            page = write_report(analysis, args.out, target)
        except OSError as error:
            raise UsageError(f"cannot write the report: {error}") from error
        print(f"report: {printable(str(page))}", file=sys.stderr)


def _analyse(args: argparse.Namespace):
    from vfm_ss.protocol.runs import collect, drop_duplicates
    from vfm_ss.protocol.score_tables import read_outside, read_results
    from vfm_ss.ranking.analysis import analyse
    from vfm_ss.ranking.separation import separate

    runs, skipped = collect(args.work_dirs, args.metric)
    for path in args.results:
        more, bad = read_results(path)
        runs, skipped = runs + more, skipped + bad
    runs, separated = separate(runs)
    runs, doubled = drop_duplicates(runs)
    skipped += doubled
    outside = {}
    for path in args.outside:
        values, bad = read_outside(path)
        outside |= values
        skipped += bad
    for item in skipped:
        print(f"not used: {printable(item.path)}: {printable(item.reason)}", file=sys.stderr)
    return analyse(runs, args.baseline, args.metric, outside, skipped, [*args.note, *separated])


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = argparse.ArgumentParser(
        prog=prog,
        description="Rank vision foundation models from finished runs: mean IoU, Kendall's tau "
        "against a baseline setting, training cost. Reads record.json files and logs of plain "
        "mmengine; executes nothing it finds.",
        epilog=f"How to read the numbers: docs/ranking.md. {EXIT_STATUSES}",
    )
    p.set_defaults(error=p.error)
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
        "per score; 'paper' for those of the paper's Table 1",
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


main = command("vfm-ss rank", parser, run)
