"""A run's ``record.json``: its schema, a safe reader and an atomic writer.

Standard library only. Reading executes nothing: a record is JSON and nothing else.
"""

import json
import math
import os
import stat
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from vfm_ss.files import write_atomically
from vfm_ss.protocol.settings import setting_name

SCHEMA = 1
STATUSES = ("running", "finished")
RECORD_NAME = "record.json"
_MAX_BYTES = 16 * 2**20


@dataclass
class Record:
    """What one run measured; None means that a value is not known.

    Attributes:
        name: Name of the config.
        vfm: Key of the VFM, or of a project's own backbone.
        decoder: ``'linear'``, ``'probe'`` (linear decoder, frozen encoder), ``'mask2former'`` or a
            project's own.
        train_dataset: ``'ade20k'``, ``'voc2012'``, ``'cityscapes'``, ``'gta'`` or a project's own.
        eval_dataset: As ``train_dataset``.
        status: ``'running'`` or ``'finished'``.
        size: ``'b'``, ``'l'`` or a project's own.
        patch: Side of the square patch, in pixels.
        seed: Random seed.
        step: Optimiser steps done.
        max_steps: Optimiser steps of the whole run.
        miou: Mean IoU of the last validation, in percent.
        best_miou: Highest mean IoU of any validation, in percent.
        iou: IoU of every class at the last validation, in percent; None for a class that occurs
            in neither labels nor predictions.
        history: ``[step, miou]`` of every validation, in order.
        train_seconds: Seconds spent training, summed over resumes; validation and set-up excluded.
        step_seconds: Median seconds of an optimiser step.
        trainable_params: Number of parameters with gradients.
        total_params: Number of all parameters.
        peak_memory_mb: Highest memory use of the device, in MiB.
        device: Name of the device.
        world_size: Number of processes.
        micro_batch: Images per process and forward pass.
        effective_batch: Images per optimiser step.
        precision: Number format of the forward pass, for example ``'fp16'``.
        compiled: Whether the model was compiled.
        versions: Version of every package that matters.
        commit: Commit of the code.
        stopped_early: Whether a finished run was ended on purpose before ``max_steps``, at
            ``step``; None where it is not finished, or its version did not say.
        remarks: What else a reader of the scores has to know, in lines.
        evaluations: Scores on further data sets of the same model, ``{data set: {'miou', 'iou',
            'history'}}`` as above; None where there are none. See `Record.on`.
        schema: Version of this schema.
    """

    name: str
    vfm: str
    decoder: str
    train_dataset: str
    eval_dataset: str
    status: str
    size: str | None = None
    patch: int | None = None
    seed: int | None = None
    step: int | None = None
    max_steps: int | None = None
    miou: float | None = None
    best_miou: float | None = None
    iou: dict[str, float | None] | None = None
    history: list[list] = field(default_factory=list)
    train_seconds: float | None = None
    step_seconds: float | None = None
    trainable_params: int | None = None
    total_params: int | None = None
    peak_memory_mb: float | None = None
    device: str | None = None
    world_size: int | None = None
    micro_batch: int | None = None
    effective_batch: int | None = None
    precision: str | None = None
    compiled: bool | None = None
    versions: dict[str, str] | None = None
    commit: str | None = None
    stopped_early: bool | None = None
    remarks: list[str] = field(default_factory=list)
    evaluations: dict[str, dict] | None = None
    schema: int = SCHEMA

    def __post_init__(self):
        """Check every value.

        Raises:
            ValueError: If a value does not fit the schema; the message names the field.
        """
        for name, (accepts, expected) in _CHECKS.items():
            value = getattr(self, name)
            if value is None and name not in _REQUIRED:
                continue
            if not accepts(value):
                raise ValueError(f"field {name!r} is {_short(value)}, expected {expected}")
        if self.eval_dataset in (self.evaluations or ()):
            raise ValueError(
                f"field 'evaluations' holds {self.eval_dataset!r} again, which is 'eval_dataset'"
            )
        if self.step is not None and self.max_steps is not None and self.step > self.max_steps:
            raise ValueError(f"field 'step' is {self.step}, more than 'max_steps' {self.max_steps}")

    def on(self, eval_dataset: str) -> "Record":
        """Return what the record says of a further evaluation, as a record of its own.

        ``best_miou`` is its score at the step that is best on the run's own data set: that model
        has a checkpoint, and no score on the further data set has chosen it.

        Args:
            eval_dataset: A key of ``evaluations``.
        """
        found = self.evaluations[eval_dataset]
        best_step = next((step for step, miou in self.history if miou == self.best_miou), None)
        return replace(
            self,
            eval_dataset=eval_dataset,
            miou=found.get("miou"),
            iou=found.get("iou"),
            history=found.get("history") or [],
            best_miou=dict(found.get("history") or []).get(best_step),
            evaluations=None,
        )

    @property
    def setting(self) -> str:
        """Name of the setting this run belongs to, see `settings.setting_name`."""
        return setting_name(
            self.size, self.patch, self.decoder, self.train_dataset, self.eval_dataset
        )


def write_record(path: str | Path, record: Record) -> None:
    """Write a record so that readers see the old file or the new one, never a part.

    Args:
        path: File to write, usually ``record.json`` in the work dir. The folder must exist.
        record: The record.

    Raises:
        ValueError: If a value does not fit the schema.
    """
    record.__post_init__()  # fields may have been set since it was made
    text = json.dumps(asdict(record), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode())


