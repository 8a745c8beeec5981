"""The report's figures for papers and slides: PNG and PDF, by matplotlib."""

import textwrap
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from vfm_ss.files import write_atomically
from vfm_ss.ranking.analysis import Analysis
from vfm_ss.ranking.speed import speeds
from vfm_ss.report import table_data
from vfm_ss.report.table_data import digits

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#B8BDC4", "#22272E"
_PANELS = 6  # pairs of changes that one figure has room for
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8A9099",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "xtick.color": INK,
    "ytick.color": INK,
    "ytick.major.size": 0,
    "grid.color": "#E6E8EB",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,  # text stays text
    "text.parse_math": False,  # a dollar in a name is a dollar
}


def write_figures(a: Analysis, folder: str | Path, target: str, name=str) -> list[Path]:
    """Draw every figure, as PNG and PDF.

    Args:
        a: The analysis.
        folder: Where to write; must exist.
        target: Setting whose ranking is to be predicted.
        name: Makes a file name of a figure's key.

    Returns:
        The PNG files.
    """
    with mpl.rc_context(_STYLE):
        figures = {f"models-{s}": models_figure(a, s) for s in a.settings}
        if any(c.agreement.tau is not None for c in a.comparisons):
            figures["tau"] = tau_figure(a)
        if a.comparisons:
            figures["ranks"] = ranks_figure(a)
        if len(a.settings) > 2:
            figures["tau-matrix"] = matrix_figure(a)
        if len(speeds(a.cells)):
            figures["speed"] = speed_figure(a)
        if a.interactions:
            figures["interactions"] = interaction_figure(a)
        if a.predictions[target]["front"].any():
            figures["predict"] = prediction_figure(a, target)
        written = []
        for key, figure in figures.items():
            for suffix in ("pdf", "png"):
                path = Path(folder, f"{name(key)}.{suffix}")
                drawn = BytesIO()
                figure.savefig(drawn, dpi=200, format=suffix)
                write_atomically(path, drawn.getvalue())
            written.append(path)
    return written


def title(setting: str) -> str:
    """Return a setting's name, cut to what a figure has room for."""
    return _cut(table_data.title(setting))


def _cut(name: str) -> str:
    return name if len(name) <= 32 else f"{name[:31]}…"


def tau_figure(a: Analysis) -> Figure:
    """Kendall's tau of every setting against the baseline, with the paper's beside it."""
    shown = [c for c in a.comparisons if c.agreement.tau is not None]
    figure, ax = _axes(len(shown), 6.4)
    for y, c in enumerate(shown):
        ax.plot([0, c.agreement.tau], [y, y], color=BLUE, lw=7, alpha=0.25, solid_capstyle="butt")
        if c.interval:
            ax.plot(c.interval, [y, y], color=BLUE, lw=1.6)
            ax.plot(c.interval, [y, y], color=BLUE, ls="", marker="|", ms=8, mew=1.6)
        ax.plot(c.agreement.tau, y, "o", color=BLUE, ms=7, label="here, 95 % interval over seeds")
        if c.paper_tau is not None:
            ax.plot(
                c.paper_tau, y, "D", mfc="white", mec=ORANGE, mew=1.6, ms=6, label="the paper's"
            )
        ax.text(1.13, y, digits(2)(c.agreement.tau), va="center", ha="right", color=INK)
    labels = [
        title(c.setting)
        if c.baseline == a.baseline
        else f"{title(c.setting)}, vs {title(c.baseline)}"
        for c in shown
    ]
    ax.set_yticks(range(len(shown)), labels, parse_math=False)
    limits = [x for c in shown for x in (c.agreement.tau, *(c.interval or ()), c.paper_tau or 0)]
    ax.set_xlim(min(0, *limits) - 0.03, 1.14)
    ax.set_xticks(np.arange(-1 if min(limits) < 0 else 0, 1.01, 0.25))
    ax.axvline(0, color=INK, lw=0.8)
    ax.grid(axis="x")
    ax.set_xlabel("Kendall's τ (1: same ranking, 0: unrelated)")
    ax.set_title(f"Agreement with the ranking under {title(a.baseline)}")
    _legend(figure, ax)
    return figure


