"""No two configurations under one name: runs that differ are settings, or models, of their own.

A setting is one configuration for all VFMs. What belongs to a VFM may differ between VFMs, never
between the seeds of one: its backbone, weights, normalisation and width.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vfm_ss.protocol.identity import config_hash, describe, differing, effective, texts
from vfm_ss.protocol.records import Record
from vfm_ss.protocol.runs import Run

#: What of the config belongs to the VFM, by dotted names: its backbone but for how it is
#: trained, the normalisation of its input, the width of its features.
_OWN = re.compile(
    r"model\.backbone\.(?!(?:frozen|frozen_stages|norm_eval|\w*drop\w*|lora(?:\..*)?)$).*"
    r"|model\.data_preprocessor\.(?:mean|std)"
    r"|model\..*\bin_channels"
)
#: How names of split settings call what differs.
_SHORT = {
    "optim_wrapper.optimizer.lr": "lr",
    "optim_wrapper.optimizer.weight_decay": "weight_decay",
    "optim_wrapper.paramwise_cfg.layer_decay": "layer_decay",
    "optim_wrapper.precision": "precision",
    "model.backbone.lora.r": "lora_r",
    "train_cfg.max_iters": "steps",
    "train_cfg.effective_batch": "batch",
    "crop size": "crop",
    "training samples": "samples",
    "weights": "weights",
    "weights from": "weights",
    "model": "model",
    "config file": "config",
}
#: Facts that are not configured but found, and may be unknown.
_FOUND = ("crop size", "training samples", "weights", "weights from", "model", "config file")
#: What records of schema 1 call every model of a library.
_OF_A_LIBRARY = ("timmvit", "mmpretrainvit")
_MOST = 3  # differences that a name tells; more are a checksum


@dataclass
class _Group:
    """Runs of one configuration.

    Attributes:
        facts: What is known of the configuration.
        complete: Whether that is all of it.
        runs: The runs.
    """

    facts: dict[str, object]
    complete: bool
    runs: list[Run]

    def differs(self, other: "_Group") -> list[str]:
        """Return the names of what is known to differ."""
        common = self.facts.keys() & other.facts.keys()
        whole = self.complete and other.complete
        return [
            key
            for key in differing(self.facts, other.facts)
            if key in common or (whole and key not in _FOUND)
        ]


def separate(runs: Iterable[Run]) -> tuple[list[Run], list[str]]:
    """Give runs of different configurations different settings, or names of their VFMs.

    The configuration that most VFMs share keeps the name. Others are called ``default@lr=0.001``.
    Numbers from tables, which say nothing of a configuration, keep their names.

    Args:
        runs: Runs, duplicates included.

    Returns:
        The runs in their order, and what a reader has to know: every difference, with names and
        values.
    """
    runs, notes = list(runs), []
    for name, together, facts in (
        ("setting", lambda run: run.setting, _shared),
        # The same weights under all settings, or rankings would be compared across models.
        ("vfm", lambda run: (run.vfm, run.record.size), _weights),
        ("vfm", lambda run: (run.vfm, run.setting), _own),
    ):
        by_name: dict[object, list[Run]] = {}
        for run in runs:
            if run.record is not None:
                by_name.setdefault(together(run), []).append(run)
        renamed: dict[int, str] = {}
        for members in by_name.values():
            notes += _split(_groups(members, facts(members)), name, renamed)
        runs = [replace(run, **{name: renamed.get(id(run), getattr(run, name))}) for run in runs]
    return runs, notes


def _split(groups: Sequence[_Group], name: str, renamed: dict[int, str]) -> list[str]:
    """Put the new names of runs that share an old one into ``renamed``; return the notes."""
    kept, notes = groups[0], []
    old = getattr(kept.runs[0], name)
    taken = {old}
    for group in groups[1:]:
        keys = _telling(kept.differs(group))
        new = f"{old}@{_label(keys, group.facts)}"
        new = f"{new}+{_checksum(group.facts)}" if new in taken else new
        taken.add(new)
        renamed.update((id(run), new) for run in group.runs)
        told = describe(keys, texts(kept.facts), texts(group.facts))
        notes.append(
            f"{old}: NOT MIXED: runs of different configurations. {_who(group.runs)} became the "
            f"{'setting' if name == 'setting' else 'model'} {new}; against {_who(kept.runs)}: "
            f"{told}."
        )
    for known, unknown in _taken_together(groups) if name == "setting" else ():
        notes.append(
            f"{old}: the records of {_who(unknown)} do not say their configuration (schema 1). "
            f"Nothing in them speaks against that of {_who(known)}, so they count as of the same."
        )
    return notes


def _groups(runs: Sequence[Run], facts: Sequence[dict[str, object]]) -> list[_Group]:
    """Sort runs by configuration, the one that keeps the name first."""
    found: dict[tuple, _Group] = {}
    written: dict[int, str] = {}  # many runs share an object
    for run, known in zip(runs, facts, strict=True):
        if id(known) not in written:
            written[id(known)] = json.dumps(known, sort_keys=True)
        complete = run.record.config is not None
        key = (complete, written[id(known)])
        found.setdefault(key, _Group(known, complete, [])).runs.append(run)
    groups: list[_Group] = []
    # Those of which most is known first: the others join the first that they fit.
    for group in sorted(found.values(), key=lambda g: (not g.complete, -len(g.facts), _order(g))):
        for other in sorted(groups, key=_order):
            if not group.differs(other):
                other.facts = {**group.facts, **other.facts}
                other.runs = other.runs + group.runs
                break
        else:
            groups.append(group)
    return sorted(groups, key=_order)


def _taken_together(groups: Iterable[_Group]) -> list[tuple[list[Run], list[Run]]]:
    """Return what is known and what is not, of every group that holds both."""
    found = []
    for group in groups:
        known = [run for run in group.runs if run.record.config is not None]
        unknown = [run for run in group.runs if run.record.config is None]
        if known and unknown:
            found.append((known, unknown))
    return found


def _order(group: _Group) -> tuple:
    vfms = {run.vfm for run in group.runs}
    return (-len(vfms), -len(group.runs), min(run.path for run in group.runs))


def _shared(runs: Iterable[Run]) -> list[dict[str, object]]:
    """Return, for each run, what all VFMs of its setting have to share."""
    made: dict[tuple, dict[str, object]] = {}
    return [_shared_by(run.record, made) for run in runs]


def _shared_by(record: Record, made: dict[tuple, dict[str, object]]) -> dict[str, object]:
    found = {
        "train_cfg.max_iters": record.max_steps,
        "train_cfg.effective_batch": record.effective_batch,
        "crop size": record.crop_size,
        "training samples": (record.data or {}).get("train_samples"),
    }
    # A record's checksum is that of its configuration.
    key = (record.config is not None and record.config_hash, *map(repr, found.values()))
    if key not in made:
        config = effective(record.config or {})
        config = {k: v for k, v in config.items() if not _OWN.fullmatch(k)}
        made[key] = config | _known(found)
    return made[key]


def _weights(runs: Iterable[Run]) -> list[dict[str, object]]:
    """Return, for each run of one VFM and size, the model and what it began from."""
    found = []
    for record in (run.record for run in runs):
        weights = record.weights or {}
        source, checksum = weights.get("source"), weights.get("sha256")
        checksum = "random" if source == "random" else checksum
        model = (record.model_name or "").partition(".")[0] or None  # the tag is of the weights
        facts = {"model": model, "weights": checksum}
        found.append(_known(facts if checksum else facts | {"weights from": source}))
    return found


def _own(runs: Sequence[Run]) -> list[dict[str, object]]:
    """Return, for each run of one VFM and setting, what else its seeds have to share."""
    records = [run.record for run in runs]
    unsaid = {(r.seed, r.name) for r in records if r.config is None and r.seed is not None}
    # Runs of one seed by configs of two names are no repetition of each other.
    clash = len(unsaid) > len({seed for seed, _ in unsaid}) or runs[0].vfm in _OF_A_LIBRARY
    configs = {r.config_hash: r.config for r in records if r.config is not None}
    own = {
        checksum: {k: v for k, v in effective(config).items() if _OWN.fullmatch(k)}
        for checksum, config in configs.items()
    }
    return [
        own[record.config_hash]
        if record.config is not None
        else {"config file": record.name}
        if clash
        else {}
        for record in records
    ]


def _known(facts: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in facts.items() if value is not None}


def _telling(keys: list[str]) -> list[str]:
    """Put first what has a short name, and leave out what follows from the rest."""
    if any(".fraction" in key or ".indices" in key for key in keys):
        keys = [key for key in keys if key != "training samples"]
    return sorted(keys, key=lambda key: (key not in _SHORT, key))


def _label(keys: Sequence[str], facts: Mapping[str, object]) -> str:
    """Name a configuration by what differs: ``lr=0.001,steps=100``."""
    parts = []
    for key in keys:
        value = facts.get(key)
        text = "x".join(map(str, value)) if key == "crop size" and value else str(value)
        text = text[:8] if key == "weights" else text
        parts.append(f"{_SHORT.get(key, key.rpartition('.')[2])}={text}")
    short = len(parts) <= _MOST and all(re.fullmatch(r"[\w.=+/-]{1,40}", p) for p in parts)
    return ",".join(parts) if short else _checksum(facts)


def _checksum(facts: Mapping[str, object]) -> str:
    return config_hash(facts)[:8]


def _who(runs: Iterable[Run]) -> str:
    """Name runs by VFM and seeds."""
    seeds: dict[str, list[str]] = {}
    for run in runs:
        seeds.setdefault(run.vfm, []).append("?" if run.seed is None else str(run.seed))
    names = [f"{vfm} (seed {', '.join(dict.fromkeys(of))})" for vfm, of in sorted(seeds.items())]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
