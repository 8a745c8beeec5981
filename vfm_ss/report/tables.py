"""What the report's tables say."""

from vfm_ss.protocol.settings import SETTINGS
from vfm_ss.protocol.vfms import VFMS
from vfm_ss.ranking.analysis import Analysis, Comparison
from vfm_ss.ranking.speed import speeds
from vfm_ss.ranking.uncertainty import DRAWS
from vfm_ss.report.interaction_tables import interaction_tables
from vfm_ss.report.table_data import (
    Column,
    Table,
    Value,
    certainty,
    digits,
    duration,
    interval,
    millions,
    of_setting,
    p_value,
    text,
    title,
)
from vfm_ss.text import printable

_FACTS = ("licence", "data", "objective", "supervision", "tokens")


def summary(a: Analysis) -> str:
    """One sentence on what was ranked."""
    return (
        f"{count(len(a.runs), 'run')}: {count(len(a.means), 'model')} under "
        f"{count(len(a.settings), 'setting')}, ranked by the {a.metric} validation."
    )


def winner(a: Analysis) -> str:
    """One sentence on the best model."""
    first = a.models[a.baseline].iloc[0]
    spread = "" if first.miou_std is None else f" ± {first.miou_std:.2f}"
    return f"Best under {title(a.baseline)}: {first.vfm}, {first.miou_mean:.2f}{spread} % mIoU."


