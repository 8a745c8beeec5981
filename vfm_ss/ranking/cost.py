"""What a setting costs: training time relative to the baseline, and trainable parameters."""

from statistics import median

import pandas as pd


def costs(cells: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Compare the settings' costs (the paper's Table 3).

    Every VFM is compared with itself under the baseline, and only where both ran on the same kind
    of device and the same number of processes; a setting's ratio is the median over its VFMs.

    Args:
        cells: Result of `ranking.scores`.
        baseline: The setting to compare with.

    Returns:
        One row per setting: ``step_seconds`` and ``train_seconds`` (medians over VFMs),
        ``step_ratio``, ``time_ratio`` (of the whole training), ``timed`` (number of VFMs
        compared), ``other_device`` (VFMs left out because the device differs), ``params``
        (trainable, median over VFMs) and ``params_change``. What is not known is None.
    """
    known = {key: _cell(runs) for key, runs in cells["runs"].items()}
    reference = {vfm: cell for (setting, vfm), cell in known.items() if setting == baseline}
    rows = {}
    for setting in cells.index.unique("setting"):
        own = {vfm: cell for (s, vfm), cell in known.items() if s == setting}
        pairs = [(own[vfm], reference[vfm]) for vfm in own if vfm in reference]
        same = [(a, b) for a, b in pairs if a["device"] == b["device"]]
        rows[setting] = {
            "step_seconds": _median(cell["step_seconds"] for cell in own.values()),
            "train_seconds": _median(cell["train_seconds"] for cell in own.values()),
            "step_ratio": _ratio(same, "step_seconds"),
            "time_ratio": _ratio(same, "train_seconds"),
            "timed": sum(None not in (a["train_seconds"], b["train_seconds"]) for a, b in same),
            "other_device": len(pairs) - len(same),
            "params": _median(cell["params"] for cell in own.values()),
            "params_change": _median(
                a["params"] - b["params"]
                for a, b in pairs
                if None not in (a["params"], b["params"])
            ),
        }
    columns = next(iter(rows.values()))
    return pd.DataFrame(  # of objects, so that None stays None
        {c: pd.Series({s: row[c] for s, row in rows.items()}, dtype=object) for c in columns}
    )


def model_costs(cells: pd.DataFrame) -> pd.DataFrame:
    """List score and training time of every VFM under every setting, where the time is known.

    Args:
        cells: Result of `ranking.scores`.

    Returns:
        ``setting``, ``vfm``, ``miou`` (mean), ``train_seconds`` and ``params`` (trainable; medians
        over the seeds), and in words ``device``: times on different ones cannot be compared.
    """
    rows = []
    for (setting, vfm), cell in cells.iterrows():
        known = _cell(cell["runs"])
        if known["train_seconds"] is not None:
            devices = (
                f"{device or 'unknown device'}{f' x {size}' if (size or 1) > 1 else ''}"
                for device, size in known["device"]
            )
            device = " and ".join(sorted(devices))
            row = {"setting": setting, "vfm": vfm, "miou": cell["mean"], "device": device}
            rows.append({**row, "train_seconds": known["train_seconds"], "params": known["params"]})
    return pd.DataFrame(
        rows, columns=["setting", "vfm", "miou", "device", "train_seconds", "params"]
    )


def _cell(runs: list) -> dict:
    """Median over the seeds of one VFM under one setting."""
    records = [run.record for run in runs if run.record is not None]
    return {
        "step_seconds": _median(r.step_seconds for r in records),
        # A run that was stopped early does not tell what the whole training takes.
        "train_seconds": _median(r.train_seconds for r in records if not r.stopped_early),
        "params": _median(r.trainable_params for r in records),
        "device": {(r.device, r.world_size) for r in records},
    }


def _ratio(pairs: list, field: str) -> float | None:
    return _median(a[field] / b[field] for a, b in pairs if None not in (a[field], b[field]))


def _median(values) -> float | None:
    values = [value for value in values if value is not None]
    return median(values) if values else None
