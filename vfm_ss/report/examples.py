"""Predictions side by side: what runs saved of a few validation images, painted alike.

Files of work dirs are anybody's: JPEG and PNG of a known size are decoded, and new ones made.
"""

import base64
import os
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vfm_ss.protocol.examples import (
    EXAMPLES_NAME,
    IGNORED,
    SHOWN,
    SIDE,
    Example,
    Examples,
    read_examples,
)
from vfm_ss.protocol.runs import Run
from vfm_ss.ranking.analysis import Analysis
from vfm_ss.report.table_data import title
from vfm_ss.text import printable

#: Bytes of pictures in a page, and classes in a legend.
_MOST_BYTES, _MOST_CLASSES = 24 * 2**20, 40
#: Stripes where a label says nothing: no class has two colours.
_STRIPES = ((128, 128, 128), (208, 208, 208))


@dataclass(frozen=True)
class _Found:
    """A model's examples that belong to its score, with the class of each shown pixel."""

    run: Run
    examples: Examples
    labels: list[np.ndarray]
    predictions: list[np.ndarray]

    @property
    def subject(self) -> tuple:
        """What the predictions of all models shown together have to agree in."""
        e = self.examples
        names = tuple((one.place, one.name) for one in e.examples)
        pixels = tuple((label.shape, label.tobytes()) for label in self.labels)
        return tuple(e.classes), e.images, names, pixels


def example_blocks(a: Analysis) -> list[dict]:
    """Return what the page shows under each setting that has examples.

    A model is shown by the run of its lowest seed whose examples can be used: those of the very
    validation that gave the score, of the images and labels that most models have.

    Args:
        a: The analysis.

    Returns:
        For each setting its ``title``, ``images`` (with photo, label and predictions as data
        addresses), ``legend``, ``text`` on what is seen, and ``left_out``: models, and why.
    """
    blocks, room, without_room = [], _MOST_BYTES, []
    for setting in a.settings:
        found, left_out = _usable(a, setting)
        if not found and not left_out:
            continue
        silent = [vfm for vfm in _models(a, setting) if vfm not in {**found, **left_out}]
        if silent:
            left_out[", ".join(silent)] = f"without {EXAMPLES_NAME}"
        block, size = _block(setting, found, left_out, room)
        if blocks and size > room:
            without_room.append(title(setting))
            continue
        blocks.append(block)
        room -= size
    if without_room:
        blocks[-1]["left_out"].append(
            ("other settings", f"the page would become too large: {', '.join(without_room)}")
        )
    return blocks


def _usable(a: Analysis, setting: str) -> tuple[dict[str, _Found], dict[str, str]]:
    """Return the examples of each model, best first, and why those of others are not used."""
    found, left_out = {}, {}
    for vfm in _models(a, setting):
        runs = a.cells.loc[(setting, vfm), "runs"]
        for run in sorted(runs, key=lambda r: (r.seed is None, r.seed)):
            path = Path(run.path).with_name(EXAMPLES_NAME)
            if run.record is None or not os.path.lexists(path):
                continue
            try:
                examples, labels, predictions = read_pictures(path)
                if run.record.eval_dataset != examples.eval_dataset:
                    continue  # a further evaluation of the run: its own images are elsewhere
                if reason := examples.foreign_to(run.record, _step(run, a.metric), run.miou):
                    raise ValueError(f"{path}: not of the score beside it: {reason}")
                found[vfm] = _Found(run, examples, labels, predictions)
                left_out.pop(vfm, None)
                break
            except ValueError as error:
                left_out.setdefault(vfm, printable(str(error)))
    counts = Counter(one.subject for one in found.values())
    for vfm, one in list(found.items()):
        if one.subject != counts.most_common(1)[0][0]:
            left_out[vfm] = f"{one.run.path}: validated on other images, labels or classes"
            del found[vfm]
    return found, left_out


def _models(a: Analysis, setting: str) -> list[str]:
    """Return the models that have runs under a setting, best first."""
    return [vfm for vfm in a.models[setting]["vfm"] if (setting, vfm) in a.cells.index]


def _step(run: Run, metric: str) -> int | None:
    """Return the step of the score that is ranked."""
    if metric == "last":
        return run.record.step
    return next((step for step, miou in run.record.history if miou == run.miou), None)