def models_figure(a: Analysis, setting: str) -> Figure:
    """Mean IoU of every model under a setting; the baseline's as a dot."""
    rows = a.models[setting].dropna(subset=["miou_mean"])
    figure, ax = _axes(len(rows), 6.4)
    y = np.arange(len(rows))
    mean = rows["miou_mean"].to_numpy(float)
    std = rows["miou_std"].to_numpy(float)
    ax.barh(y, mean, color=BLUE, alpha=0.85, height=0.68, label=title(setting))
    known = np.isfinite(std)
    ax.errorbar(
        mean[known], y[known], xerr=std[known], fmt="none", ecolor=INK, elinewidth=1.2, capsize=3
    )
    right = np.nanmax(mean + np.nan_to_num(std))
    if setting != a.baseline:
        dots = a.means[a.baseline].reindex(rows["vfm"]).to_numpy(float)
        ax.plot(
            dots, y, "o", ms=6.5, mfc=ORANGE, mec="white", mew=1, label=title(a.baseline), ls=""
        )
        right = np.nanmax([right, *dots])
    for i, (m, s) in enumerate(zip(mean, std, strict=True)):
        words = f"{m:.2f}" + (f" ± {s:.2f}" if np.isfinite(s) else "")
        ax.text(right * 1.03, i, words, va="center", color=INK)
    ax.set_xlim(0, right * 1.22)
    ax.set_yticks(y, map(_cut, rows["vfm"]), parse_math=False)
    ax.grid(axis="x")
    ax.set_xlabel("mIoU in percent (mean and standard deviation over seeds)")
    ax.set_title(title(setting))
    if setting != a.baseline:
        _legend(figure, ax)
    return figure


def ranks_figure(a: Analysis) -> Figure:
    """Rank of every model under every setting."""
    width = max(6.4, 1.15 * len(a.settings) + 2.6)
    figure, ax = _axes(len(a.means), width)
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.75, len(a.means)))
    order = list(a.means.index)
    for setting in a.settings:
        ranks = a.models[setting].set_index("vfm")["rank"]
        a_rank = ranks.reindex(order)
        ax.scatter(
            [a.settings.index(setting)] * len(order),
            a_rank.to_numpy(float),
            c=colors,
            s=34,
            zorder=3,
        )
    for color, vfm in zip(colors, order, strict=True):
        rank = [a.models[s].set_index("vfm")["rank"].get(vfm) for s in a.settings]
        rank = np.array([np.nan if r is None else r for r in rank], float)
        ax.plot(range(len(rank)), rank, color=color, lw=2, alpha=0.85)
        for x, side, offset in ((0, "right", -0.14), (len(rank) - 1, "left", 0.14)):
            if np.isfinite(rank[x]):
                ax.text(x + offset, rank[x], _cut(vfm), ha=side, va="center", color=color)
    ax.set_ylim(len(a.means) + 0.6, 0.4)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_xticks(
        range(len(a.settings)),
        [textwrap.fill(title(s), 11, break_long_words=False) for s in a.settings],
        parse_math=False,
    )
    ax.set_xlim(-1.1, len(a.settings) - 0.0)
    ax.set_title("Rank under every setting (top: best)")
    return figure


