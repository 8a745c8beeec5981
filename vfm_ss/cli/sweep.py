"""The command line of tools/sweep.py."""

import argparse
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vfm_ss.cli.call import add_verbose, command, foreseen
from vfm_ss.cli.grid import add_grid, is_named, option, product_of, split_list
from vfm_ss.errors import UsageError
from vfm_ss.text import printable, printable_lines

EXIT_STATUSES = (
    "Exit status: 0 if every run is done, 1 if one has failed, 2 at a wrong command line, "
    "3 if some are still to do, 130 after Ctrl-C. More: docs/sweep.md."
)


def _call(args: argparse.Namespace) -> int:
    """Run a command of the sweep's; 1 is the status of a failed run, so bad input is 2 here."""
    try:
        return args.command(args)
    except (OSError, ValueError) as error:
        line = foreseen(error)
        if line is None:
            raise
        raise UsageError(line) from error


def run(args: argparse.Namespace) -> int:
    """Train what is not done yet; ``tools/sweep.py run``."""
    from vfm_ss.cli.identities import identified, refuse_other_runs
    from vfm_ss.sweep.local import LocalSweep, local_slots
    from vfm_ss.sweep.plan import missing_configs, write_configs
    from vfm_ss.sweep.projection import describe, known_records
    from vfm_ss.sweep.status import exit_status, look, table
    from vfm_ss.sweep.worker import Rules

    product, runs = _plan(args, args.work_dir)
    fresh = missing_configs(runs)
    if not args.dry_run:
        write_configs(runs)
    runs = identified(runs, only_finished=args.dry_run)
    refuse_other_runs(runs)
    if args.dry_run:
        states = [look(one.work_dir, asked=one.asked).state for one in runs]
        todo = [
            one for one, state in zip(runs, states, strict=True) if state not in ("done", "running")
        ]
        for one in todo:
            print(one.shell())
        for state in ("done", "running"):
            if state in states:
                print(f"left out: {states.count(state)} {state}", file=sys.stderr)
        if product is not None:
            steps = option(args.cfg_options or (), "train_cfg.max_iters")
            shown = describe(product, todo, known_records(args.work_dir), steps, len(fresh))
            print(printable_lines(shown), end="", file=sys.stderr)
        return 0
    for line in product.left_out if product is not None else ():
        _say(f"left out: {line}")
    rules = Rules(args.retries, args.hang_minutes * 60, args.retry_seconds)
    if args.executor == "slurm":
        sweep = _slurm(args, runs, rules)
        sweep.submit()
    else:
        for name in ("partition", "time", "cpus", "mem", "slurm", "no_wait"):
            if getattr(args, name):
                raise ValueError(f"--{name.replace('_', '-')} needs --executor slurm")
        sweep = LocalSweep(runs, local_slots(args.jobs, args.gpus_per_run), rules, _say)
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C, unless ignored (nohup)
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        if not args.no_wait:
            sweep.wait()
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on from here" + sweep.advice())
        return 130
    states = [look(one.work_dir, one.name, one.seed, one.asked) for one in runs]
    print("\n" + table(states), end="")
    return exit_status(states)


def _say(line: str) -> None:
    print(printable(line), flush=True)


def status(args: argparse.Namespace) -> int:
    """Show how far the runs are; ``tools/sweep.py status``."""
    from vfm_ss.cli.identities import identified
    from vfm_ss.sweep.status import as_json, discover, exit_status, look, table

    planned = []
    if is_named(args):
        planned = identified(_plan(args, args.work_dirs[0])[1], only_finished=True)

    def states():
        roots = [path for path in args.work_dirs if not planned or Path(path).is_dir()]
        found = discover(roots, _cannot_be_read)
        asked = [look(one.work_dir, one.name, one.seed, one.asked) for one in planned]
        return list({os.path.realpath(s.path): s for s in (*found, *asked)}.values())

    render = as_json if args.format == "json" else table
    if args.watch is not None:
        return exit_status(watch(states, render, args.watch))
    now = states()
    print(render(now), end="")
    return exit_status(now)


