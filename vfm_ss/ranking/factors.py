"""A setting as a point in a product of factors: what differs between two settings."""

from collections.abc import Callable

import pandas as pd

from vfm_ss.protocol.records import Record
from vfm_ss.protocol.runs import Run
from vfm_ss.protocol.settings import SETTINGS, ConfigName, parse_config_name, split_decoder

#: The factors, each with how a record, or the name of a config, says it.
FACTORS: dict[str, Callable[[Record | ConfigName], object]] = {
    "size": lambda run: run.size,
    "patch": lambda run: run.patch,
    "decoder": lambda run: split_decoder(run.decoder)[0],
    "frozen encoder": lambda run: split_decoder(run.decoder)[1],
    "training data": lambda run: run.train_dataset,
    "training fraction": lambda run: str(run.fraction),
    # None: those of the data.
    "steps": lambda run: run.steps,
    "evaluation data": lambda run: run.eval_dataset,
}
_DATA = ("training data", "evaluation data")


def factors(run: Run) -> dict[str, object] | None:
    """Return a run's value of every factor.

    A number from a table has no record: the name of its setting tells, if it is one of the
    benchmark's or follows the grammar of config names.

    Returns:
        ``{factor: value}``; None where the setting's name says nothing.
    """
    source: Record | ConfigName | None = run.record
    if source is None and run.setting in SETTINGS:
        s = SETTINGS[run.setting]
        source = ConfigName(run.vfm, s.size, s.patch, s.decoder, s.data.name)
    if source is None:
        try:
            source = parse_config_name(f"any_{run.setting}", own=True)
        except ValueError:
            return None
    return {name: value(source) for name, value in FACTORS.items()}


def setting_factors(cells: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Return the factors of every setting of `agreement.scores`, where they are known.

    What `separation.separate` has told apart is one factor more, ``configuration``.
    """
    found = {s: factors(cells.loc[s, "runs"].iloc[0][0]) for s in cells.index.unique("setting")}
    return {
        setting: {**values, "configuration": setting.partition("@")[2]}
        for setting, values in found.items()
        if values is not None
    }


def in_domain(setting: str, known: dict[str, dict[str, object]]) -> list[str]:
    """Return the settings without a shift that a shifted one is to be compared with.

    They differ from it in the data alone: those that train and evaluate on what it is evaluated on,
    as in the paper, which compares GTA V to Cityscapes with Cityscapes (arXiv 2404.12172, section
    4), then those that train and evaluate on what it trains on.

    Args:
        setting: A setting.
        known: See `setting_factors`.
    """
    own = known.get(setting)
    if own is None or own["training data"] == own["evaluation data"]:
        return []
    wanted = [
        {**own, **dict.fromkeys(_DATA, own[data])} for data in ("evaluation data", "training data")
    ]
    return [other for values in wanted for other, found in known.items() if found == values]


def shared_trainings(cells: pd.DataFrame) -> dict[str, str]:
    """Return for every setting the first one that is of the same trainings.

    Several evaluations of one run are settings of their own that were trained once.
    """
    first: dict[str, str] = {}
    found = {}
    for setting in cells.index.unique("setting"):
        paths = [run.path for runs in cells.loc[setting, "runs"] for run in runs]
        known = next((first[path] for path in paths if path in first), setting)
        found[setting] = known
        for path in paths:
            first.setdefault(path, known)
    return found
