"""What a record must not say at once: each value may be right, but not all of them.

A crash never leaves such a record; somebody's hand or another writer does. Ranking one of its
values would be a guess. Standard library only.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

#: Percent by which scores may differ that were rounded to two digits.
_ROUNDING = 0.02


def contradiction(record: Any) -> str | None:
    """Return the first contradiction in a record (`records.Record`), or None."""
    return next(_all(record), None)


def _all(r: Any) -> Iterator[str]:
    if r.status == "finished" and not r.stopped_early and _below(r.step, r.max_steps):
        yield f"it is finished at step {r.step} of {r.max_steps}, but not stopped early"
    if _below(r.best_miou, r.miou, _ROUNDING):
        yield f"its best mIoU {r.best_miou} is below its last {r.miou}"
    if _below(r.total_params, r.trainable_params):
        yield f"{r.trainable_params} of its {r.total_params} parameters are trainable"
    yield from _scores(r.miou, r.iou, r.history, r.step)
    known = [miou for _, miou in r.history if miou is not None]
    if known and r.best_miou is not None and _differ(r.best_miou, max(known)):
        yield f"its best mIoU is {r.best_miou}, in its history {max(known)}"
    if r.classes and r.iou:
        found = {"total": len(r.iou), "in_mean": sum(v is not None for v in r.iou.values())}
        for key, count in found.items():
            if r.classes[key] not in (None, count):
                yield f"its field 'classes' says {key} {r.classes[key]}, its IoUs are {count}"
    for name, part in (r.evaluations or {}).items():
        history = part.get("history") or []
        if history and _below(history[-1][0], r.step):
            # Only an earlier model was evaluated on it.
            if part.get("miou") is not None:
                yield f"on {name}, its mIoU is {part['miou']}, but its history lacks step {r.step}"
            continue
        for reason in _scores(part.get("miou"), part.get("iou"), history, r.step):
            yield f"on {name}, {reason}"


def _scores(miou, iou, history, step) -> Iterator[str]:
    steps = [at for at, _ in history]
    if steps != sorted(steps):
        yield f"its history goes back, from step {next(a for a, b in pairwise(steps) if b < a)}"
    elif steps and _below(step, steps[-1]):
        yield f"its history goes up to step {steps[-1]}, but it is at step {step}"
    elif steps and _differ(history[-1][1], miou):
        yield f"its mIoU is {miou}, the last of its history {history[-1][1]}"
    ious = [value for value in (iou or {}).values() if value is not None]
    if ious and miou is not None and _differ(miou, sum(ious) / len(ious)):
        mean = f"{sum(ious) / len(ious):.2f}"
        yield f"its mIoU is {miou}, the mean of its {len(ious)} IoUs {mean} (null leaves one out)"


def _below(a: float | None, b: float | None, by: float = 0) -> bool:
    return a is not None and b is not None and a < b - by


def _differ(a: float | None, b: float | None) -> bool:
    return a != b and (a is None or b is None or abs(a - b) > _ROUNDING)
