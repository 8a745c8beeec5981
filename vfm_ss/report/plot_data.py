"""The numbers behind the page's interactive plots, as plain data for its script."""

import math

import pandas as pd

from vfm_ss.ranking.analysis import Analysis
from vfm_ss.ranking.cost import model_costs
from vfm_ss.ranking.speed import speeds
from vfm_ss.report.interaction_tables import pair_title
from vfm_ss.report.table_data import title

_MAX_POINTS = 200  # of a learning curve


def plot_data(a: Analysis, target: str) -> dict:
    """Return everything that the plots show; a gap is None.

    Models and settings are referred to by their place in ``vfms`` and ``settings``.

    Args:
        a: The analysis.
        target: Setting whose prediction is shown first.
    """
    vfms, settings = list(a.means.index), a.settings
    std = a.cells["std"].unstack("setting").reindex(index=vfms, columns=settings)
    ranks = pd.DataFrame({s: a.models[s].set_index("vfm")["rank"] for s in settings})
    return {
        "vfms": vfms,
        "settings": [title(s) for s in settings],
        "baseline": settings.index(a.baseline),
        "target": settings.index(target),
        "mean": _columns(a.means),
        "std": _columns(std),
        "rank": _columns(ranks.reindex(index=vfms, columns=settings)),
        "matrix": _columns(a.taus.loc[settings, settings]),
        "taus": [
            {
                "label": title(c.setting)
                + ("" if c.baseline == a.baseline else f", vs {title(c.baseline)}"),
                "tau": c.agreement.tau,
                "interval": c.interval,
                "paper": c.paper_tau,
                "n": c.agreement.n,
            }
            for c in a.comparisons
        ],
        "predict": [
            [
                {
                    "settings": [settings.index(s) for s in row.settings],
                    "cost": _gap(row.cost),
                    "tau": _gap(row.tau),
                    "front": bool(row.front),
                }
                for row in a.predictions[s].itertuples()
            ]
            for s in settings
        ],
        "curves": [_curves(a, s, vfms) for s in settings],
        "interactions": [
            {
                "label": pair_title(i),
                "vfm": [vfms.index(vfm) for vfm in i.scores.index],
                "predicted": i.scores["predicted"].to_list(),
                "measured": i.scores["measured"].to_list(),
            }
            for i in a.interactions
        ],
        "speeds": _series(a, speeds(a.cells), "measured", "images_per_second"),
        "times": _series(a, model_costs(a.cells), "device", "train_seconds"),
        "classes": [_class_iou(a, s, vfms) for s in settings],
    }


def _series(a: Analysis, table: pd.DataFrame, apart: str, x: str) -> list[dict]:
    """Return scores against a column: a series for each setting and value of ``apart``."""
    several = table[apart].nunique() > 1
    vfms = list(a.means.index)
    return [
        {
            "label": f"{title(setting)}, {value}" if several else title(setting),
            "vfm": [vfms.index(vfm) for vfm in rows["vfm"]],
            "x": [float(v) for v in rows[x]],
            "miou": [float(v) for v in rows["miou"]],
            "std": [_gap(a.cells.loc[(setting, vfm), "std"]) for vfm in rows["vfm"]],
        }
        for (setting, value), rows in table.groupby(["setting", apart], sort=False)
    ]


def _columns(frame: pd.DataFrame) -> list[list]:
    return [[_gap(value) for value in frame[column]] for column in frame]


def _gap(value) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _curves(a: Analysis, setting: str, vfms: list[str]) -> list[dict]:
    """Validations of every run that had several; of very many, evenly spaced ones and the last."""
    curves = []
    for vfm, runs in a.cells.loc[setting, "runs"].items():
        for run in runs:
            history = list((run.record and run.record.history) or [])
            if len(history) < 2:
                continue
            every = math.ceil(len(history) / _MAX_POINTS)
            shown = history[::-every][::-1]
            curves.append(
                {
                    "vfm": vfms.index(vfm),
                    "seed": run.seed,
                    "steps": [step for step, _ in shown],
                    "miou": [_gap(miou) for _, miou in shown],
                }
            )
    return sorted(curves, key=lambda c: c["vfm"])


def _class_iou(a: Analysis, setting: str, vfms: list[str]) -> dict | None:
    """Mean IoU over seeds of every class and VFM; None where no run says."""
    sums: dict[str, dict[str, list[float]]] = {}
    for vfm, runs in a.cells.loc[setting, "runs"].items():
        for run in runs:
            for name, iou in ((run.record and run.record.iou) or {}).items():
                values = sums.setdefault(name, {}).setdefault(vfm, [])
                if iou is not None:
                    values.append(iou)
    if not sums:
        return None
    return {
        "names": list(sums),
        "iou": [
            [round(sum(v) / len(v), 2) if (v := by.get(vfm)) else None for by in sums.values()]
            for vfm in vfms
        ],
    }