def matrix_figure(a: Analysis) -> Figure:
    """Kendall's tau between all settings."""
    n = len(a.settings)
    figure = Figure(figsize=(0.72 * n + 2.2, 0.6 * n + 1.6))
    ax = figure.subplots()
    values = a.taus.loc[a.settings, a.settings].to_numpy(float, copy=True)
    np.fill_diagonal(values, np.nan)
    image = ax.imshow(values, cmap="RdBu", vmin=-1, vmax=1)
    for (i, j), tau in np.ndenumerate(values):
        if np.isfinite(tau):
            color = "white" if abs(tau) > 0.55 else INK
            ax.text(j, i, digits(2)(tau), ha="center", va="center", color=color)
    names = [title(s) for s in a.settings]
    ax.set_xticks(range(n), names, rotation=35, ha="right", parse_math=False)
    ax.set_yticks(range(n), names, parse_math=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    figure.colorbar(image, ax=ax, shrink=0.8, label="Kendall's τ").outline.set_visible(False)
    ax.set_title("Agreement between all settings")
    return figure


def speed_figure(a: Analysis) -> Figure:
    """Mean IoU against images per second; a mark for each setting and way of measuring."""
    groups = speeds(a.cells).groupby(["setting", "measured"], sort=False)
    figure = Figure(figsize=(6.4, 4.2 + 0.3 * groups.ngroups))
    ax = figure.subplots()
    for k, ((setting, measured), rows) in enumerate(groups):
        x, y = (rows[name].to_numpy(float) for name in ("images_per_second", "miou"))
        label = textwrap.fill(f"{title(setting)}: {measured}", 80)
        ax.plot(x, y, "osDP^*"[k % 6], color=f"C{k}", ms=7, label=label, ls="")
        for vfm, *place in zip(rows["vfm"], x, y, strict=True):
            ax.annotate(_cut(vfm), place, xytext=(5, 4), textcoords="offset points", fontsize=7.5)
    ax.set_xlim(left=0)
    ax.grid()
    ax.set_xlabel("images per second")
    ax.set_ylabel("mIoU in percent")
    ax.set_title("How fast are the trained models?")
    _legend(figure, ax, columns=1)
    return figure


def interaction_figure(a: Analysis) -> Figure:
    """Predicted and measured scores under two changes: the pairs that are furthest off."""
    shown = sorted(a.interactions, key=lambda i: -i.rmse[0])[:_PANELS]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(max(6.4, 3.2 * columns), 3.4 * rows + 0.4))
    for k, i in enumerate(shown, start=1):
        ax = figure.add_subplot(rows, columns, k)
        x, y = (i.scores[name].to_numpy(float) for name in ("predicted", "measured"))
        ends = [min(*x, *y), max(*x, *y)]
        ax.plot(ends, ends, color=GREY, lw=1.2, zorder=1)
        ax.plot(x, y, "o", color=BLUE, ms=6)
        for vfm, at in zip(i.scores.index, zip(x, y, strict=True), strict=True):
            ax.annotate(_cut(vfm), at, (4, 4), textcoords="offset points", fontsize=7)
        ax.margins(0.15)
        ax.grid()
        ax.set_xlabel("predicted, A + B")
        ax.set_ylabel("measured mIoU")
        words = f"{title(i.first)} × {title(i.second)}: RMSE {digits(2)(i.rmse[0])}"
        ax.set_title(textwrap.fill(words, 34), fontsize=9, parse_math=False)
    figure.suptitle("Do two changes add up? On the line they do.", fontsize=11, fontweight="bold")
    return figure


def prediction_figure(a: Analysis, target: str) -> Figure:
    """Time against tau of every subset of settings."""
    table = a.predictions[target].dropna(subset=["cost", "tau"])
    front = table[table["front"]]
    figure = Figure(figsize=(6.4, 4.2 + 0.2 * len(front)))
    ax = figure.subplots()
    ax.plot(table["cost"], table["tau"], "o", color=GREY, ms=4, label="any set of settings")
    ax.step(front["cost"], front["tau"], where="post", color=BLUE, lw=1.6)
    for number, row in enumerate(front.itertuples(), start=1):
        words = (
            f"{number}: {' + '.join(map(title, row.settings))} ({row.cost:.2g}×, τ {row.tau:.2f})"
        )
        ax.plot(row.cost, row.tau, "o", color=BLUE, ms=11, label=textwrap.fill(words, 80))
        ax.text(
            row.cost, row.tau, str(number), color="white", ha="center", va="center", fontsize=7.5
        )
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    ax.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:.0e}"[0] in "235" else "")
    ax.grid()
    ax.set_xlabel(f"training time relative to {title(a.baseline)}")
    ax.set_ylabel(f"Kendall's τ to {title(target)}")
    ax.set_title(f"Which settings predict {title(target)}?")
    _legend(figure, ax, columns=1)
    return figure


def _axes(rows: int, width: float):
    figure = Figure(figsize=(width, 1.5 + 0.32 * max(rows, 2)))
    ax = figure.subplots()
    ax.invert_yaxis()
    return figure, ax


def _legend(figure: Figure, ax, columns: int = 3) -> None:
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower left", ncols=columns, fontsize=8.5
    )
