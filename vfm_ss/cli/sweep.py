"""The command line of tools/sweep.py."""

import argparse
import re
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from vfm_ss.protocol.settings import SETTINGS
from vfm_ss.protocol.vfms import VFMS
from vfm_ss.report.table import printable

EXIT_STATUSES = (
    "Exit status: 0 if every run is done, 1 if one has failed, 2 at a wrong command line, "
    "3 if some are still to do, 130 after Ctrl-C."
)


def main(argv: Sequence[str] | None = None, prog: str = "vfm-ss sweep") -> int:
    """Train a sweep or show its status.

    Args:
        argv: Arguments; those of the process by default.
        prog: Name of the command in its messages.

    Returns:
        Exit status, see ``EXIT_STATUSES``.
    """
    args = parser(prog).parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # a terminal may lack a letter
        stream.reconfigure(errors="replace")
    try:
        return args.command(args)
    except (OSError, ValueError) as error:
        print(f"{prog}: error: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def run(args: argparse.Namespace) -> int:
    """Train what is not done yet; ``tools/sweep.py run``."""
    from vfm_ss.sweep.display import display
    from vfm_ss.sweep.scheduler import Interrupted, Rules, Sweep
    from vfm_ss.sweep.status import exit_status, look, table

    runs = _plan(args, args.work_dir)
    if args.dry_run:
        states = [look(r.work_dir, r.name, r.seed).state for r in runs]
        for one, state in zip(runs, states, strict=True):
            if state not in ("done", "running"):
                print(one.shell())
        for state in ("done", "running"):
            if state in states:
                print(f"left out: {states.count(state)} {state}", file=sys.stderr)
        return 0
    rules = Rules(args.retries, args.hang_minutes * 60, args.retry_seconds)
    with display() as (say, show):
        sweep = Sweep(runs, _engine(args), rules, say, show)
        try:
            states = sweep.run(wait=not args.no_wait)
        except Interrupted as interrupted:
            say("interrupted; the same command goes on from here")
            if str(interrupted):
                say(str(interrupted))
            return 130
    print("\n" + table(states), end="")
    return exit_status(states)


def status(args: argparse.Namespace) -> int:
    """Show how far the runs are; ``tools/sweep.py status``."""
    from vfm_ss.sweep.status import as_json, discover, exit_status, look, merge, table

    asked = args.vfms or args.settings or args.configs
    planned = _plan(args, args.work_dirs[0]) if asked else []

    def states():
        found = discover(path for path in args.work_dirs if not planned or Path(path).is_dir())
        return merge([look(r.work_dir, r.name, r.seed) for r in planned], found)

    render = as_json if args.format == "json" else table
    now = states()
    if args.watch is not None:
        from vfm_ss.sweep.display import watch

        now = watch(states, render, args.watch)
    else:
        print(render(now), end="")
    return exit_status(now)


def _plan(args: argparse.Namespace, work_dir: str):
    from vfm_ss.sweep.plan import expand

    options = []
    if getattr(args, "amp", False):
        options += ["--amp"]
    if getattr(args, "micro_batch", None) is not None:
        options += ["--micro-batch", str(args.micro_batch)]
    if getattr(args, "cfg_options", None):
        options += ["--cfg-options", *args.cfg_options]
    return expand(
        work_dir,
        _flat(args.vfms),
        _flat(args.settings),
        args.configs or (),
        _seeds(args.seeds),
        options,
        getattr(args, "gpus_per_run", 1),
    )


def _engine(args: argparse.Namespace):
    from vfm_ss.sweep import engines

    try:
        import submitit  # noqa: F401
    except ImportError:
        raise ValueError("a sweep needs submitit; install it with: pip install submitit") from None
    folder = Path(args.work_dir) / engines.FOLDER_NAME
    if args.executor == "local":
        for name in ("partition", "time", "cpus", "mem", "slurm", "no_wait"):
            if getattr(args, name):
                raise ValueError(f"--{name.replace('_', '-')} needs --executor slurm")
        slots = engines.local_slots(args.jobs, args.gpus_per_run)
        return engines.LocalEngine(folder / uuid.uuid4().hex[:12], slots)
    parameters = {
        "partition": args.partition,
        "time": _minutes(args.time) if args.time else None,
        "gpus_per_node": args.gpus_per_run or None,
        "cpus_per_task": args.cpus,
        "mem": args.mem,
        "additional_parameters": dict(_key_value(item) for item in args.slurm),
    }
    if parameters["time"] is None:
        raise ValueError("--executor slurm needs --time, for example --time 12:00:00")
    parameters = {name: value for name, value in parameters.items() if value is not None}
    return engines.SlurmEngine(folder, args.jobs, args.max_timeouts, **parameters)


def _flat(names: Sequence[str] | None) -> list[str]:
    """Take lists apart that are separated by commas, by white space or by both."""
    return [part for name in names or () for part in re.split(r"[,\s]+", name) if part]


def _seeds(values: Sequence[str]) -> list[int]:
    seeds = _flat(values)
    wrong = [seed for seed in seeds if not seed.isascii() or not seed.isdecimal()]
    if wrong or not seeds:
        raise ValueError(f"--seeds takes integers from 0, got {(wrong or ['nothing'])[0]!r}")
    return [int(seed) for seed in seeds]


def _key_value(item: str) -> tuple[str, str | bool]:
    key, equals, value = item.partition("=")
    return key.lstrip("-"), value if equals else True


def _minutes(text: str) -> int:
    """Turn a time limit as Slurm writes it into minutes, rounded up.

    Raises:
        ValueError: If it is none.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is None:
        raise ValueError(
            f"--time {text!r}: expected minutes, hours:minutes:seconds or "
            "days-hours:minutes:seconds, as in sbatch"
        )
    days, *rest = match.groups()
    first, second, third = (None if part is None else int(part) for part in rest)
    if days is not None:
        hours, minutes, seconds = first, second or 0, third or 0
    elif third is not None:
        hours, minutes, seconds = first, second, third
    else:  # minutes or minutes:seconds
        hours, minutes, seconds = 0, first, second or 0
    total = (int(days or 0) * 24 + hours) * 60 + minutes + (seconds > 0)
    if total == 0:
        raise ValueError(f"--time {text!r} is no time")
    return total


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = argparse.ArgumentParser(
        prog=prog,
        description="Train many runs, and see how far they are.",
        epilog=f"{EXIT_STATUSES} More: docs/sweep.md.",
    )
    commands = p.add_subparsers(required=True, metavar="run|status")
    _add_run(commands)
    _add_status(commands)
    return p


def _add_run(commands) -> None:
    p = commands.add_parser(
        "run",
        help="train the runs that are not done",
        description="Train VFMs x settings x seeds. Finished runs are skipped, interrupted ones "
        "resumed; one that fails is tried again and never stops the others. Each run has a folder "
        "WORK_DIR/CONFIG/seedK.",
        epilog=f"{EXIT_STATUSES} More: docs/sweep.md.",
    )
    p.set_defaults(command=run)
    _add_grid(p)
    p.add_argument("--work-dir", default="work_dirs", metavar="DIR", help="default: %(default)s")
    p.add_argument("--dry-run", action="store_true", help="print the commands, one a line")
    p.add_argument(
        "--jobs",
        type=_positive,
        metavar="N",
        help="runs at a time (default: one for each GPU, one without GPU, all under Slurm)",
    )
    p.add_argument(
        "--gpus-per-run",
        type=_count,
        default=1,
        metavar="N",
        help="0 trains on the CPU (default: %(default)s)",
    )
    faults = p.add_argument_group("when a run fails")
    faults.add_argument(
        "--retries",
        type=_count,
        default=2,
        metavar="N",
        help="start it again so often, from its last checkpoint (default: %(default)s)",
    )
    faults.add_argument(
        "--retry-seconds",
        type=_seconds,
        default=10.0,
        metavar="S",
        help="pause before that; doubles each time (default: %(default)g)",
    )
    faults.add_argument(
        "--hang-minutes",
        type=_above_zero,
        default=30.0,
        metavar="M",
        help="a run that writes nothing for so long has failed (default: %(default)g)",
    )
    train = p.add_argument_group("handed on to tools/train.py")
    train.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    train.add_argument("--amp", action="store_true")
    train.add_argument("--micro-batch", type=_positive, metavar="N")
    slurm = p.add_argument_group("where")
    slurm.add_argument("--executor", choices=("local", "slurm"), default="local")
    slurm.add_argument("--partition", metavar="NAME")
    slurm.add_argument("--time", metavar="LIMIT", help="time limit of a job, as in sbatch")
    slurm.add_argument("--cpus", type=_positive, metavar="N", help="CPU cores of a run")
    slurm.add_argument("--mem", metavar="SIZE", help="memory of a run, as in sbatch: 32G")
    slurm.add_argument(
        "--slurm",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="any other option of sbatch: account=vision qos=low exclusive",
    )
    slurm.add_argument(
        "--max-timeouts",
        type=_count,
        default=20,
        metavar="N",
        help="queue a run again so often when it reaches the time limit (default: %(default)s)",
    )
    slurm.add_argument("--no-wait", action="store_true", help="submit and return")


def _add_status(commands) -> None:
    p = commands.add_parser(
        "status",
        help="show how far the runs are",
        description="Show all runs below some folders: done, running, failed, stopped (begun, but "
        "nobody trains it) or missing (asked for, not begun). Executes nothing it finds.",
        epilog=f"{EXIT_STATUSES} More: docs/sweep.md.",
    )
    p.set_defaults(command=status)
    p.add_argument("work_dirs", nargs="+", metavar="WORK_DIR")
    _add_grid(p)
    p.add_argument(
        "--watch",
        nargs="?",
        type=_interval,
        const=5.0,
        metavar="SECONDS",
        help="show it again and again, until nothing is left to do (default: every %(const)g s)",
    )
    p.add_argument("--format", choices=("text", "json"), default="text")


def _add_grid(p: argparse.ArgumentParser) -> None:
    grid = p.add_argument_group("which runs", "lists with commas or spaces")
    grid.add_argument("--vfms", nargs="+", metavar="VFM", help=f"all, or some of {', '.join(VFMS)}")
    grid.add_argument(
        "--settings", nargs="+", metavar="SETTING", help=f"all, or some of {', '.join(SETTINGS)}"
    )
    grid.add_argument("--configs", nargs="+", metavar="FILE", help="config files")
    grid.add_argument(
        "--seeds", nargs="+", default=["0", "1", "2"], metavar="SEED", help="default: 0 1 2"
    )


def _positive(text: str) -> int:
    return _number(text, int, 1, "an integer, 1 or more")


def _count(text: str) -> int:
    return _number(text, int, 0, "an integer, 0 or more")


def _seconds(text: str) -> float:
    return _number(text, float, 0, "a number, 0 or more")


def _above_zero(text: str) -> float:
    return _number(text, float, 1e-9, "a number above 0")


def _interval(text: str) -> float:
    return _number(text, float, 0.1, "seconds, 0.1 or more (and WORK_DIR before --watch)")


def _number(text: str, kind, low, expected: str):
    try:
        value = kind(text)
        if low <= value < 1e9:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