def _cannot_be_read(error: OSError) -> None:
    path = printable(str(error.filename))
    print(f"not looked at: {path}: cannot be read: {error.strerror}", file=sys.stderr)


def watch(states: Callable, render: Callable, seconds: float) -> list:
    """Print the runs again and again until nothing is left to do, or Ctrl-C; return the last."""
    now = []
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            now = states()
            print("\x1b[H\x1b[2J" * sys.stdout.isatty() + render(now), flush=True)
            if all(state.state in ("done", "failed", "other") for state in now):
                break
            time.sleep(seconds)
    return now


def _plan(args: argparse.Namespace, work_dir: str):
    from vfm_ss.sweep.plan import expand

    options = ["--amp"] if args.amp else []
    if args.command is run:
        options += ["--micro-batch", str(args.micro_batch)] if args.micro_batch else []
    options += ["--cfg-options", *args.cfg_options] if args.cfg_options else []
    product, seeds = product_of(args), _seeds(args.seeds)
    runs = expand(
        work_dir, product, args.configs or (), seeds, options, getattr(args, "gpus_per_run", 1)
    )
    return product, runs


def _slurm(args: argparse.Namespace, runs, rules):
    from vfm_ss.sweep.slurm import FOLDER_NAME, SlurmSweep

    if not args.time:
        raise ValueError("--executor slurm needs --time, for example --time 12:00:00")
    parameters = {
        "partition": args.partition,
        "time": _minutes(args.time),
        "gpus_per_node": args.gpus_per_run or None,
        "cpus_per_task": args.cpus,
        "mem": args.mem,
        "array_parallelism": args.jobs,
        "additional_parameters": dict(_key_value(item) for item in args.slurm),
    }
    parameters = {name: value for name, value in parameters.items() if value is not None}
    folder = Path(args.work_dir) / FOLDER_NAME
    return SlurmSweep(runs, rules, _say, folder, args.max_timeouts, **parameters)


def _seeds(values: Sequence[str]) -> list[int]:
    seeds = split_list(values)
    wrong = [seed for seed in seeds if not seed.isascii() or not seed.isdecimal()]
    if wrong or not seeds:
        raise ValueError(f"--seeds takes integers from 0, got {(wrong or ['nothing'])[0]!r}")
    return [int(seed) for seed in seeds]


def _key_value(item: str) -> tuple[str, str | bool]:
    key, equals, value = item.partition("=")
    return key.lstrip("-"), value if equals else True


