"""Evaluate the model of a run on further data sets, beside its own validation."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner, autocast
from torch.utils.data import DataLoader

from vfm_ss.datasets.eval_data import eval_items, eval_loader, refuse_other_classes
from vfm_ss.datasets.probe import image_paths
from vfm_ss.image_size import fill_image_size, model_image_size
from vfm_ss.protocol.identity import identity
from vfm_ss.text import printable

from . import run_facts as facts
from .remarks import remark


@dataclass
class Evaluation:
    """A further data set.

    Attributes:
        name: Its name in records.
        loader: Its dataloader.
        evaluator: Its own evaluator: no count is shared with another set.
        config: What identifies it, see `protocol.identity`.
    """

    name: str
    loader: DataLoader
    evaluator: Evaluator
    config: dict


def prepare(runner: Runner, own_name: str) -> list[Evaluation]:
    """Build the data sets of the config's ``eval_data``, before anything is trained.

    Args:
        runner: The runner, with its validation built.
        own_name: What the run's own evaluation is called.

    Raises:
        ValueError: If a set cannot be used, has other classes than the run, or a name that another
            has.
        FileNotFoundError: If files of a set are missing.
    """
    items = eval_items(runner.cfg)
    if items and runner.val_loop is None:
        raise ValueError("eval_data needs a validation: val_dataloader, val_cfg and val_evaluator")
    found: list[Evaluation] = []
    for item in items:
        one = build(runner, item)
        refuse_other_classes(runner.val_dataloader.dataset, one.loader.dataset, item)
        refuse_same_name(one.name, item, [own_name, *(other.name for other in found)])
        found.append(one)
    return found


def build(runner: Runner, item: str) -> Evaluation:
    """Build a further data set, its loader and its evaluator.

    Args:
        runner: The runner.
        item: What ``eval_data`` calls it.
    """
    config = eval_loader(runner.cfg, item)
    loader = runner.build_dataloader(config, seed=runner.seed)
    fill_image_size(loader, model_image_size(runner.model))
    evaluator = runner.build_evaluator(runner.cfg.val_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo
    name = facts.dataset_name(loader.dataset)
    return Evaluation(name, loader, evaluator, loader_identity(runner.cfg, config))


def refuse_same_name(name: str, item: str, taken: Sequence[str]) -> None:
    """Refuse a name under which the scores of two sets would meet.

    Raises:
        ValueError: If another set has it.
    """
    if name in taken:
        raise ValueError(
            f"eval_data: {item} is called {name!r}, as another set that the run is evaluated on; "
            "give one set once, and a FolderDataset a name="
        )


def loader_identity(cfg: Mapping, loader: Mapping) -> dict:
    """Return what identifies an evaluation, by the names that a validation has in `identity`."""
    whole = identity({**dict(cfg.items()), "val_dataloader": loader})
    return {key: value for key, value in whole.items() if key.startswith("val_dataloader.")}


def evaluate(runner: Runner, one: Evaluation) -> tuple[float | None, dict | None]:
    """Evaluate the runner's model on a further data set, without any hook.

    Returns:
        mIoU in percent, and the IoU of each class where the metric keeps it.
    """
    runner.logger.info(f"Evaluation on {one.name}, {len(one.loader.dataset)} images:")
    runner.model.eval()
    with torch.no_grad(), _precision(runner):
        for batch in one.loader:
            outputs = runner.model.val_step(batch)
            one.evaluator.process(data_samples=outputs, data_batch=batch)
            _stop_if_asked(runner)
    metrics = one.evaluator.evaluate(len(one.loader.dataset))
    numbers = {key: value for key, value in metrics.items() if isinstance(value, (int, float))}
    told = "  ".join(f"{one.name}/{key}: {value:.4f}" for key, value in numbers.items())
    runner.logger.info(f"Iter(val) [{runner.iter}] {told}")
    runner.visualizer.add_scalars(
        {f"{one.name}/{key}": value for key, value in numbers.items()}, step=runner.iter
    )
    return facts.percent(metrics.get("mIoU")), facts.class_ious(one.evaluator)


def remark_shared_images(runner: Runner, own_name: str, others: list[Evaluation]) -> None:
    """Say, in the record too, where the run is evaluated on what it was trained on."""
    if runner.val_loop is None:
        return
    trained = image_paths(runner.train_dataloader.dataset)
    sets = [(own_name, runner.val_dataloader), *((one.name, one.loader) for one in others)]
    for name, loader in sets:
        for line in shared_images(name, loader.dataset, trained):
            remark(runner, line)


def shared_images(name: str, dataset, trained: set[str]) -> list[str]:
    """Say that a data set holds training images; no line where it holds none.

    Args:
        name: Its name.
        dataset: The data set.
        trained: Paths of the training images.
    """
    both = trained & image_paths(dataset)
    if not both:
        return []
    return [
        f"{len(both)} images of the evaluation on {name} are training images, too (first: "
        f"{printable(min(both))}): the score says nothing of new images"
    ]


def _precision(runner: Runner):
    """Return the context of a validation: that of mmengine's ``fp16=True``, where it is stated."""
    if (runner.cfg.get("val_cfg") or {}).get("fp16"):
        return autocast(enabled=True)
    return contextlib.nullcontext()


def _stop_if_asked(runner: Runner) -> None:
    """Let the checkpoint hook save and leave, as it does within a validation."""
    for hook in runner.hooks:
        if hasattr(hook, "save_best_checkpoint"):
            hook.after_val_iter(runner, 0)
