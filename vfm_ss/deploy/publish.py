"""A trained model as one folder to give away: nothing of the machine or of the training in it."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import torch
from mmengine.config import Config
from safetensors.torch import save_file
from torch import Tensor

from vfm_ss.engine.checkpoint_io import PUBLISHED
from vfm_ss.errors import UsageError
from vfm_ss.models.backbones import lora
from vfm_ss.protocol.identity import describe, differing, identity, texts
from vfm_ss.protocol.records import RECORD_NAME, Record, read_record, write_record

from .model_card import licence_of, model_card
from .trained import load_trained

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.py", "README.md"
#: Parts of a config that say where a run was, not what it was.
_OF_THE_RUN = ("work_dir", "load_from", "resume", "launcher", "local_rank")


def publish(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    cfg_options: dict | None = None,
    *,
    record: str | Path | None = None,
    licence: str | None = None,
    merge_lora: bool = False,
) -> Iterator[str]:
    """Make a folder with ``model.safetensors``, ``config.py``, ``record.json`` and ``README.md``.

    Args:
        config: Config file that the checkpoint was trained with.
        checkpoint: What training saved: its weights are published, not its optimiser.
        out: Folder to make.
        cfg_options: Overrides of the config that the run had, with dots in the keys.
        record: Record of the run; by default ``record.json`` beside the checkpoint, if there is
            one.
        licence: Licence of the model; by default that of the VFM's weights.
        merge_lora: Add the adapters of a model trained with ``lora`` to the weights beside them.

    Yields:
        Lines that say what was made, and how it is uploaded.

    Raises:
        UsageError: If the folder is there, or its parent is not.
        ValueError: If checkpoint, config and record are not of one run.
    """
    out, checkpoint = Path(out), Path(checkpoint)
    if out.exists():
        raise UsageError(f"--out {out} exists; name a folder that does not")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.absolute().parent}; make it first")
    model, cfg, meta = load_trained(config, checkpoint, cfg_options)
    found = _record(record, checkpoint, cfg)
    if merge_lora:
        if not lora.merge_lora(model):
            raise UsageError(f"--merge-lora: {config} has no model.backbone.lora to merge")
        del cfg.model.backbone["lora"]
    licence, source = (licence, "as stated") if licence else licence_of(cfg.model.backbone)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.absolute().parent) as folder:
        draft = Path(folder) / out.name
        draft.mkdir()
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        _save_weights(state, meta, draft / WEIGHTS)
        published = _without_places(cfg.to_dict())
        (draft / CONFIG).write_text(Config(published).pretty_text, encoding="utf-8")
        if found is not None:
            write_record(draft / RECORD_NAME, found)
        card = model_card(
            Path(config).stem, cfg, found, step_of(checkpoint), licence, source, _classes(meta)
        )
        (draft / CARD).write_text(card, encoding="utf-8")
        _check(draft, state)
        for path in (draft, *draft.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        shutil.move(draft, out)
    count = sum(value.numel() for value in state.values())
    yield f"{out}: {count / 1e6:.1f} M weights, config, {'record, ' * bool(found)}model card"
    if found is None:
        yield f"no record: there is no {RECORD_NAME} beside {checkpoint.name}; --record names one"
    if licence is None:
        yield f"licence unknown, {source}: write it into {out / CARD} before you share the folder"
    else:
        yield f"licence {licence}, {source}"
    yield f"to upload: hf upload USER/{out.resolve().name} {out}"


def step_of(checkpoint: Path) -> int | None:
    """Return the optimiser step that the name of a checkpoint says; None for another name."""
    match = re.search(r"iter_(\d+)$", checkpoint.stem)
    return int(match[1]) if match else None


def _record(path: str | Path | None, checkpoint: Path, cfg: Config) -> Record | None:
    """Read the record and hold it against the config; leave out where files were.

    Raises:
        ValueError: If it is of another run.
    """
    if path is None:
        path = checkpoint.parent / RECORD_NAME
        if not path.is_file():
            return None
    record, now = read_record(path), identity(cfg)
    if record.config is not None:
        keys = differing(record.config, now)
        if keys:
            raise ValueError(
                f"{path} is of another configuration than the config: "
                f"{describe(keys, texts(record.config), texts(now))}; give the config "
                "that training saved beside it, or the overrides of the run by --cfg-options"
            )
    step = step_of(checkpoint)
    if step is not None and record.step is not None and step > record.step:
        raise ValueError(
            f"{path} ends at step {record.step}, before {checkpoint.name}; --record names another"
        )
    if record.weights and record.weights.get("source"):
        record.weights = {**record.weights, "source": _name(record.weights["source"])}
    return record


def _save_weights(state: dict[str, Tensor], meta: Mapping, path: Path) -> None:
    """Save weights with what mmseg wants to know of the data: names and colours of the classes."""
    known = meta.get("dataset_meta") or {}
    kept = {key: known[key] for key in ("classes", "palette") if known.get(key) is not None}
    text = json.dumps({"dataset_meta": kept} if kept else {}, default=list)
    # Weights that modules share are one storage, which the format does not know.
    owners: dict[int, str] = {}
    for name, value in state.items():
        if owners.setdefault(value.data_ptr(), name) != name and value.numel():
            state[name] = value.clone()
    save_file(state, path, metadata={"format": "pt", PUBLISHED: text})


def _without_places(value: Any) -> Any:
    """Reduce absolute paths in a config to their last part, and drop where the run was."""
    if isinstance(value, Mapping):
        return {k: _without_places(v) for k, v in value.items() if k not in _OF_THE_RUN}
    if isinstance(value, (list, tuple)):
        return type(value)(_without_places(part) for part in value)
    return _name(value) if isinstance(value, str) else value


def _name(text: str) -> str:
    return PurePath(text).name if text.startswith(("/", "~/")) else text


def _classes(meta: Mapping) -> list[str]:
    return [str(name) for name in (meta.get("dataset_meta") or {}).get("classes") or ()]


def _check(folder: Path, state: dict[str, Tensor]) -> None:
    """Load what was saved as everybody will.

    Raises:
        ValueError: If other weights come out.
    """
    model, _, _ = load_trained(folder / CONFIG, folder / WEIGHTS)
    for name, value in model.state_dict().items():
        if not torch.equal(value.nan_to_num(), state[name].nan_to_num()):
            raise ValueError(f"{name} of {folder / WEIGHTS} is not what was saved")