def read_record(path: str | Path) -> Record:
    """Read and check a record.

    Fields that this version does not know are ignored; a missing one is an error, but for those
    that were added to the schema later.

    Args:
        path: A ``record.json``.

    Raises:
        ValueError: If the file cannot be read or is not a record; one line with the file, the
            field and what was expected.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: holds {_short(data)}, expected a JSON object")
    if type(data.get("schema")) is not int or data["schema"] != SCHEMA:
        raise ValueError(
            f"{path}: field 'schema' is {_short(data.get('schema'))}, expected {SCHEMA}; "
            "the record is of another version of vfm_ss or not a record"
        )
    names = [f.name for f in fields(Record)]
    missing = [name for name in names if name not in data and name not in _LATER]
    if missing:
        raise ValueError(
            f"{path}: field {missing[0]!r} is missing (an unknown value is written as null)"
        )
    try:
        return Record(**{name: data[name] for name in names if name in data})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_json(path: str | Path):
    """Read one JSON file, refusing NaN, Infinity and anything that is not a regular file.

    Raises:
        ValueError: If it cannot be read; one line that names the file.
    """
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):  # a named pipe would block for ever
            raise ValueError("not a regular file")
        if info.st_size > _MAX_BYTES:
            raise ValueError(f"{info.st_size} bytes, too big for a record")
        text = Path(path).read_bytes().decode("utf-8")
        if not text.strip():
            raise ValueError("the file is empty")
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not valid JSON, perhaps truncated: {error.msg} "
            f"(line {error.lineno}, column {error.colno})"
        ) from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise ValueError(f"{path}: not a record: JSON nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _refuse_constant(name: str):
    raise ValueError(f"holds {name}, expected a number or null")


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_int(value, low: int = 0) -> bool:
    return type(value) is int and low <= value < 2**63  # what tables and plots can hold


def _is_number(value, low: float = 0.0, high: float = math.inf) -> bool:
    if type(value) not in (int, float):
        return False
    try:
        return math.isfinite(value) and low <= value <= high
    except OverflowError:  # JSON's integers have no end
        return False


def _is_name(value) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _is_percent(value) -> bool:
    return _is_number(value, 0, 100)


def _is_ious(value) -> bool:
    return isinstance(value, dict) and all(
        _is_name(k) and (v is None or _is_percent(v)) for k, v in value.items()
    )


def _is_history(value) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, (list, tuple))
        and len(row) == 2
        and _is_int(row[0])
        and (row[1] is None or _is_percent(row[1]))
        for row in value
    )


def _is_versions(value) -> bool:
    return isinstance(value, dict) and all(_is_name(k) and _is_name(v) for k, v in value.items())


def _is_remarks(value) -> bool:
    return isinstance(value, list) and all(
        isinstance(line, str) and 0 < len(line) <= 2000 and line.isprintable() for line in value
    )


def _is_evaluations(value) -> bool:
    return isinstance(value, dict) and all(
        _is_name(name)
        and isinstance(found, dict)
        and (found.get("miou") is None or _is_percent(found["miou"]))
        and (found.get("iou") is None or _is_ious(found["iou"]))
        and (found.get("history") is None or _is_history(found["history"]))
        for name, found in value.items()
    )


_NAME = (_is_name, "a non-empty printable string")
_COUNT = (_is_int, "an integer of 64 bits, 0 or more, or null")
_POSITIVE = (lambda v: _is_int(v, 1), "an integer of 64 bits, 1 or more, or null")
_PERCENT = (_is_percent, "a number from 0 to 100 (percent) or null")
_SECONDS = (lambda v: _is_number(v) and v > 0, "a number above 0 or null")

_REQUIRED = ("schema", "name", "vfm", "decoder", "train_dataset", "eval_dataset", "status")
_REQUIRED += ("history", "remarks")
# Fields that the first records of this schema lack; its first readers ignore them.
_LATER = ("stopped_early", "remarks", "evaluations")
_CHECKS = {
    "schema": (lambda v: type(v) is int and v == SCHEMA, f"{SCHEMA}"),
    "name": _NAME,
    "vfm": _NAME,
    "size": _NAME,
    "patch": _POSITIVE,
    "decoder": _NAME,
    "train_dataset": _NAME,
    "eval_dataset": _NAME,
    "seed": _COUNT,
    "status": (lambda v: v in STATUSES, f"one of {', '.join(STATUSES)}"),
    "step": _COUNT,
    "max_steps": _POSITIVE,
    "miou": _PERCENT,
    "best_miou": _PERCENT,
    "iou": (_is_ious, "an object {class: percent or null} or null"),
    "history": (_is_history, "a list of [step, percent or null]"),
    "train_seconds": _SECONDS,
    "step_seconds": _SECONDS,
    "trainable_params": _COUNT,
    "total_params": _COUNT,
    "peak_memory_mb": (_is_number, "a number, 0 or more, or null"),
    "device": _NAME,
    "world_size": _POSITIVE,
    "micro_batch": _POSITIVE,
    "effective_batch": _POSITIVE,
    "precision": _NAME,
    "compiled": (lambda v: type(v) is bool, "true, false or null"),
    "versions": (_is_versions, "an object {package: version} or null"),
    "commit": _NAME,
    "stopped_early": (lambda v: type(v) is bool, "true, false or null"),
    "remarks": (_is_remarks, "a list of printable strings"),
    "evaluations": (
        _is_evaluations,
        "an object {data set: {miou: percent or null, iou: {class: percent or null} or null, "
        "history: list of [step, percent or null]}} or null",
    ),
}
