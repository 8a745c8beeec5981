"""A run's ``record.json``: its schema, a safe reader and an atomic writer.

Standard library only. Reading executes nothing: a record is JSON and nothing else.
"""

# ruff: noqa: RUF009  the functions of `kinds` return fields
import json
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from vfm_ss.files import write_atomically
from vfm_ss.found_files import read_json
from vfm_ss.protocol import kinds as k
from vfm_ss.protocol.contradictions import contradiction
from vfm_ss.protocol.fractions import parse_fraction
from vfm_ss.protocol.identity import config_hash
from vfm_ss.protocol.settings import is_known, other_steps, parse_config_name, setting_name

SCHEMA = 2
SCHEMAS = (1, SCHEMA)
STATUSES = ("running", "finished")
RECORD_NAME = "record.json"


@dataclass
class Record:
    """What one run measured. None means that a value is not known; it is never 0."""

    # Name of the config.
    name: str = k.required(k.NAME)
    # Key of the VFM, or what a project's own is called.
    vfm: str = k.required(k.NAME)
    # One of settings.DECODERS, or a project's own.
    decoder: str = k.required(k.NAME)
    # 'ade20k', 'voc2012', 'cityscapes', 'gta' or a project's own.
    train_dataset: str = k.required(k.NAME)
    eval_dataset: str = k.required(k.NAME)
    status: str = k.required(k.one_of(STATUSES))
    # 's', 'b', 'l' or a project's own.
    size: str | None = k.known(k.NAME)
    # Side of the square patch, in pixels.
    patch: int | None = k.known(k.POSITIVE)
    seed: int | None = k.known(k.COUNT)
    # Optimiser steps done, and those of the whole run.
    step: int | None = k.known(k.COUNT)
    max_steps: int | None = k.known(k.POSITIVE)
    # Mean IoU of the last validation and the highest of any, in percent.
    miou: float | None = k.known(k.PERCENT)
    best_miou: float | None = k.known(k.PERCENT)
    # IoU of every class at the last validation, in percent; None for a class that occurs in
    # neither labels nor predictions.
    iou: dict[str, float | None] | None = k.known(k.IOUS)
    # [step, miou] of every validation, in order.
    history: list[list] = k.filled(list, k.HISTORY)
    # Spent training, summed over resumes; validation and set-up excluded.
    train_seconds: float | None = k.known(k.MORE_THAN_0)
    # Median of an optimiser step.
    step_seconds: float | None = k.known(k.MORE_THAN_0)
    # Parameters with gradients, and all.
    trainable_params: int | None = k.known(k.COUNT)
    total_params: int | None = k.known(k.COUNT)
    # Highest memory use of the device, in MiB.
    peak_memory_mb: float | None = k.known(k.NUMBER)
    device: str | None = k.known(k.NAME)
    # Number of processes.
    world_size: int | None = k.known(k.POSITIVE)
    # Images per process and forward pass, and per optimiser step.
    micro_batch: int | None = k.known(k.POSITIVE)
    effective_batch: int | None = k.known(k.POSITIVE)
    # Number format of the forward pass, for example 'fp16'.
    precision: str | None = k.known(k.NAME)
    compiled: bool | None = k.known(k.BOOL)
    # Version of every package that matters, and commit of the code.
    versions: dict[str, str] | None = k.known(k.VERSIONS)
    commit: str | None = k.known(k.NAME)
    # Whether a finished run was ended on purpose before ``max_steps``, at ``step``.
    stopped_early: bool | None = k.known(k.BOOL, 2)
    # What else a reader of the scores has to know, in lines.
    remarks: list[str] = k.filled(list, k.LINES, 2)
    # Scores on further data sets of the same model, as above; None where there are none. See `on`.
    evaluations: dict[str, dict] | None = k.known(k.EVALUATIONS, 2)
    # The library's (timm's, mmpretrain's) name of the model. Its pretrained tag is there only
    # where these weights were read.
    model_name: str | None = k.known(k.NAME, 2)
    # What training began from: 'random', a file or an address; the checksum is of the file, None
    # for random weights.
    weights: dict[str, str | None] | None = k.known(k.parts_of(source=k.NAME, sha256=k.CHECKSUM), 2)
    # Height and width of the training crop, in pixels.
    crop_size: list[int] | None = k.known(k.SIZE, 2)
    # The optimiser's learning rate, before multipliers of parts and decay by layer.
    lr: float | None = k.known(k.NUMBER, 2)
    # Factor of the learning rate from layer to layer of the encoder, 1 without such a decay.
    layer_decay: float | None = k.known(k.MORE_THAN_0, 2)
    # Number of different training samples; the share of the whole set that they are, and the
    # seed by which they were chosen (None for the whole set).
    data: dict[str, float | None] | None = k.known(
        k.parts_of(train_samples=k.COUNT, fraction=k.FRACTION, subset_seed=k.COUNT), 2
    )
    # Number of classes, and of those with an IoU, whose mean the score is.
    classes: dict[str, int | None] | None = k.known(
        k.parts_of(total=k.POSITIVE, in_mean=k.COUNT), 2
    )
    # What identifies the configuration, see `identity.identity`, and its checksum.
    config: dict[str, object] | None = k.known(k.VALUES, 2)
    config_hash: str | None = k.known(k.CHECKSUM, 2)
    # Score of a checkpoint with test-time augmentation (`vfm-ss test --tta`), of the step that it
    # was saved at: beside the plain score, which alone is ranked.
    tta: dict[str, object] | None = k.known(
        k.parts_of(step=k.COUNT, miou=k.PERCENT, iou=k.IOUS, augmentations=k.POSITIVE),
        k.ADDED_LATER,
    )
    # Speed of the trained model (`vfm-ss test --fps`): images per second in batches, of one image
    # at a time the seconds, peak memory of the device while it was measured, and on what.
    speed: dict[str, object] | None = k.known(
        k.parts_of(
            images_per_second=k.MORE_THAN_0,
            latency_seconds=k.MORE_THAN_0,
            peak_memory_mb=k.NUMBER,
            batch_size=k.POSITIVE,
            image_size=k.SIZE,
            device=k.NAME,
            precision=k.NAME,
        ),
        k.ADDED_LATER,
    )
    # The schema that the record was read in, or is written in.
    schema: int = k.filled(lambda: SCHEMA, k.one_of(SCHEMAS))

    def __post_init__(self):
        """Check every value.

        Raises:
            ValueError: If a value does not fit the schema; the message names the field.
        """
        k.check(self)
        if self.eval_dataset in (self.evaluations or ()):
            raise ValueError(
                f"field 'evaluations' holds {self.eval_dataset!r} again, which is 'eval_dataset'"
            )
        if self.step is not None and self.max_steps is not None and self.step > self.max_steps:
            raise ValueError(f"field 'step' is {self.step}, more than 'max_steps' {self.max_steps}")
        if self.config is not None and config_hash(self.config) != self.config_hash:
            raise ValueError("field 'config_hash' is not the checksum of 'config'")

    def on(self, eval_dataset: str) -> "Record":
        """Return what the record says of a further evaluation, as a record of its own.

        ``best_miou`` is its score at the step that is best on the run's own data set: that model
        has a checkpoint, and no score on the further data set has chosen it.

        Args:
            eval_dataset: A key of ``evaluations``.
        """
        found = self.evaluations[eval_dataset]
        best_step = next((step for step, miou in self.history if miou == self.best_miou), None)
        config = self.config
        if config is not None and found.get("config"):
            config = {k: v for k, v in config.items() if not k.startswith("val_dataloader.")}
            config |= found["config"]
        return replace(
            self,
            eval_dataset=eval_dataset,
            miou=found.get("miou"),
            iou=found.get("iou"),
            classes=count_classes(found.get("iou")),
            history=found.get("history") or [],
            best_miou=dict(found.get("history") or []).get(best_step),
            config=config,
            config_hash=None if config is None else config_hash(config),
            evaluations=None,
            tta=None,
        )

    @property
    def setting(self) -> str:
        """Name of the setting this run belongs to, see `settings.setting_name`."""
        return setting_name(
            self.size,
            self.patch,
            self.decoder,
            self.train_dataset,
            self.eval_dataset,
            self.fraction,
            self.steps,
        )

    @property
    def fraction(self) -> Fraction:
        """Share of the training set that was trained on; all of it where it is not known."""
        return parse_fraction((self.data or {}).get("fraction") or 1)

    @property
    def steps(self) -> int | None:
        """Optimiser steps of the whole run where they are not those of the data, else None.

        The benchmark's data have a number of steps; of others, the config's name says a number
        where it is not the usual one. Not known where the length is not in optimiser steps.
        """
        if self.effective_batch is None:
            return None
        if is_known(self.train_dataset):
            return other_steps(self.train_dataset, self.max_steps)
        try:
            named = parse_config_name(self.name, own=True).steps
        except ValueError:
            return None
        return named if named == self.max_steps else None


