"""Scores of further data sets in a run's record: one entry for each set, never a mix of two."""

from collections.abc import Mapping

from vfm_ss.protocol.records import Record

Scores = dict[str, dict]


def with_score(
    scores: Scores, name: str, config: Mapping, step: int, miou: float | None, iou: dict | None
) -> Scores:
    """Add a score; another one of the same set at the same step is replaced.

    Args:
        scores: What is known, by the sets' names.
        name: Name of the set.
        config: What identifies the set and how it is evaluated. What is known of a set of the same
            name that was another one is dropped.
        step: Optimiser steps of the model.
        miou: Its score in percent, None where there is none.
        iou: IoU of each class.

    Returns:
        All scores, as a new dict.
    """
    found = scores.get(name) or {}
    if found.get("config") != dict(config):
        found = {}
    rows = dict(map(tuple, found.get("history") or ())) | {step: miou}
    last = found if found.get("step", -1) > step else {"iou": iou, "step": step}
    return scores | {
        name: {
            "history": [[at, rows[at]] for at in sorted(rows)],
            "config": dict(config),
            "iou": last["iou"],
            "step": last["step"],
        }
    }


def at_step(scores: Scores, step: int) -> Scores | None:
    """Return what a record holds after a step: scores of an earlier model are history alone.

    Args:
        scores: As of `with_score`.
        step: The record's step; later rows are left out.
    """
    held = {}
    for name, found in scores.items():
        rows = [row for row in found.get("history") or () if row[0] <= step]
        if not rows:
            continue
        held[name] = {
            "miou": dict(map(tuple, rows)).get(step),
            "iou": found.get("iou") if found.get("step") == step else None,
            "history": rows,
            "config": found.get("config"),
        }
    return held or None


def taken_up(record: Record) -> Scores:
    """Return the scores that a record holds, as `with_score` takes them."""
    return {
        name: {
            "history": [list(row) for row in found.get("history") or ()],
            "config": found.get("config"),
            "iou": found.get("iou"),
            "step": record.step,
        }
        for name, found in (record.evaluations or {}).items()
    }


def joined(scores: Scores, others: Scores) -> Scores:
    """Join two states of a run's scores; the second one's count where both have some."""
    result = dict(scores)
    for name, other in others.items():
        found = scores.get(name) or {}
        if found.get("config") == other.get("config"):
            rows = dict(map(tuple, found["history"])) | dict(map(tuple, other["history"]))
            other = other | {"history": [[at, rows[at]] for at in sorted(rows)]}
        result[name] = other
    return result
