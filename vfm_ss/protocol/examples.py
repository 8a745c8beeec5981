"""A run's ``examples.json``: its predictions of a few validation images, for the report.

Which images, says their place in the sorted list alone; whose predictions, says what the run's
record held at that moment. Standard library only; pictures stay the bytes of their files.
"""

# ruff: noqa: RUF009  the functions of `kinds` return fields
import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vfm_ss.files import write_atomically
from vfm_ss.found_files import read_json
from vfm_ss.protocol import kinds as k
from vfm_ss.protocol.records import Record

EXAMPLES_NAME = "examples.json"
SCHEMA = 1
#: Most images, pixels of a side that are shown, and that are read.
MOST, SHOWN, SIDE = 16, 384, 512
#: What stands for pixels that do not count, in labels. So 255 classes at most.
IGNORED = 255


def _is_palette(value) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list)
        and len(row) == 3
        and all(type(v) is int and 0 <= v < 256 for v in row)
        for row in value
    )


_PALETTE = k.Kind(_is_palette, "a list of [red, green, blue], 0 to 255")
_PERCENT = k.Kind(lambda v: v is None or k.PERCENT.accepts(v), f"{k.PERCENT.expected} or null")


@dataclass
class Example:
    """An image.

    Attributes:
        name: Its file, from the folder of the images on.
        place: Its place in the sorted list, from 0.
        miou: Over the classes in this image's label or prediction, at full size, in percent; None
            where nothing counts.
        photo: A JPEG file in base64; at most `SIDE` pixels a side.
        label: A gray PNG file of the same size in base64, a class or `IGNORED` at each pixel.
        prediction: Likewise.
    """

    name: str = k.required(k.NAME)
    place: int = k.required(k.COUNT)
    miou: float | None = k.required(_PERCENT)
    photo: str = k.required(k.TEXT)
    label: str = k.required(k.TEXT)
    prediction: str = k.required(k.TEXT)

    def __post_init__(self) -> None:
        k.check(self)

    def file(self, kind: str) -> bytes:
        """Return the bytes of a picture.

        Args:
            kind: ``'photo'``, ``'label'`` or ``'prediction'``.

        Raises:
            ValueError: If they are not base64.
        """
        try:
            return base64.b64decode(getattr(self, kind), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"the {kind} of {self.name} is not base64") from None


@dataclass
class Examples:
    """Predictions of one validation of one run.

    Attributes:
        images: Number of images validated on, of which these are a few.
        classes: Names, in order.
        palette: A colour for each class.
        examples: The images, by place.
        step: Optimiser steps of the model; this and the rest as the run's record says them.
        seed: Its seed.
        miou: Its score over all images, in percent.
        config_hash: Its configuration.
        eval_dataset: What it was validated on.
    """

    images: int = k.required(k.POSITIVE)
    classes: list[str] = k.required(k.LINES)
    palette: list[list[int]] = k.required(_PALETTE)
    examples: list[Example] = k.required(k.LIST)
    step: int | None = k.known(k.COUNT)
    seed: int | None = k.known(k.COUNT)
    miou: float | None = k.known(k.PERCENT)
    config_hash: str | None = k.known(k.CHECKSUM)
    eval_dataset: str | None = k.known(k.NAME)

    def __post_init__(self) -> None:
        k.check(self)
        if not 0 < len(self.classes) == len(self.palette) <= IGNORED:
            raise ValueError(
                f"{len(self.classes)} classes and {len(self.palette)} colours, expected as many, "
                f"at most {IGNORED}"
            )
        if not 0 < len(self.examples) <= MOST:
            raise ValueError(f"{len(self.examples)} examples, expected 1 to {MOST}")
        if [one.place for one in self.examples] != places(self.images, len(self.examples)):
            raise ValueError("these images are not those that the rule chooses")

    def foreign_to(self, record: Record, step: int | None, miou: float | None) -> str | None:
        """Say why these are not the predictions behind a score; None where they are.

        Args:
            record: Record of the run.
            step: Of the score.
            miou: The score, in percent.
        """
        for name, score in of_record(record, step, miou).items():
            own = getattr(self, name)
            if own != score:
                return f"its {name} is {k.short(own)}, that of the score {k.short(score)}"
        return None


def places(images: int, count: int) -> list[int]:
    """Choose images without looking at them: the middles of equal parts of the sorted list.

    Args:
        images: Number of images.
        count: Number to choose; all where there are not more.

    Returns:
        Places in the sorted list, from 0.
    """
    count = min(count, images)
    return [(2 * i + 1) * images // (2 * count) for i in range(count)]


def of_record(record: Record, step: int | None, miou: float | None) -> dict:
    """Return the fields of `Examples` that say whose predictions they are.

    Args:
        record: Record of the run.
        step: Optimiser steps of the model.
        miou: Its score, in percent.
    """
    return {
        "step": step,
        "seed": record.seed,
        "miou": miou,
        "config_hash": record.config_hash,
        "eval_dataset": record.eval_dataset,
    }


def encoded(data: bytes) -> str:
    """Return the bytes of a picture as `Example` takes them."""
    return base64.b64encode(data).decode()


def write_examples(folder: str | Path, examples: Examples) -> None:
    """Write the examples into a run's folder, whole or not at all.

    Raises:
        OSError: If they cannot be written.
    """
    text = json.dumps({"schema": SCHEMA, **asdict(examples)}, indent=1, allow_nan=False) + "\n"
    write_atomically(Path(folder, EXAMPLES_NAME), text.encode())


def read_examples(path: str | Path) -> Examples:
    """Read and check the examples of a run, all but the pictures.

    Args:
        path: An ``examples.json``.

    Raises:
        ValueError: If the file cannot be read or is something else; one line that names it.
    """
    data = read_json(path)
    if not isinstance(data, dict) or data.pop("schema", None) != SCHEMA:
        raise ValueError(f"{path}: not examples of schema {SCHEMA}")
    try:
        rows = data.get("examples")
        if not isinstance(rows, list):
            raise ValueError(f"field 'examples' is {k.short(rows)}, expected a list")
        return Examples(**_known(Examples, data) | {"examples": [_example(row) for row in rows]})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _example(row: object) -> Example:
    if not isinstance(row, dict):
        raise ValueError(f"an example is {k.short(row)}, expected an object")
    return Example(**_known(Example, row))


def _known(cls: type, data: dict) -> dict:
    names: Sequence[str] = list(cls.__dataclass_fields__)
    missing = [name for name in names if name not in data]
    if missing:
        raise ValueError(f"field {missing[0]!r} is missing")
    return {name: data[name] for name in names}
