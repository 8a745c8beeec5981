"""Work dirs of plain mmengine, without a ``record.json``: read from their logs.

A config is never executed. Its dumped copy is parsed as text for the two numbers that a log lacks,
the length of the training and the seed.
"""

import ast
import json
import os
import re
import statistics
import warnings
from collections.abc import Iterator
from pathlib import Path

from vfm_ss import found_files
from vfm_ss.protocol import kinds as k
from vfm_ss.protocol.records import Record
from vfm_ss.protocol.settings import ConfigName, parse_config_name

_CONFIG_BYTES = 2**20


def read_plain_work_dir(path: str | Path) -> Record:
    """Read a work dir as mmengine leaves it: ``{timestamp}/vis_data/*.json`` and the dumped config.

    Args:
        path: The work dir. It, or the config in it, is named by the benchmark's grammar.

    Returns:
        What can be known of the run. Its steps are iterations, as in the log.

    Raises:
        ValueError: If the logs hold no validation, or the name or the length of the training
            cannot be told; one line with the reason.
    """
    path = Path(path)
    config, name = _config(path)
    history, step_seconds = _read_logs(path)
    if not history:
        raise ValueError(f"{path}: no record.json, and its logs hold no validation with mIoU")
    max_steps, seed = _facts(config) if config else (None, None)
    if max_steps is None:
        raise ValueError(
            f"{path}: no record.json, and no config beside the logs that says how long the "
            "training is (train_cfg with max_iters or max_epochs)"
        )
    if seed is None and (found := re.findall(r"seed[_-]?([0-9]{1,18})(?![0-9])", str(path))):
        seed = int(found[-1])  # the folders above may be of many seeds
    step, miou = history[-1]
    return Record(
        name=str(name),
        vfm=name.vfm,
        size=name.size,
        patch=name.patch,
        decoder=name.decoder,
        train_dataset=name.train_dataset,
        eval_dataset=name.eval_dataset,
        seed=seed,
        status="finished" if step >= max_steps else "running",
        step=min(step, max_steps),
        max_steps=max_steps,
        miou=miou,
        best_miou=max(score for _, score in history),
        history=history,
        step_seconds=step_seconds,
    )


def _config(path: Path) -> tuple[Path | None, ConfigName]:
    """Return the dumped config, if any, and the run's name."""
    configs = sorted(path.glob("*.py"))
    for config, text in [(c, c.stem) for c in configs] + [
        (configs[0] if len(configs) == 1 else None, folder.name)
        for folder in (path.absolute(), path.absolute().parent)
    ]:
        try:
            return config, parse_config_name(text, own=True)
        except ValueError:
            continue
    raise ValueError(
        f"{path}: no record.json, and neither a config in it nor the folder is named like "
        "dinov2_b16_linear_ade20k, so its setting is not known"
    )


def _read_logs(path: Path) -> tuple[list[list], float | None]:
    """Merge the logs of a run and its resumes: validations by step, median seconds of a step."""
    scores, seconds = {}, []
    for folder in sorted(path.glob("*/vis_data")):
        whole = folder / "scalars.json"
        for file in [whole] if os.path.lexists(whole) else sorted(folder.glob("*.json")):
            for line in _lines(file):
                step, miou, time = line.get("step"), line.get("mIoU"), line.get("time")
                if "mIoU" in line:
                    if not (k.COUNT.accepts(step) and k.PERCENT.accepts(miou)):
                        raise ValueError(
                            f"{file}: holds mIoU {k.short(miou)} at step {k.short(step)}, expected "
                            f"{k.PERCENT.expected} and {k.COUNT.expected}"
                        )
                    scores[step] = float(miou)
                elif "loss" in line and k.MORE_THAN_0.accepts(time):
                    seconds.append(time)
    history = [[step, scores[step]] for step in sorted(scores)]
    return history, statistics.median(seconds) if seconds else None


def _lines(file: Path) -> Iterator[dict]:
    """Yield the objects of a log.

    Raises:
        ValueError: If it cannot be read, or a line with a score that is not the last.
    """
    damaged = 0
    for number, line in enumerate(found_files.lines(file), 1):
        if damaged:
            raise ValueError(f"{file}: line {damaged} holds a mIoU, but is damaged")
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):  # the last line of a killed run may be cut off
            damaged = number if b'"mIoU"' in line else 0
            continue
        if isinstance(value, dict):
            yield value


def _facts(config: Path) -> tuple[int | None, int | None]:
    """Return (length of the training, seed) from a config's text, each None if not found."""
    text = found_files.read(config, _CONFIG_BYTES)
    try:
        with warnings.catch_warnings():  # of escapes in its strings
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None, None
    length = _constant(tree, "train_cfg", "max_iters") or _constant(tree, "train_cfg", "max_epochs")
    return length, _constant(tree, "randomness", "seed")


def _constant(tree: ast.Module, variable: str, key: str) -> int | None:
    """Find the integer in ``variable = dict(key=...)`` without executing anything."""
    found = None
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        if any(isinstance(t, ast.Name) and t.id == variable for t in node.targets):
            for keyword in node.value.keywords:
                value = getattr(keyword.value, "value", None)
                if keyword.arg == key and type(value) is int:
                    found = value
    return found