def _minutes(text: str) -> int:
    """Turn a time limit as Slurm writes it into minutes, rounded up."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    days, *parts = match.groups() if match else (None, "0")
    numbers = [int(part) for part in parts if part is not None]
    if days is None and len(numbers) < 3:  # minutes or minutes:seconds
        numbers.insert(0, 0)
    hours, minutes, seconds = (*numbers, 0, 0)[:3]
    total = (int(days or 0) * 24 + hours) * 60 + minutes + (seconds > 0)
    if total == 0:
        raise ValueError(
            f"--time {text!r}: expected minutes, hours:minutes:seconds or "
            "days-hours:minutes:seconds, as in sbatch, more than 0"
        )
    return total


def _number(kind: type, low: float, expected: str):
    def parse(text: str):
        try:
            value = kind(text)
            if low <= value < 1e9:
                return value
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")

    return parse


_POSITIVE = _number(int, 1, "an integer, 1 or more")
_COUNT = _number(int, 0, "an integer, 0 or more")
_SECONDS = _number(float, 0, "a number, 0 or more")
_MINUTES = _number(float, 1e-9, "a number above 0")
_INTERVAL = _number(float, 0.1, "seconds, 0.1 or more (and WORK_DIR before --watch)")


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = argparse.ArgumentParser(
        prog=prog,
        description="Train many runs, and see how far they are.",
        epilog=EXIT_STATUSES,
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
        epilog=EXIT_STATUSES,
    )
    p.set_defaults(command=run)
    add_verbose(p)
    add_grid(p)
    folder = "folder of all runs (default: %(default)s)"
    p.add_argument("--work-dir", default="work_dirs", metavar="DIR", help=folder)
    p.add_argument("--dry-run", action="store_true", help="print the commands, one a line")
    jobs = "runs at a time (default: one for each GPU, one without GPU, all under Slurm)"
    p.add_argument("--jobs", type=_POSITIVE, metavar="N", help=jobs)
    gpus = "0 trains on the CPU (default: %(default)s)"
    p.add_argument("--gpus-per-run", type=_COUNT, default=1, metavar="N", help=gpus)
    faults = p.add_argument_group("when a run fails")
    again = "start it again so often, from its last checkpoint (default: %(default)s)"
    faults.add_argument("--retries", type=_COUNT, default=2, metavar="N", help=again)
    pause = "pause before that; doubles each time (default: %(default)g)"
    faults.add_argument("--retry-seconds", type=_SECONDS, default=10.0, metavar="S", help=pause)
    hang = "a run that writes nothing for so long has failed (default: %(default)g)"
    faults.add_argument("--hang-minutes", type=_MINUTES, default=30.0, metavar="M", help=hang)
    train = _add_overrides(p)
    passed = "images per forward pass (default: auto, what fits)"
    train.add_argument("--micro-batch", type=_POSITIVE, metavar="N", help=passed)
    slurm = p.add_argument_group("where")
    executor = "processes of this machine, or Slurm jobs (default: %(default)s)"
    slurm.add_argument("--executor", choices=("local", "slurm"), default="local", help=executor)
    slurm.add_argument("--partition", metavar="NAME", help="partition of the jobs, as in sbatch")
    slurm.add_argument("--time", metavar="LIMIT", help="time limit of a job, as in sbatch")
    slurm.add_argument("--cpus", type=_POSITIVE, metavar="N", help="CPU cores of a run")
    slurm.add_argument("--mem", metavar="SIZE", help="memory of a run, as in sbatch: 32G")
    other = "any other option of sbatch: account=vision qos=low exclusive"
    slurm.add_argument("--slurm", nargs="+", default=[], metavar="KEY=VALUE", help=other)
    limit = "queue a run again so often when it reaches the time limit (default: %(default)s)"
    slurm.add_argument("--max-timeouts", type=_COUNT, default=20, metavar="N", help=limit)
    slurm.add_argument("--no-wait", action="store_true", help="submit and return")


def _add_status(commands) -> None:
    p = commands.add_parser(
        "status",
        help="show how far the runs are",
        description="Show all runs below some folders: done, running, failed, stopped (begun, but "
        "nobody trains it), other (the folder holds another run than the one asked for) or missing "
        "(asked for, not begun). Executes nothing it finds.",
        epilog=EXIT_STATUSES,
    )
    p.set_defaults(command=status)
    add_verbose(p)
    p.add_argument("work_dirs", nargs="+", metavar="WORK_DIR", help="folders of runs")
    add_grid(p)
    _add_overrides(p)
    p.add_argument(
        "--watch",
        nargs="?",
        type=_INTERVAL,
        const=5.0,
        metavar="SECONDS",
        help="show it again and again, until nothing is left to do (default: every %(const)g s)",
    )
    form = "of what is printed (default: %(default)s)"
    p.add_argument("--format", choices=("text", "json"), default="text", help=form)


def _add_overrides(p: argparse.ArgumentParser):
    train = p.add_argument_group("handed on to tools/train.py; what a run trains follows from them")
    parts = "override parts of every config, as in vfm-ss train"
    train.add_argument("--cfg-options", nargs="+", metavar="KEY=VALUE", help=parts)
    amp = "force mixed precision: fp16 on a GPU, bf16 on a CPU"
    train.add_argument("--amp", action="store_true", help=amp)
    return train


main = command("vfm-ss sweep", parser, _call)