def count(n: int, what: str) -> str:
    """Return '1 run', '2 runs'."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def tau_table(a: Analysis) -> Table:
    """Kendall's tau of every setting against the baseline (the paper's Figure 1)."""
    rows = []
    for c in a.comparisons:
        values = [c.agreement.n, c.agreement.tau, c.interval, c.agreement.p_value, c.paper_tau]
        linked = [Value(value, c.setting) for value in values[:-1]]
        rows.append([c.setting, c.baseline, *linked, values[-1], _remarks(c)])
    return Table(
        "tau",
        "Does the ranking change?",
        [
            of_setting("setting", "Setting"),
            of_setting("baseline", "Against"),
            Column("n", "Models"),
            Column("tau", "Kendall's τ", digits(2)),
            Column("tau_ci", "95 % interval", interval),
            Column("p_value", "p", p_value),
            Column("paper_tau", "Paper's τ", digits(2)),
            text("remarks", "Remarks"),
        ],
        rows,
        "τ = 1: same ranking; 0: unrelated; −1: reversed. The interval tells how far other seeds "
        f"could move τ ({DRAWS:,} bootstrap draws); the p-value how often unrelated rankings agree "
        "or disagree this much by chance.",
    ).without_empty("paper_tau", "remarks")


def _remarks(c: Comparison) -> str:
    remarks = []
    a = c.agreement
    if a.tau is None:
        remarks.append("too few common models" if a.n < 2 else "all models tied on one side")
    if a.ties:
        method = "tau-b, p-value approximate" if a.tau is not None else "no order"
        remarks.append(f"{a.ties} tied {'pair' if a.ties == 1 else 'pairs'} ({method})")
    if c.missing:
        remarks.append(f"not yet under this setting: {', '.join(c.missing)}")
    if c.extra:
        remarks.append(f"not under {c.baseline}: {', '.join(c.extra)}")
    return "; ".join(remarks)


def overview_table(a: Analysis) -> Table:
    """Mean mIoU of every VFM under every setting."""
    columns = [Column(s, title(s), digits(2)) for s in a.settings]
    std = a.cells["std"].dropna().to_dict()
    rows = [
        [
            vfm,
            *(
                Value(row[s], s, vfm, std.get((s, vfm))) if row[s] == row[s] else None
                for s in a.settings
            ),
        ]
        for vfm, row in a.means.iterrows()
    ]
    which = "last" if a.metric == "last" else "best"
    return Table(
        "miou",
        "Mean IoU",
        [text("vfm", "Model"), *columns],
        rows,
        f"Percent, mean ± standard deviation over seeds of the {which} validation; the best under "
        f"{title(a.baseline)} first.",
    )


def models_table(a: Analysis, setting: str) -> Table:
    """The ranking under one setting."""
    rows = []
    for row in a.models[setting].itertuples():
        own = [Value(v, setting, row.vfm) for v in (row.miou_mean, row.miou_std, row.seeds)]
        base = Value(row.baseline_rank, a.baseline, row.vfm)
        rows.append([Value(row.rank, setting, row.vfm), row.vfm, *own, base, row.shift])
    drop = setting == a.baseline
    columns = [
        Column("rank", "Rank"),
        text("vfm", "Model"),
        Column("miou_mean", "mIoU", digits(2)),
        Column("miou_std", "Std", digits(2)),
        Column("seeds", "Seeds"),
        Column("baseline_rank", f"Rank, {title(a.baseline)}"),
        Column("shift", "Shift", digits(0, sign=True)),
    ]
    if drop:
        columns, rows = columns[:-2], [row[:-2] for row in rows]
    gaps = None in a.models[setting]["shift"].to_list()
    note = "Shift counts ranks among the models finished under both settings." if gaps else ""
    return Table(f"models-{setting}", title(setting), columns, rows, "" if drop else note)


def cost_table(a: Analysis) -> Table:
    """Training time and trainable parameters (the paper's Table 3)."""
    rows = []
    for setting, cost in a.costs.iterrows():
        known = SETTINGS.get(setting)
        paper = [known.paper_time, known.paper_params] if known else [None, None]
        keys = ("step_seconds", "step_ratio", "train_seconds", "time_ratio")
        keys += ("params", "params_change")
        rows.append([setting, *(Value(cost[key], setting) for key in keys), *paper])
    if a.costs[["step_seconds", "train_seconds", "params"]].isna().all(axis=None):
        rows = []
    left_out = int(a.costs["other_device"].sum())
    note = (
        f"Medians over models; × compares every model with itself under {title(a.baseline)}, on "
        "the same device and number of processes only."
    )
    if any(setting in SETTINGS for setting in a.settings):
        note += " The paper's parameters are DINOv2's."
    if left_out:
        note += f" {left_out} comparisons between different devices are left out."
    return Table(
        "cost",
        "What does it cost?",
        [
            of_setting("setting", "Setting"),
            Column("step_seconds", "Per step", duration),
            Column("step_ratio", "×", digits(2)),
            Column("train_seconds", "Training", duration),
            Column("time_ratio", "×", digits(2)),
            Column("params", "Trainable", millions),
            Column("params_change", "Change", lambda v: f"{digits(1, sign=True)(v / 1e6)} M"),
            Column("paper_time", "Paper's ×", digits(1)),
            Column("paper_params", "Paper's trainable", lambda v: f"{v:g} M"),
        ],
        rows,
        note,
    ).without_empty("paper_time", "paper_params")


def speed_table(a: Analysis) -> Table:
    """Score and speed of the trained models that were measured."""
    found, std = speeds(a.cells), a.cells["std"].dropna().to_dict()
    rows = [
        [
            r.setting,
            r.vfm,
            Value(r.miou, r.setting, r.vfm, std.get((r.setting, r.vfm))),
            *(r.images_per_second, r.latency_seconds, r.peak_memory_mb, r.runs),
            "yes" if r.front else "no",
            r.measured,
        ]
        for r in found.itertuples()
    ]
    return Table(
        "speed",
        "How fast are the trained models?",
        [
            of_setting("setting", "Setting"),
            text("vfm", "Model"),
            Column("miou", "mIoU", digits(2)),
            Column("images_per_second", "Images/s", digits(1)),
            Column("latency_seconds", "One image", lambda v: f"{1000 * v:.1f} ms"),
            Column("peak_memory_mb", "Peak memory", lambda v: f"{v:,.0f} MiB"),
            Column("runs", "Runs"),
            text("front", "Front"),
            text("measured", "Measured on"),
        ],
        rows,
        "As `vfm-ss test --fps` measured it, without reading and resizing of images. Front: no "
        "model of the setting that was measured in the same way is both faster and better.",
    )


def matrix_table(a: Analysis) -> Table:
    """Kendall's tau between all settings."""
    rows = [
        [s, *(None if s == t else Value(a.taus.loc[s, t], s) for t in a.settings)]
        for s in a.settings
    ]
    columns = [Column(s, title(s), digits(2)) for s in a.settings]
    return Table(
        "tau-matrix", "τ between all settings", [of_setting("setting", ""), *columns], rows
    )


def prediction_table(a: Analysis, target: str, brief: bool = False) -> Table:
    """Which sets of settings predict the ranking under ``target``, the Pareto front first."""
    every = a.predictions[target]
    table = every.sort_values(["front", "tau", "cost"], ascending=[False, False, True])
    front = int(every["front"].sum())
    table = table.head((front or 8) if brief else max(front, 150))
    table = table.sort_values(["front", "cost"], ascending=[False, True], kind="stable")
    rows = [
        [" + ".join(map(title, r.settings)), r.cost, r.tau, r.n, "yes" if r.front else "no"]
        for r in table.itertuples()
    ]
    note = (
        f"How well the other settings predict the ranking under {title(target)}: their mean "
        "standardised score against its mIoU. Time is relative to "
        f"{title(a.baseline)}. Found and judged on the same models, so slightly optimistic."
    )
    if len(table) < len(every):
        note += f" The best {len(table)} of {len(every):,} sets."
    if table.empty:
        note = "Needs at least three models finished under this and other settings."
    elif not front:
        note += " Training times are not known, so there is no front of time against τ."
    return Table(
        f"predict-{target}",
        f"Which settings predict {title(target)}?",
        [
            text("settings", "Benchmark with"),
            Column("cost", "Time ×", digits(2)),
            Column("tau", "τ to target", digits(2)),
            Column("n", "Models"),
            text("front", "Best for its time"),
        ],
        rows,
        note,
    )


def certainty_table(a: Analysis, below: float = 1.0) -> Table:
    """Pairs whose order could change with other seeds."""
    rows = []
    for setting, pairs in a.certainty.items():
        if pairs is None:
            continue
        for pair in pairs[pairs["certainty"] < below].itertuples():
            values = [Value(v, setting, pair.higher) for v in (pair.difference, pair.certainty)]
            rows.append([setting, pair.higher, pair.lower, *values])
    unknown = [title(s) for s, pairs in a.certainty.items() if pairs is None]
    note = "How often the higher model stays ahead when the seeds are drawn again."
    if below < 1:
        note += f" Only pairs below {100 * below:g} %."
    if unknown:
        note += f" Too few seeds to say for: {', '.join(unknown)}."
    return Table(
        "certainty",
        "How sure is the order?",
        [
            of_setting("setting", "Setting"),
            text("higher", "Higher"),
            text("lower", "Lower"),
            Column("difference", "Difference", digits(2)),
            Column("certainty", "Certainty", certainty),
        ],
        rows,
        note,
    )


def outside_table(a: Analysis) -> Table:
    """Agreement with scores from outside."""
    rows = [
        [score, setting, b.n, b.tau, b.p_value]
        for score, settings in a.outside.items()
        for setting, b in settings.items()
    ]
    return Table(
        "outside",
        "Do numbers from elsewhere predict the ranking?",
        [
            text("score", "Score"),
            of_setting("setting", "Setting"),
            Column("n", "Models"),
            Column("tau", "Kendall's τ", digits(2)),
            Column("p_value", "p", p_value),
        ],
        rows,
    )


def vfms_table(a: Analysis) -> Table:
    """What the ranked VFMs were pretrained on, and what their weights may be used for."""
    rows = [
        [key, VFMS[key].year, *(getattr(VFMS[key], fact) for fact in _FACTS)]
        for key in a.means.index
        if key in VFMS
    ]
    facts = [text(fact, fact.capitalize()) for fact in _FACTS]
    return Table(
        "vfms",
        "The models",
        [text("vfm", "Model"), Column("year", "Year"), *facts],
        rows,
        "Licence of the weights. A gap is a fact that we have not read in a source.",
    )


def runs_table(a: Analysis) -> Table:
    """Every run behind the numbers."""
    rows = []
    for run in a.runs:
        record = run.record
        known = [None] * 4
        if record is not None:
            known = [record.best_miou, record.max_steps, record.train_seconds, record.device]
        rows.append([run.setting, run.vfm, run.seed, run.miou, *known, printable(run.path)])
    return Table(
        "runs",
        "Runs",
        [
            of_setting("setting", "Setting"),
            text("vfm", "Model"),
            Column("seed", "Seed"),
            Column("miou", "mIoU", digits(2)),
            Column("best_miou", "Best", digits(2)),
            Column("steps", "Steps", digits(0)),
            Column("train_seconds", "Training", duration),
            text("device", "Device"),
            text("path", "Read from"),
        ],
        rows,
    )


def skipped_table(a: Analysis) -> Table:
    """Files that were not used, and why."""
    rows = [[printable(s.path), printable(s.reason)] for s in a.skipped]
    return Table("skipped", "Not used", [text("path", "File"), text("reason", "Reason")], rows)


def all_tables(a: Analysis, target: str, brief: bool = False) -> list[Table]:
    """Return the report's tables in order, those without rows left out.

    Args:
        a: The analysis.
        target: Setting whose ranking is to be predicted.
        brief: Whether to show the essence of the long ones only, and no single runs.
    """
    tables = [
        tau_table(a),
        overview_table(a),
        *(models_table(a, setting) for setting in a.settings),
        cost_table(a),
        speed_table(a),
        matrix_table(a),
        *interaction_tables(a, brief),
        prediction_table(a, target, brief),
        certainty_table(a, below=0.95 if brief else 1.0),
        outside_table(a),
        *([] if brief else [vfms_table(a)]),
        *([] if brief else [runs_table(a)]),
        skipped_table(a),
    ]
    alone = ("tau-matrix", f"predict-{target}") if len(a.settings) < 3 else ()
    return [table for table in tables if table.rows and table.key not in alone]
