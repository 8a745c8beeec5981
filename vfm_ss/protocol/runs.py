"""Finding finished runs: walks work dirs and reads what it finds, executing nothing."""

import contextlib
import gc
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vfm_ss.found_files import folders
from vfm_ss.protocol.mmengine_logs import read_plain_work_dir
from vfm_ss.protocol.records import RECORD_NAME, Record, read_record


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        setting: Name of its setting.
        vfm: Key of its VFM.
        seed: Its seed; None if not known.
        miou: The score that is ranked, in percent.
        path: Where the score was read from.
        record: All that is known of the run; None for a number from a table.
    """

    setting: str
    vfm: str
    seed: int | None
    miou: float
    path: str
    record: Record | None = None


@dataclass(frozen=True)
class Skipped:
    """A file that could not be used, and why."""

    path: str
    reason: str


def collect(paths: Iterable[str | Path], metric: str = "last") -> tuple[list[Run], list[Skipped]]:
    """Read every run below ``paths``.

    A run is a ``record.json``, or a work dir of plain mmengine without one. Each further
    evaluation of a record is a run of its own. Folders are walked through symbolic links, each
    once.

    Args:
        paths: Work dirs, folders of work dirs, or ``record.json`` files.
        metric: ``'last'`` ranks the last validation, ``'best'`` the best one.

    Returns:
        The finished runs, one per setting, VFM and seed, and everything that was not used.
    """
    runs, skipped = [], []
    with _no_garbage():
        for path, read in _candidates([Path(p) for p in paths], skipped):
            try:
                record = read(path)
                runs.append(_run(record, path, metric))
            except ValueError as error:
                skipped.append(Skipped(str(path), str(error).removeprefix(f"{path}: ")))
                continue
            for name in record.evaluations or ():
                try:
                    runs.append(_run(record.on(name), path, metric))
                except ValueError as error:
                    skipped.append(Skipped(str(path), f"evaluation on {name}: {error}"))
    return runs, skipped


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Do not look for garbage again and again in what is read to stay; that takes a tenth."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def drop_duplicates(runs: Iterable[Run]) -> tuple[list[Run], list[Skipped]]:
    """Keep the first of several runs with the same setting, VFM and seed.

    Runs whose seed is not known are taken to be different runs.
    """
    kept, skipped = {}, []
    for i, run in enumerate(runs):
        key = (run.setting, run.vfm, i if run.seed is None else ("seed", run.seed))
        first = kept.setdefault(key, run)
        if first is not run:
            skipped.append(
                Skipped(
                    run.path,
                    f"duplicate of {first.path}: {run.vfm} under {run.setting} with seed "
                    f"{run.seed} again (mIoU {run.miou:.2f}, used: {first.miou:.2f}); "
                    "remove the one that does not count",
                )
            )
    return list(kept.values()), skipped


def _run(record: Record, path: Path, metric: str) -> Run:
    if record.status != "finished":
        raise ValueError(f"not finished: step {record.step} of {record.max_steps}")
    score = record.best_miou if metric == "best" else record.miou
    if score is None:
        raise ValueError(f"finished without a score: its {metric} mIoU is null")
    return Run(record.setting, record.vfm, record.seed, score, str(path), record)


def _candidates(paths: list[Path], skipped: list[Skipped]) -> Iterator[tuple]:
    """Yield (file or work dir, its reader); what cannot even be walked goes to ``skipped``."""

    def unreadable(error: OSError) -> None:
        skipped.append(Skipped(str(error.filename), f"cannot be read: {error.strerror}"))

    seen = set()
    for path in paths:
        if os.path.isfile(path):
            yield path, read_record
            continue
        for folder, subfolders, files in folders(path, unreadable, seen):
            entries = {*files, *subfolders}
            if RECORD_NAME in entries:
                yield Path(folder, RECORD_NAME), read_record
            elif any(os.path.isdir(os.path.join(folder, name, "vis_data")) for name in subfolders):
                yield Path(folder), read_plain_work_dir
