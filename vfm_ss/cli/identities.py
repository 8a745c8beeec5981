"""What ``vfm-ss train`` would train, asked of mmengine's configs without training.

A sweep asks for all of its runs in one process of its own, and stays without mmengine itself: that
process takes a second to start and some hundredths for each config, without torch (but for --amp
and further data sets to evaluate on).
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from vfm_ss.cli.call import foreseen
from vfm_ss.cli.process import answer_with, asked
from vfm_ss.errors import UsageError
from vfm_ss.protocol.identity import identity
from vfm_ss.sweep.identity import HOLDS_OTHER, Asked, difference
from vfm_ss.sweep.plan import PlannedRun, missing_configs
from vfm_ss.sweep.status import finished_record


def identified(runs: Sequence[PlannedRun], only_finished: bool = False) -> list[PlannedRun]:
    """Find out what the runs of a sweep would train.

    Args:
        runs: The runs.
        only_finished: Ask for those alone in whose folder there is a finished run, where the
            others are not to be trained now.

    Returns:
        The runs with ``asked`` set; those without arguments stay as they are.

    Raises:
        UsageError: If a config or an option cannot be read, or a file is in the place of a config
            that a sweep writes.
    """
    missing_configs(runs)
    wanted = [
        run.arguments and not (only_finished and finished_record(run.work_dir) is None)
        for run in runs
    ]
    with TemporaryDirectory() as folder:
        commands = [_arguments(run, folder) for run, yes in zip(runs, wanted, strict=True) if yes]
        answers = iter(ask(commands))
    return [
        replace(run, asked=next(answers)) if yes else run
        for run, yes in zip(runs, wanted, strict=True)
    ]


def _arguments(run: PlannedRun, folder: str) -> tuple[str, ...]:
    """Return a run's arguments, a cell's config read from where nobody else can write."""
    if run.text is None:
        return run.arguments
    path = Path(folder, run.config.name)
    path.write_text(run.text, encoding="utf-8")
    return (str(path), *run.arguments[1:])


def refuse_other_runs(runs: Sequence[PlannedRun]) -> None:
    """Refuse a sweep that would take another configuration's finished runs for its own.

    Raises:
        UsageError: If a folder holds one; the line says what differs.
    """
    found = []
    for run in runs:
        record = finished_record(run.work_dir) if run.asked else None
        other = difference(record, run.asked) if record else None
        if other:
            found.append(f"{run.work_dir}: {HOLDS_OTHER}: {other}")
    if found:
        more = f" ({len(found) - 1} more folders do)" if len(found) > 1 else ""
        raise UsageError(
            f"{found[0]}{more}; give another --work-dir, the options of that run, or delete its "
            "folder"
        )


def ask(commands: Sequence[Sequence[str]]) -> list[Asked]:
    """Return what some commands would train.

    Args:
        commands: Arguments of ``vfm-ss train``, one list for each command.

    Raises:
        UsageError: If a config or an option cannot be read.
    """
    if not commands:
        return []
    found = asked(
        "vfm_ss.cli.identities", [list(c) for c in commands], "the configs cannot be read"
    )
    return [Asked(**one) for one in found]


def answer(commands: Sequence[Sequence[str]]) -> list[dict]:
    """Do `ask`'s work, in its process.

    Raises:
        UsageError: If a config or an option cannot be read.
    """
    from vfm_ss.cli.train import parser

    read = parser("vfm-ss train")
    found: dict[str, dict] = {}
    answers = []
    for command in commands:
        args = read.parse_args(command)
        key = json.dumps([args.config, args.cfg_options, args.amp], default=str)
        if key not in found:
            found[key] = _of(args.config, args.cfg_options, args.amp)
        answers.append(found[key])
    return answers


def _of(file: str, options: dict, amp: bool) -> dict:
    from mmengine.config import Config

    try:
        cfg = Config.fromfile(file, import_custom_modules=False)
        cfg.merge_from_dict(options)
        if amp:
            from vfm_ss.engine.prepared_config import force_mixed_precision

            force_mixed_precision(cfg)
        found = {"config": identity(cfg), "weights": _weights(cfg)}
        if cfg.get("eval_data"):
            from vfm_ss.datasets.eval_data import eval_items, eval_loader
            from vfm_ss.engine.evaluations import loader_identity

            found["evaluations"] = {
                item: loader_identity(cfg, eval_loader(cfg, item)) for item in eval_items(cfg)
            }
        return found
    except Exception as error:  # a config is code
        reason = foreseen(error) or f"{type(error).__name__}: {error}"
        raise UsageError(f"config {file} cannot be read: {' '.join(reason.split())}") from error


def _weights(cfg) -> str | bool | None:
    if cfg.get("load_from") is not None:
        return str(cfg.load_from)
    backbone = (cfg.get("model") or {}).get("backbone") or {}
    pretrained = backbone.get("pretrained")
    return pretrained if isinstance(pretrained, bool) or pretrained is None else str(pretrained)


if __name__ == "__main__":
    answer_with(answer)
