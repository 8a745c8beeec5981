"""What a sweep will cost: training time of its cells, from the records of earlier runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tabulate import tabulate

from vfm_ss.found_files import folders
from vfm_ss.protocol.records import RECORD_NAME, Record, read_record
from vfm_ss.protocol.settings import SETTINGS
from vfm_ss.sweep.cells import Cell
from vfm_ss.sweep.factors import Product
from vfm_ss.sweep.plan import PlannedRun
from vfm_ss.sweep.status import duration
from vfm_ss.text import GAP

#: Paper's training time relative to the default's, by what it is the time of (Table 3).
_PAPER = {
    (s.size, s.patch, s.decoder, s.data.train): s.paper_time
    for s in SETTINGS.values()
    if s.paper_time is not None
}
_DEFAULT = next(iter(_PAPER))


@dataclass(frozen=True)
class Estimate:
    """What training one run of a cell takes, validation not included.

    Attributes:
        seconds: Training time.
        source: What it is taken from.
    """

    seconds: float
    source: str


def known_records(work_dir: str | Path) -> list[Record]:
    """Return the records below a folder that say the time of a step, of the most frequent device.

    Times of different devices are not to be mixed.
    """
    found = []
    for folder, _, files in folders(work_dir, lambda error: None, set()):
        if RECORD_NAME in files:
            try:
                record = read_record(Path(folder, RECORD_NAME))
            except ValueError:
                continue  # ranking and status say so
            if record.step_seconds and record.effective_batch == 16:
                found.append(record)
    devices = [(record.device, record.world_size) for record in found]
    device = max(devices, key=devices.count, default=None)
    return [record for record, its in zip(found, devices, strict=True) if its == device]


def estimate(cell: Cell, records: Iterable[Record], steps: int | None = None) -> Estimate | None:
    """Estimate the training time of a cell's run.

    A step's time follows from model, patch, decoder and data: of the records of the same ones, the
    VFM's own count, else those of all others. Where there is none, the paper's ratio to the
    default is applied to the default's.

    Args:
        cell: The cell.
        records: See `known_records`.
        steps: Optimiser steps, where an option overrides the cell's.

    Returns:
        The estimate; None where nothing is known.
    """
    times: dict[tuple, dict[str, list[float]]] = {}
    for record in records:
        key = (record.size, record.patch, record.decoder, record.train_dataset)
        vfm = record.vfm.partition("@")[0]
        times.setdefault(key, {}).setdefault(vfm, []).append(record.step_seconds)
    key = (cell.size, cell.patch, cell.decoder, cell.data.train)
    for place, ratio, words in (
        (key, 1.0, "records of {}"),
        (_DEFAULT, _PAPER.get(key), "the default's of {}, times the paper's ratio"),
    ):
        if place in times and ratio is not None:
            found = times[place]
            own = found.get(cell.model.key)
            step = median(own or [seconds for all_ in found.values() for seconds in all_])
            source = words.format("this VFM" if own else "other VFMs")
            return Estimate(step * ratio * (steps or cell.length), source)
    return None


def _device(record: Record) -> str:
    name = record.device or "a device that the records do not name"
    many = record.world_size is not None and record.world_size > 1
    return f"{record.world_size} x {name}" if many else name


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def describe(
    product: Product,
    todo: Sequence[PlannedRun],
    records: Sequence[Record],
    steps: int | None = None,
    fresh: int = 0,
) -> str:
    """Describe a product and what is left to train of it.

    Args:
        product: The product.
        todo: Its runs that are to be trained.
        records: See `known_records`.
        steps: Optimiser steps, where an option overrides those of the cells.
        fresh: Number of configs that will be written.

    Returns:
        Lines of text.
    """
    lines = [f"product: {product.text}: {_number(len(product.cells), 'cell')}"]
    lines += [f"left out: {line}" for line in product.left_out]
    runs: dict[str, list[PlannedRun]] = {}
    for run in todo:
        if run.cell is not None:
            runs.setdefault(run.cell.setting, []).append(run)
    rows, known, unknown = [], 0.0, 0
    for setting, of in runs.items():
        found = [estimate(run.cell, records, steps) for run in of]
        seconds = [one.seconds for one in found if one is not None]
        known, unknown = known + sum(seconds), unknown + found.count(None)
        sources = dict.fromkeys(one.source if one else "unknown" for one in found)
        each = duration(median(seconds)) if seconds else GAP
        vfms = len({run.cell.model for run in of})
        rows.append([setting, vfms, len(of), each, "; ".join(sources)])
    if rows:
        head = ["setting", "VFMs", "runs", "a run", "taken from"]
        align = ("left", "right", "right", "right", "left")
        lines += ["", tabulate(rows, head, "simple", colalign=align, disable_numparse=True), ""]
    count = len(todo) - unknown
    if count:
        lines.append(
            f"projected: {duration(known)} of training for {count} of {len(todo)} runs, one after "
            f"another, on {_device(records[0])}; validation comes on top"
        )
    if unknown:
        lines.append(
            f"unknown: the cost of {unknown} of {len(todo)} runs; a finished run of the same size, "
            "patch, decoder and data in the work dir would tell"
        )
    if fresh:
        lines.append(
            f"{_number(fresh, 'config')} not there yet will be written when the sweep starts"
        )
    return "\n".join(lines) + "\n"
