"""Whether a run's record is of the run that is asked for, or of another configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from vfm_ss.files import sha256
from vfm_ss.protocol.identity import config_hash, describe, differing, texts
from vfm_ss.protocol.records import Record
from vfm_ss.protocol.weight_files import files_of

HOLDS_OTHER = "the folder holds a finished run of another configuration"
#: What a record of schema 1 says of its configuration, by the names of `protocol.identity`.
_FIRST_SCHEMA = {
    "train_cfg.max_iters": "max_steps",
    "train_cfg.effective_batch": "effective_batch",
}


@dataclass(frozen=True)
class Asked:
    """What a run's command would train.

    Attributes:
        config: Its identity, see `protocol.identity.identity`.
        weights: What training begins from: a path, True for published weights, False for random
            ones; None where the config does not say it in our terms.
        evaluations: What identifies each further data set to evaluate on, by its name in
            ``eval_data``.
        hash: Checksum of ``config``.
    """

    config: Mapping[str, object]
    weights: str | bool | None = None
    evaluations: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    hash: str = field(init=False)

    def __post_init__(self):
        """Compute the checksum."""
        object.__setattr__(self, "hash", config_hash(self.config))


def difference(record: Record, asked: Asked) -> str | None:
    """Say in one line what a record's configuration and the one asked for do not share.

    Args:
        record: A run's record. One that does not hold its configuration (schema 1) is compared in
            what it does say.
        asked: What its folder is to hold.

    Returns:
        The line; None where they are the same as far as the record tells, see `is_compared`.
    """
    was = record.config
    if was is None:
        known = {key: getattr(record, name) for key, name in _FIRST_SCHEMA.items()}
        was = {k: v for k, v in known.items() if v is not None and k in asked.config}
        now = {key: asked.config[key] for key in was}
    else:
        now = asked.config
    keys = differing(was, now)
    if keys:
        return describe(keys, texts(was), texts(now))
    return _other_weights(record.weights, asked.weights)


def lacking(record: Record, asked: Asked) -> list[str]:
    """Return the further data sets of ``asked`` that a finished run has not been evaluated on."""
    scores = (record.evaluations or {}).values()
    # A score of an earlier checkpoint alone is none of the run's.
    done = [found.get("config") for found in scores if found.get("miou") is not None]
    return [name for name, config in asked.evaluations.items() if dict(config) not in done]


def is_compared(record: Record) -> bool:
    """Whether a record says its whole configuration."""
    return record.config is not None


def _other_weights(was: Mapping[str, str | None] | None, now: str | bool | None) -> str | None:
    source = was["source"] if was else None
    if source is None or now is None or now is False:  # random ones are in the config
        return None
    if now is True:
        published = "https://huggingface.co/" in source
        return None if published else f"weights were {source}, are the published ones"
    if "://" in now:
        return None if source == now else f"weights were {source}, are {now}"
    checksum = was["sha256"]
    try:
        same = checksum == _checksum(now) if checksum else source == now
    except (OSError, ValueError) as error:
        return f"weights were {source}, are {now}, which cannot be read ({error})"
    return None if same else f"weights were {source}, are {now}, another file"


@lru_cache
def _checksum(path: str) -> str:
    return sha256(files_of(Path(path)))