def count_classes(ious: dict[str, float | None] | None) -> dict[str, int] | None:
    """Return the number of classes, and of those in the mean of the score."""
    if not ious:
        return None
    return {"total": len(ious), "in_mean": sum(iou is not None for iou in ious.values())}


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


@lru_cache
def _kinds() -> dict:
    return {f.name: f.metadata for f in fields(Record)}


def read_record(path: str | Path) -> Record:
    """Read and check a record.

    Fields that this version does not know are ignored; a missing one is an error, unless it came
    with a later schema than the record's.

    Args:
        path: A ``record.json``.

    Raises:
        ValueError: If the file cannot be read or is not a record; one line with the file, the
            field and what was expected.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: holds {k.short(data)}, expected a JSON object")
    schema, kinds = data.get("schema"), _kinds()
    if not kinds["schema"]["kind"].accepts(schema):
        raise ValueError(
            f"{path}: field 'schema' is {k.short(schema)}, expected "
            f"{kinds['schema']['kind'].expected}; "
            "the record is of another version of vfm_ss or not a record"
        )
    missing = [n for n, kind in kinds.items() if n not in data and kind.get("schema", 1) <= schema]
    if missing:
        raise ValueError(
            f"{path}: field {missing[0]!r} is missing (an unknown value is written as null)"
        )
    try:
        record = Record(**{name: data[name] for name in kinds if name in data})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if reason := contradiction(record):
        raise ValueError(f"{path}: contradicts itself: {reason}")
    return record
