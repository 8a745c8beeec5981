"""How fast the trained models are that have been measured (``vfm-ss test --fps``)."""

from statistics import median

import pandas as pd

_COLUMNS = ("setting", "vfm", "measured", "miou", "images_per_second", "latency_seconds")
_COLUMNS += ("peak_memory_mb", "runs", "front")


def speeds(cells: pd.DataFrame) -> pd.DataFrame:
    """List score and speed, apart for each way of measuring.

    Args:
        cells: Result of `ranking.scores`.

    Returns:
        One row per way of measuring (device, precision, image size, batch size, in words as
        ``measured``), setting and VFM: ``miou`` is the mean over all runs of the cell, speeds and
        memory are medians over the ``runs`` that were measured. ``front``: no model measured in
        the same way under the same setting is faster and has a higher mIoU.
    """
    rows = []
    for (setting, vfm), cell in cells.iterrows():
        found: dict[str, list[dict]] = {}
        for run in cell["runs"]:
            speed = getattr(run.record, "speed", None)
            if speed is not None and speed["images_per_second"] is not None:
                found.setdefault(_measured(speed), []).append(speed)
        for words, several in found.items():
            middle = {
                key: _median(speed[key] for speed in several)
                for key in ("images_per_second", "latency_seconds", "peak_memory_mb")
            }
            rows.append(
                {
                    **{"setting": setting, "vfm": vfm, "measured": words, "miou": cell["mean"]},
                    **middle,
                    "runs": len(several),
                }
            )
    table = pd.DataFrame(rows, columns=_COLUMNS).astype(object)
    table["front"] = [
        not any(
            other["miou"] > row["miou"] and other["images_per_second"] > row["images_per_second"]
            for other in rows
            if (other["setting"], other["measured"]) == (row["setting"], row["measured"])
        )
        for row in rows
    ]
    return table.where(table.notna(), None)


def _measured(speed: dict) -> str:
    """Say how a speed was measured; speeds are compared where this is equal."""
    size = " x ".join(map(str, speed["image_size"] or ["?"]))
    return (
        f"{speed['device'] or 'unknown device'}, {speed['precision'] or 'unknown precision'}, "
        f"{size} pixels, batches of {speed['batch_size'] or '?'}"
    )


def _median(values) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
