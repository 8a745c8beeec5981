"""Everything that a report says, computed once from the runs."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from vfm_ss.protocol.records import Record
from vfm_ss.protocol.runs import Run, Skipped
from vfm_ss.protocol.settings import SETTINGS
from vfm_ss.ranking.agreement import Agreement, agreement, find_baseline, rank_shift, ranks, scores
from vfm_ss.ranking.cost import costs
from vfm_ss.ranking.factors import in_domain, setting_factors, shared_trainings
from vfm_ss.ranking.interaction import Interaction, interactions
from vfm_ss.ranking.prediction import predict_target
from vfm_ss.ranking.uncertainty import Noise, noise, order_certainty, tau_interval
from vfm_ss.ranking.variance import Variance, variances


@dataclass(frozen=True)
class Comparison:
    """One setting against another.

    Attributes:
        setting: The setting.
        baseline: What it is compared with.
        agreement: Kendall's tau and what belongs to it.
        interval: 95 % confidence interval of tau, None where seeds are too few.
        missing: VFMs finished under the baseline only.
        extra: VFMs finished under the setting only.
        paper_tau: The paper's tau for the same comparison, if it published one.
    """

    setting: str
    baseline: str
    agreement: Agreement
    interval: tuple[float, float] | None
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    paper_tau: float | None


@dataclass(frozen=True)
class Analysis:
    """The result of ranking.

    Attributes:
        baseline: The setting that others are compared with.
        metric: ``'last'`` or ``'best'`` validation.
        cells: Scores per setting and VFM, see `ranking.scores`.
        means: Mean scores, VFMs in rows (best under the baseline first), settings in columns.
        models: Per setting, a table by rank: ``vfm``, ``miou_mean``, ``miou_std``, ``seeds``,
            ``rank``, ``baseline_rank``, ``shift``; gaps are None.
        comparisons: Every setting against the baseline, then shifted ones against those without
            the shift.
        taus: tau between all settings.
        costs: See `cost.costs`.
        certainty: Per setting, how sure the order of every pair is; see `order_certainty`.
        predictions: Per target setting, see `prediction.predict_target`.
        interactions: Pairs of changes of the baseline that were also made together.
        variances: What scores vary with, for every pair of factors that vary together.
        outside: Per outside score and setting, their agreement.
        skipped: Files that were not used.
        notes: What a reader has to know of this set of runs.
    """

    baseline: str
    metric: str
    cells: pd.DataFrame
    means: pd.DataFrame
    models: dict[str, pd.DataFrame]
    comparisons: list[Comparison]
    taus: pd.DataFrame
    costs: pd.DataFrame
    certainty: dict[str, pd.DataFrame | None]
    predictions: dict[str, pd.DataFrame]
    interactions: list[Interaction] = field(default_factory=list)
    variances: list[Variance] = field(default_factory=list)
    outside: dict[str, dict[str, Agreement]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def settings(self) -> list[str]:
        """The settings, in the order of the reports."""
        return list(self.means.columns)

    @property
    def costliest(self) -> str:
        """The setting that trains longest; the last one where no time is known."""
        time = self.costs["time_ratio"].dropna()
        return max(time.index, key=time.get) if len(time) else self.settings[-1]

    @property
    def runs(self) -> list[Run]:
        """All runs, by setting and VFM."""
        return [run for runs in self.cells["runs"] for run in runs]


def analyse(
    runs: Iterable[Run],
    baseline: str = "default",
    metric: str = "last",
    outside: dict[str, dict[str, float]] | None = None,
    skipped: Iterable[Skipped] = (),
    notes: Iterable[str] = (),
) -> Analysis:
    """Rank the models of every setting and compare the settings.

    Args:
        runs: Finished runs, separated by configuration and without duplicates, at least one; see
            `separation.separate`.
        baseline: Setting to compare with; see `ranking.find_baseline`.
        metric: What the runs' scores are, ``'last'`` or ``'best'``.
        outside: Scores from outside, ``{score: {vfm: value}}``.
        skipped: Files that were not used, to be named in reports.
        notes: What reports shall say first.

    Raises:
        ValueError: If there is no run, or none under the baseline.
    """
    cells = scores(runs)
    if cells.empty:
        raise ValueError("no finished run to rank")
    asked, baseline = baseline, find_baseline(cells, baseline)
    settings = list(cells.index.unique("setting"))
    means = cells["mean"].unstack("setting")[settings]
    means = means.sort_values([baseline, *settings], ascending=False, kind="stable")
    scatter = {name: noise(cells.loc[name]) for name in settings}
    known = setting_factors(cells)
    pairs = [(name, baseline) for name in settings]
    pairs += [(name, other) for name in settings for other in in_domain(name, known)]
    price, trainings = costs(cells, baseline), shared_trainings(cells)
    return Analysis(
        baseline=baseline,
        metric=metric,
        cells=cells,
        means=means,
        models={name: _models(cells, name, baseline) for name in settings},
        comparisons=[_compare(means, scatter, *p) for p in dict.fromkeys(pairs) if len({*p}) == 2],
        taus=pd.DataFrame(
            {a: {b: agreement(*_columns(means, a, b)).tau for b in settings} for a in settings},
            dtype=float,
        ),
        costs=price,
        certainty={name: order_certainty(scatter[name]) for name in settings},
        predictions={
            name: predict_target(means, price["time_ratio"], name, trainings) for name in settings
        },
        interactions=interactions(means, scatter, known, baseline),
        variances=variances(cells, scatter, known, baseline),
        outside={
            score: {
                s: agreement(means[s].dropna(), pd.Series(values, dtype=float)) for s in settings
            }
            for score, values in (outside or {}).items()
        },
        skipped=list(skipped),
        notes=[*notes, *_notes(cells, asked, baseline)],
    )


def _columns(means: pd.DataFrame, a: str, b: str) -> tuple[pd.Series, pd.Series]:
    return means[a].dropna(), means[b].dropna()


def _models(cells: pd.DataFrame, setting: str, baseline: str) -> pd.DataFrame:
    own, base = cells.loc[setting], cells.loc[baseline]
    table = pd.DataFrame(
        {
            "miou_mean": own["mean"],
            "miou_std": own["std"],
            "seeds": own["seeds"],
            "rank": ranks(own["mean"]),
            "baseline_rank": ranks(base["mean"]),
            "shift": rank_shift(own["mean"], base["mean"]),
        },
        index=own.index.union(base.index),
    )
    table = table.sort_values(["rank", "baseline_rank"], kind="stable")
    table["seeds"] = table["seeds"].fillna(0)
    table = table.astype(object).where(table.notna(), None)
    for column in ("seeds", "rank", "baseline_rank", "shift"):
        table[column] = [None if v is None else int(v) for v in table[column]]
    table = table.astype(object).where(table.notna(), None)
    return table.rename_axis("vfm").reset_index()


def _compare(
    means: pd.DataFrame, scatter: dict[str, Noise], setting: str, baseline: str
) -> Comparison:
    x, y = _columns(means, setting, baseline)
    common = list(x.index.intersection(y.index))
    published = SETTINGS[setting].paper_tau if setting in SETTINGS else {}
    return Comparison(
        setting,
        baseline,
        agreement(x, y),
        tau_interval(scatter[setting].only(common), scatter[baseline].only(common)),
        missing=tuple(y.index.difference(x.index)),
        extra=tuple(x.index.difference(y.index)),
        paper_tau=published.get(baseline),
    )


def _notes(cells: pd.DataFrame, asked: str, baseline: str) -> list[str]:
    notes = []
    if asked != baseline:
        notes.append(
            f"No run under the setting {asked!r}; the baseline is {baseline!r}, the closest to it."
        )
    single = (cells["seeds"] < 2).all()
    if single:
        notes.append("One seed only, so no standard deviation.")
    for setting in cells.index.unique("setting"):
        rows = cells.loc[setting]
        few = [vfm for vfm, seeds in rows["seeds"].items() if seeds < 2]
        if few and not single:
            notes.append(f"{setting}: one seed only, so no standard deviation, for {_list(few)}.")
        records = [r.record for runs in rows["runs"] for r in runs if r.record is not None]
        notes += _class_notes(setting, records)
        found = {r.precision for r in records} - {None}
        if len(found) > 1:  # of one configuration, on different devices
            notes.append(
                f"{setting}: runs differ in precision ({_list(sorted(found))}); "
                "their scores may not be comparable."
            )
        notes += [f"{setting}: {text}" for record in records for text in _remarks(record)]
    return notes


def _remarks(record: Record) -> list[str]:
    """Return what a run's own record says against comparing it."""
    run = record.vfm + ("" if record.seed is None else f" with seed {record.seed}")
    early = f"stopped early, at step {record.step} of {record.max_steps}."
    return [f"{run}: {text}" for text in [*[early] * bool(record.stopped_early), *record.remarks]]


def _class_notes(setting: str, records: list[Record]) -> list[str]:
    """Name the classes without an IoU: the labels of the validation lack them."""
    notes, left_out, counts = [], {}, set()
    for record in records:
        if record.iou:
            absent = tuple(name for name, value in record.iou.items() if value is None)
            counts.add(len(record.iou) - len(absent))
            left_out.setdefault((len(record.iou), absent), {})[record.vfm] = True
    if len(counts) > 1:
        numbers = _list(map(str, sorted(counts)))
        notes.append(
            f"{setting}: NOT COMPARABLE: the mean is over {numbers} classes in different runs."
        )
    for (total, absent), vfms in left_out.items():
        if absent:
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            notes.append(
                f"{setting}: {total - len(absent)} of {total} classes in the mean, for "
                f"{_list(vfms)}; in neither labels nor predictions: {_list(absent[:5])}{more}."
            )
    return notes


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
