"""Evaluate a checkpoint on further data sets, and add the scores to the record of its run."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from vfm_ss import checkpoint_reader
from vfm_ss.datasets.eval_data import eval_items, eval_loader, refuse_other_classes, without_files
from vfm_ss.datasets.fraction import build_dataset
from vfm_ss.datasets.probe import image_paths, without_probe
from vfm_ss.protocol.evaluations import at_step, taken_up, with_score
from vfm_ss.protocol.identity import describe, differing, identity, texts
from vfm_ss.protocol.records import RECORD_NAME, Record, read_record, write_record
from vfm_ss.run_lock import RUN_LOCK, RunLock, holder

from . import run_facts as facts
from .evaluations import build, evaluate, loader_identity, refuse_same_name, shared_images

_LOCK_SECONDS = 60.0
_ELSEWHERE = "copy the checkpoint to another folder to evaluate it without a record"


class RunRecord:
    """The record beside a checkpoint, of the run that saved it.

    Args:
        checkpoint: The checkpoint.
        cfg: The config that it is evaluated with.

    Attributes:
        path: The record's file; None where there is none.
        step: Optimiser steps of the checkpoint.

    Raises:
        ValueError: If the record is of another run or configuration, or the run is being trained.
    """

    def __init__(self, checkpoint: str, cfg: Mapping) -> None:
        path = Path(checkpoint).expanduser().parent / RECORD_NAME
        self.path = path if path.is_file() else None
        self.step: int | None = None
        if self.path is None:
            return
        record = read_record(path)
        if trainer := holder(path.with_name(RUN_LOCK)):
            raise ValueError(
                f"{path.parent} is being trained by {trainer}, which would overwrite the scores; "
                f"wait for it, or {_ELSEWHERE}"
            )
        saved = checkpoint_reader.read(checkpoint)
        meta = saved.get("meta") if isinstance(saved, dict) else None
        self.step = (meta or {}).get("iter")
        self._refuse_others(checkpoint, record, meta or {}, saved)
        config = identity(cfg)
        keys = differing(record.config or {}, config) if record.config is not None else []
        if keys:
            told = describe(keys, texts(record.config), texts(config))
            raise ValueError(
                f"{path} is of another configuration than this config: {told}; give the config "
                f"that is saved beside it, or {_ELSEWHERE}"
            )

    def _refuse_others(self, checkpoint: str, record: Record, meta: dict, saved: dict) -> None:
        rows = dict(map(tuple, record.history))
        before = [tuple(row) for row in saved.get("history") or () if row[0] != self.step]
        if (
            type(self.step) is not int
            or self.step > (record.step or 0)
            or meta.get("seed") != record.seed
            or any(rows.get(step, ...) != miou for step, miou in before)
        ):
            raise ValueError(
                f"{self.path} is not of the run that saved {checkpoint}: step {self.step} of seed "
                f"{meta.get('seed')}, the record has step {record.step} of seed {record.seed}, or "
                f"other scores before; {_ELSEWHERE}"
            )

    def add(
        self,
        name: str,
        config: Mapping,
        miou: float | None,
        iou: dict | None,
        remarks: Sequence[str] = (),
    ) -> None:
        """Add a score, under the run's lock; without a record, say so.

        Args:
            name: Name of the data set.
            config: What identifies it.
            miou: In percent.
            iou: IoU of each class.
            remarks: What a reader of the score has to know.

        Raises:
            RunLockedError: If somebody trains the run now.
        """

        def change(record: Record) -> None:
            scores = with_score(taken_up(record), name, config, self.step, miou, iou)
            record.evaluations = at_step(scores, record.step)
            record.remarks += [line for line in remarks if line not in record.remarks]

        self.change(change, f"evaluations has {name}, step {self.step}")

    def change(self, change: Callable[[Record], None], told: str) -> None:
        """Change the record under the run's lock; without a record, say so.

        Args:
            change: Sets fields of it.
            told: What the log says of it.

        Raises:
            RunLockedError: If somebody trains the run now.
        """
        if not is_main_process():
            return
        if self.path is None:
            print_log(
                "There is no record.json beside the checkpoint: the result is in this log only.",
                logger="current",
            )
            return
        lock = RunLock(self.path.parent)
        lock.acquire(_LOCK_SECONDS)
        try:
            record = read_record(self.path)
            change(record)
            write_record(self.path, record)
        finally:
            lock.release()
        print_log(f"{self.path}: {told}", logger="current")


def add_tta(record: RunRecord, runner: Runner, metrics: dict) -> None:
    """Add the score of a test with test-time augmentation: beside the plain score, never as one.

    Args:
        record: The record beside the checkpoint.
        runner: That has tested.
        metrics: What its test has returned.
    """
    model = runner.model
    while not hasattr(model, "augmentations") and hasattr(model, "module"):
        model = model.module
    found = {
        "step": record.step,
        "miou": facts.percent(metrics.get("mIoU")),
        "iou": facts.class_ious(runner.test_evaluator),
        "augmentations": getattr(model, "augmentations", None),
    }
    record.change(lambda r: setattr(r, "tta", found), f"tta has the score of step {record.step}")


def test_on_eval_data(cfg: Config, run: Callable, checkpoint: str) -> None:
    """Evaluate a checkpoint on the config's ``eval_data``, one set after the other.

    Args:
        cfg: The config.
        run: Calls a method of a runner made of a config, then a function with the runner and what
            the method has returned.
        checkpoint: The checkpoint.

    Raises:
        ValueError: If a data set cannot be used, or the record beside the checkpoint is of another
            run. Nothing has been evaluated then.
    """
    init_default_scope(cfg.get("default_scope", "mmseg"))
    items = eval_items(cfg)
    loaders = [eval_loader(cfg, item) for item in items]
    own = without_files(cfg.val_dataloader.dataset)
    names = [facts.dataset_name(own)]
    for item, loader in zip(items, loaders, strict=True):
        other = without_files(loader.dataset)
        refuse_other_classes(own, other, item)
        refuse_same_name(facts.dataset_name(other), item, names)
        names.append(facts.dataset_name(other))
    record = RunRecord(checkpoint, cfg)
    trained = _training_images(cfg)
    # The first one in the runner's own test, where hooks save and paint predictions.
    cfg.test_dataloader, cfg.test_evaluator = loaders[0], cfg.val_evaluator
    cfg.setdefault("test_cfg", dict(type="TestLoop"))

    def ended(runner: Runner, metrics: dict) -> None:
        score = facts.percent(metrics.get("mIoU")), facts.class_ious(runner.test_evaluator)
        first = loader_identity(runner.cfg, loaders[0])
        known = shared_images(names[1], runner.test_dataloader.dataset, trained)
        record.add(names[1], first, *score, known)
        for item in items[1:]:
            one = build(runner, item)
            known = shared_images(one.name, one.loader.dataset, trained)
            record.add(one.name, one.config, *evaluate(runner, one), known)

    run(cfg, "test", ended)


def _training_images(cfg: Config) -> set[str]:
    """Return the paths of the images that the run was trained on, where they are here."""
    try:
        return image_paths(build_dataset(without_probe(cfg.train_dataloader.dataset)))
    except (ValueError, OSError) as error:
        print_log(
            f"Without the training images nobody can tell whether they are evaluated on: {error}",
            logger="current",
            level=logging.WARNING,
        )
        return set()