def read_pictures(path: str | Path) -> tuple[Examples, list[np.ndarray], list[np.ndarray]]:
    """Read a run's examples with the classes of their labels and predictions.

    Args:
        path: An ``examples.json``, anybody's.

    Returns:
        The examples; for each, the (H, W) uint8 label and prediction. `IGNORED` is in labels alone.

    Raises:
        ValueError: If they cannot be used; one line that names the file.
    """
    examples = read_examples(path)
    labels, predictions = [], []
    for one in examples.examples:
        try:
            label, prediction = (np.asarray(_picture(one, k)) for k in ("label", "prediction"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        classes = range(len(examples.classes))
        for kind, pixels, allowed in (("label", label, (IGNORED,)), ("prediction", prediction, ())):
            if not np.isin(pixels, [*classes, *allowed]).all():
                raise ValueError(
                    f"{path}: the {kind} of {one.name} holds a value that is not a class"
                )
        if label.shape != prediction.shape:
            raise ValueError(f"{path}: label and prediction of {one.name} differ in size")
        labels.append(label)
        predictions.append(prediction)
    return examples, labels, predictions


def _picture(one: Example, kind: str) -> Image.Image:
    """Decode a picture.

    Raises:
        ValueError: If it is of another format or larger than what runs save, or damaged.
    """
    form, mode = ("JPEG", "RGB") if kind == "photo" else ("PNG", "L")
    data = one.file(kind)
    try:
        with Image.open(BytesIO(data), formats=(form,)) as image:
            if image.mode != mode or max(image.size) > SIDE:
                raise ValueError(f"{image.mode} of {image.size[0]} x {image.size[1]} pixels")
            return image.convert(mode)  # reads it
    except UnidentifiedImageError:  # whose message is of an object in memory
        raise ValueError(f"the {kind} of {one.name} is not a {form} file") from None
    except Exception as error:  # Pillow's readers raise many types on damaged bytes
        words = printable(str(error))
        raise ValueError(f"the {kind} of {one.name} cannot be used: {words}") from None


def _block(
    setting: str, found: dict[str, _Found], left_out: dict[str, str], room: int
) -> tuple[dict, int]:
    """Return what is shown of a setting, and its pictures' bytes, at most ``room`` for models."""
    block = {"title": title(setting), "images": [], "legend": [], "text": "", "left_out": []}
    size, every = 0, []
    for vfm, one in found.items():
        if not every:  # the first model's labels are everybody's
            examples, every = one.examples, [*one.labels]
            colours = _colours(examples.palette)
            block["images"] = _images(one, colours)
            block["text"] = _text(examples)
            size = sum(len(image["photo"]) + len(image["label"]) for image in block["images"])
        pictures = [_painted(pixels, colours) for pixels in one.predictions]
        if size + sum(map(len, pictures)) > room:
            left_out[vfm] = "the page would become too large"
            continue
        size += sum(map(len, pictures))
        every += one.predictions
        for image, own, picture in zip(
            block["images"], one.examples.examples, pictures, strict=True
        ):
            shown = {"vfm": vfm, "seed": one.run.seed, "miou": own.miou}
            image["predictions"].append({**shown, "run_miou": one.run.miou, "picture": picture})
    if every:
        block["legend"] = _legend(examples, every)
    block["left_out"] = [(printable(vfm), reason) for vfm, reason in left_out.items()]
    return block, size


def _images(found: _Found, colours: list[int]) -> list[dict]:
    classes = len(found.examples.classes)
    return [
        {
            "name": one.name,
            "place": one.place + 1,
            "photo": _photo(one, label.shape),
            "label": _painted(_striped(label, classes), colours),
            "predictions": [],
        }
        for one, label in zip(found.examples.examples, found.labels, strict=True)
    ]


def _text(examples: Examples) -> str:
    numbers = [f"{one.place + 1:,}" for one in examples.examples]
    which = numbers[0] if len(numbers) == 1 else f"{', '.join(numbers[:-1])} and {numbers[-1]}"
    return (
        f"Images {which} of {examples.images:,} in the sorted list, the middles of equal parts of "
        "it: chosen before anything was predicted. Of each model the run of the lowest seed that "
        "saved them, from the validation whose score is shown. “Here” is the mean IoU over the "
        "classes in the label or prediction of this image, “all” the run's score. Larger images "
        f"are reduced to {SHOWN} pixels, their label maps by taking the nearest pixel."
    )


def _photo(one: Example, shape: tuple[int, int]) -> str:
    try:
        photo = _picture(one, "photo")
    except ValueError:
        photo = None
    if photo is None or photo.size != shape[::-1]:
        return ""
    return _address(photo, "JPEG", quality=85)


def _colours(palette: list[list[int]]) -> list[int]:
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    table[IGNORED] = _STRIPES[1]
    if len(palette) < IGNORED:
        table[len(palette)] = _STRIPES[0]
    return table.ravel().tolist()


def _striped(label: np.ndarray, classes: int) -> np.ndarray:
    """Give every second diagonal of ignored pixels the first value that is no class."""
    down, across = np.indices(label.shape)
    every_second = (down + across) // 4 % 2 == 0
    dark = min(classes, IGNORED)
    return np.where((label == IGNORED) & every_second, dark, label).astype(np.uint8)


def _painted(pixels: np.ndarray, colours: list[int]) -> str:
    picture = Image.fromarray(pixels)
    picture.putpalette(colours)
    return _address(picture, "PNG", optimize=True)


def _address(picture: Image.Image, form: str, **how) -> str:
    data = BytesIO()
    picture.save(data, form, **how)
    return f"data:image/{form.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"


def _legend(examples: Examples, pictures: list[np.ndarray]) -> list[dict]:
    """Name the classes that are seen, those of most pixels first."""
    counts = sum(np.bincount(p.ravel(), minlength=256) / p.size for p in pictures)
    order = [int(c) for c in np.argsort(-counts[:IGNORED], kind="stable") if counts[c]]
    legend = [
        {"name": examples.classes[c], "colour": "#{:02x}{:02x}{:02x}".format(*examples.palette[c])}
        for c in order[:_MOST_CLASSES]
    ]
    if len(order) > _MOST_CLASSES:
        legend.append({"name": f"and {len(order) - _MOST_CLASSES} rarer ones", "colour": None})
    if counts[IGNORED]:
        light, dark = ("rgb({}, {}, {})".format(*colour) for colour in reversed(_STRIPES))
        stripes = f"repeating-linear-gradient(135deg, {light} 0 3px, {dark} 3px 6px)"
        legend.append({"name": "no label, not counted", "colour": stripes})
    return legend
