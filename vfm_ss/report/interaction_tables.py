"""The tables of "Do settings interact?"."""

from vfm_ss.ranking.analysis import Analysis
from vfm_ss.ranking.interaction import Interaction
from vfm_ss.ranking.variance import Variance
from vfm_ss.report.table_data import (
    Column,
    Table,
    Value,
    digits,
    interval,
    p_value,
    percent,
    text,
    title,
)


def pair_title(i: Interaction) -> str:
    """Name two changes."""
    return f"{title(i.first)} × {title(i.second)}"


def interaction_tables(a: Analysis, brief: bool = False) -> list[Table]:
    """Return the section's tables.

    Args:
        a: The analysis.
        brief: Whether to leave out the scores of single models.
    """
    tables = [interaction_table(a), additive_table(a), variance_table(a)]
    return tables if brief else [*tables, additive_scores_table(a)]


def interaction_table(a: Analysis) -> Table:
    """What two changes do alone and together, and what adding them up predicts."""
    rows = []
    for i in a.interactions:
        sides = {
            "first": (f"A: {title(i.first)}", i.first),
            "second": (f"B: {title(i.second)}", i.second),
            "both": (f"A and B: {title(i.both)}", i.both),
            "additive": ("A + B, predicted", None),
        }
        for name, (label, setting) in sides.items():
            tau = i.taus[name]
            values = [i.changes[name], tau.agreement.tau, tau.interval, len(i.scores)]
            linked = [Value(value, setting) if setting else value for value in values]
            rows.append([pair_title(i), label, *linked])
    return Table(
        "interactions",
        "Do settings interact?",
        [
            text("pair", "Changes"),
            text("setting", "Made"),
            Column("change", "Change of mIoU", digits(2, sign=True)),
            Column("tau", f"τ to {title(a.baseline)}", digits(2)),
            Column("tau_ci", "95 % interval", interval),
            Column("n", "Models"),
        ],
        rows,
        f"Two changes of {title(a.baseline)}, alone and together, over the models finished under "
        "all four settings. Predicted: every model changes by A and by B. If changes add up, the "
        "last two lines of a pair agree.",
    )


def additive_table(a: Analysis) -> Table:
    """How far off the additive prediction is."""
    rows = []
    for i in a.interactions:
        worst = i.scores["error"].abs().idxmax()
        rows.append(
            [
                pair_title(i),
                *(Value(value, i.both) for value in (*i.bias, *i.rmse)),
                i.seeds_rmse,
                i.predicted_tau.agreement.tau,
                i.predicted_tau.interval,
                worst,
                Value(float(i.scores.loc[worst, "error"]), i.both, worst),
            ]
        )
    return Table(
        "additive",
        "How far off is the sum of two changes?",
        [
            text("pair", "Changes"),
            Column("bias", "Mean error", digits(2, sign=True)),
            Column("bias_ci", "95 % interval", interval),
            Column("rmse", "RMSE", digits(2)),
            Column("rmse_ci", "without noise", interval),
            Column("seeds_rmse", "Seeds alone", digits(2)),
            Column("tau", "τ, predicted to measured", digits(2)),
            Column("tau_ci", "95 % interval", interval),
            text("worst", "Largest error"),
            Column("worst_error", "of", digits(2, sign=True)),
        ],
        rows,
        f"Error: measured mIoU under both changes minus (A + B − {title(a.baseline)}), in points. "
        "The mean tells whether the changes help or hinder each other; an RMSE well above it, that "
        "they do so for some models more than for others. Seeds alone: the RMSE to expect if "
        "changes add up exactly; without noise: the interval of the RMSE after that is taken off.",
    ).without_empty("bias_ci", "rmse_ci", "seeds_rmse", "tau_ci")


def additive_scores_table(a: Analysis) -> Table:
    """The additive prediction of every model."""
    rows = [
        [pair_title(i), vfm, row["predicted"], Value(row["measured"], i.both, vfm), row["error"]]
        for i in a.interactions
        for vfm, row in i.scores.iterrows()
    ]
    return Table(
        "additive-scores",
        "Predicted and measured",
        [
            text("pair", "Changes"),
            text("vfm", "Model"),
            Column("predicted", "Predicted mIoU", digits(2)),
            Column("measured", "Measured", digits(2)),
            Column("error", "Error", digits(2, sign=True)),
        ],
        rows,
    )


def variance_table(a: Analysis) -> Table:
    """What scores vary with."""
    rows = []
    for v in a.variances:
        for share in v.shares.itertuples():
            limits = None if share.low is None else (share.low, share.high)
            rows.append(
                [
                    f"{v.factors[0]} × {v.factors[1]}",
                    _term(v, share.term),
                    share.share,
                    limits,
                    share.p_value,
                    len(v.settings),
                    len(v.vfms),
                ]
            )
    note = (
        "Shares of the variance of all runs' scores (sums of squares of type II, statsmodels). A "
        "term with the model in it can change the ranking; one without moves all models alike. p: "
        "how often seeds alone give such a share."
    )
    if not all(v.balanced for v in a.variances):
        note += " Shares need not add up to 100 %: numbers of seeds differ."
    if any(v.shares["p_value"].isna().all() for v in a.variances):
        note += " With one seed, noise counts into the interaction of all three."
    return Table(
        "variance",
        "What do scores vary with?",
        [
            text("factors", "Factors"),
            text("term", "Varies with"),
            Column("share", "Share", percent),
            Column("share_ci", "95 % interval", lambda limits: " to ".join(map(percent, limits))),
            Column("p_value", "p", p_value),
            Column("settings", "Settings"),
            Column("n", "Models"),
        ],
        rows,
        note,
    ).without_empty("share_ci", "p_value")


def _term(v: Variance, term: tuple[str, ...]) -> str:
    names = {"vfm": "model", "first": v.factors[0], "second": v.factors[1]}
    return " × ".join(names[part] for part in term) or "seeds"
