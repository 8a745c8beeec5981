import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from mmengine.device import get_device
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.model import is_model_wrapper
from mmseg.registry import LOOPS

from vfm_ss.compat.runner import OpenTrainLoop, set_accumulation
from vfm_ss.datasets.fraction import Subset, build_dataset
from vfm_ss.datasets.probe import probe_others, refuse_moved_classes
from vfm_ss.image_size import fill_image_size, model_image_size
from vfm_ss.protocol.identity import EFFECTIVE_BATCH

from .auto_micro_batch import choose_micro_batch
from .batching import accumulation_steps
from .failures import explain
from .head_checks import check_heads, heads, whole_batch_head
from .loss_guard import LossGuard
from .optim_constructor import check_optim_settings
from .randomness import seed_samples, seed_step
from .remarks import remark
from .schedulers import check_schedules
from .stopping import Interrupted, StopSignals

#: In a run's folder, the samples that a fraction of the training set is.
SAMPLES_NAME = "train_samples.txt"


@LOOPS.register_module()
class OptimStepTrainLoop(OpenTrainLoop):
    """A train loop whose iterations are optimiser steps.

    The dataloader yields a process's whole share of the effective batch; the loop splits it into
    micro-batches, accumulates their gradients and updates once. So mmengine's ``max_iters``,
    intervals, schedules, logs and resumes speak of optimiser steps, and no checkpoint falls inside
    an accumulation.

    A step depends on the weights, the optimiser, the seed and its number alone: random numbers are
    seeded again for each, and a resumed run asks its sampler for the position that it has reached.

    A decode head with a method ``begin_step(data_samples, num_micro_batches, step, seed)`` is shown
    the labels of the whole share first, for losses that are normalised over the effective batch.
    One with ``begin_training(max_steps)`` is told before how many steps there are, for what is
    annealed over them.

    Args:
        runner: The runner.
        dataloader: Train dataloader, or its config.
        max_iters: Optimiser steps.
        effective_batch: Images per optimiser step over all processes.
        micro_batch: Images per forward pass of a process; it sets the memory and nothing else.
            ``'auto'`` takes the largest power of two that fits when training starts. Where the
            model mixes the images of a micro-batch (see ``check_heads``), the log and the record
            say so, and ``'auto'`` is a process's whole share. A head with ``whole_batch = True`` is
            always shown the whole share; a smaller micro-batch is refused.
        nonfinite_loss: ``'stop'`` or ``'skip'`` the step, see ``LossGuard``.
        **kwargs: See mmengine's ``IterBasedTrainLoop`` (``val_interval``, ...).

    Attributes:
        whole_batch: Class of the head that is shown the whole share; None without one.
        mixing: What makes the results depend on the micro-batch; empty if nothing does.

    Raises:
        ValueError: If dataloader, micro-batch and processes do not make the effective batch, or do
            not show a head at once what it has to see at once; if a head has another number of
            classes than the dataset or cannot learn; if a setting is stated that this loop would
            overwrite.
    """

    def __init__(
        self,
        runner,
        dataloader,
        max_iters: int,
        effective_batch: int = EFFECTIVE_BATCH,
        micro_batch: int | str = EFFECTIVE_BATCH,
        nonfinite_loss: str = "stop",
        **kwargs,
    ):
        # Before the original mmengine starts workers.
        fill_image_size(dataloader, model_image_size(runner.model))
        if isinstance(dataloader, Mapping) and "fraction" in dataloader.get("dataset", ()):
            dataloader = {**dataloader, "dataset": build_dataset(dataloader["dataset"])}
        super().__init__(runner, dataloader, max_iters, **kwargs)
        # The original mmengine has started workers on the first images, also in a resumed run.
        self.dataloader_iterator = None
        sampler = self.dataloader.sampler
        self._sampler_has_our_seed = getattr(sampler, "seed", None) == runner.seed
        self.losses = LossGuard(nonfinite_loss)
        self.signals = StopSignals()
        self._stopped_by: int | None = None
        self.effective_batch = effective_batch
        self._auto = micro_batch == "auto"
        self._split(1 if self._auto else micro_batch)
        self._check_stated()
        self._check_classes()
        model = _unwrapped(runner.model)
        self.whole_batch = whole_batch_head(model)
        if self.whole_batch is not None:
            self._show_whole_batch()
        self.mixing = check_heads(model)
        probe_others(self.dataloader.dataset)
        self._tell_head("begin_training", max_iters)
        if self._auto and self.mixing:
            self._split(self.dataloader.batch_size)

    def _show_whole_batch(self) -> None:
        share = self.dataloader.batch_size
        if not self._auto and self.micro_batch < share:
            raise ValueError(
                f"train_cfg.micro_batch={self.micro_batch}: the batch norm of {self.whole_batch} "
                f"is over all {self.effective_batch} images of a step, so the {share} of each "
                f"process have to be shown to it at once; use --micro-batch auto or {share}"
            )
        if get_world_size() > 1 and get_device() == "cpu":
            raise ValueError(
                f"the batch norm of {self.whole_batch} is over the images of all processes, which "
                "torch's SyncBatchNorm does on GPUs only; train in one process on a CPU"
            )
        self._split(share)

    def _split(self, micro_batch: int) -> None:
        self.num_micro_batches = accumulation_steps(
            self.effective_batch, micro_batch, get_world_size(), self.dataloader.batch_size
        )
        self.micro_batch = self.dataloader.batch_size // self.num_micro_batches

    def _check_stated(self) -> None:
        wrapper = self.runner.optim_wrapper
        stated = wrapper.get("accumulative_counts", 1) if hasattr(wrapper, "get") else 1
        if stated != 1:
            raise ValueError(
                f"optim_wrapper.accumulative_counts={stated} has no effect here: a step is always "
                f"{self.effective_batch} images (train_cfg.effective_batch); remove it, and split "
                "them by --micro-batch (train_cfg.micro_batch)"
            )
        check_optim_settings(wrapper)
        if self.val_begin > self.max_iters:
            raise ValueError(
                f"train_cfg.val_begin={self.val_begin} is after the last step {self.max_iters}: "
                "the run would have no score; lower it"
            )

    def _check_classes(self) -> None:
        classes = getattr(self.dataloader.dataset, "metainfo", {}).get("classes")
        for name, head in heads(_unwrapped(self.runner.model)):
            found = getattr(head, "num_classes", None)
            if classes is None or found is None or len(classes) == found:
                continue
            raise ValueError(
                f"{name}.num_classes={found}, but the training dataset "
                f"{type(self.dataloader.dataset).__name__} has {len(classes)} classes; set "
                f"model.{name}.num_classes={len(classes)}"
            )

    def _check_evaluated_classes(self) -> None:
        if self.runner.val_loop is None:
            return
        datasets = self.dataloader.dataset, self.runner.val_dataloader.dataset
        classes = [getattr(dataset, "metainfo", {}).get("classes") for dataset in datasets]
        if None not in classes:
            note = refuse_moved_classes(*classes, "val_dataloader.dataset")
            if note is not None:
                remark(self.runner, note)

    @property
    def stopped_early(self) -> bool:
        """Whether a hook, not a signal, has ended training before its last step."""
        return self.stop_training and not self._stopped_by and self.iter < self.max_iters

    @property
    def subset(self) -> Subset | None:
        """What a ``fraction`` of the training set is; None for the whole set."""
        return getattr(self.dataloader.dataset, "subset", None)

    def run(self) -> torch.nn.Module:
        """Train, from the step that the runner has resumed, and validate.

        Raises:
            SystemExit: After Ctrl-C or SIGTERM, with the shell's status for it, when all is saved.
            NonFiniteError: If a loss or weights are not finite.
        """
        runner = self.runner
        self._check_evaluated_classes()
        if self.subset is not None:
            self._record_subset()
        if self.mixing:
            share = f"{self.micro_batch} of the {self.dataloader.batch_size} images of a process"
            remark(
                runner,
                f"{'; '.join(self.mixing)}: images of a micro-batch act on each other, so the "
                f"results depend on its size, which is {share}"
                + (" (all of them, as 'auto' must not follow the memory)" if self._auto else ""),
            )
        elif self._auto and self.whole_batch is None:
            self._split(choose_micro_batch(runner, self.dataloader.batch_size))
        # mmengine offers accumulation as an argument of the wrapper only, and counts what it
        # calls iterations: forward passes. Both follow from this loop.
        set_accumulation(runner.optim_wrapper, self.num_micro_batches)
        runner.optim_wrapper.initialize_count_status(
            runner.model,
            self.iter * self.num_micro_batches,
            self.max_iters * self.num_micro_batches,
        )
        self.losses.attach(runner)
        with self.signals:
            try:
                self._run_steps()
            except Interrupted:
                self._stopped_by = self.signals.received
            except RuntimeError as error:
                text = explain(
                    error,
                    self.iter + 1,
                    self.micro_batch,
                    get_world_size(),
                    bool(self.mixing),
                    self.whole_batch,
                )
                if text is None:
                    raise
                out_of_memory = isinstance(error, torch.OutOfMemoryError)
                raise (torch.OutOfMemoryError if out_of_memory else RuntimeError)(text) from error
        if self._stopped_by:
            name = signal.Signals(self._stopped_by).name
            runner.logger.info(f"Stopped by {name} after step {self.iter}; go on with --resume.")
            raise SystemExit(128 + self._stopped_by)
        return runner.model

    def _record_subset(self) -> None:
        if self.subset.loss:
            remark(self.runner, self.subset.loss)
        if is_main_process():
            text = "".join(f"{name}\n" for name in self.subset.names)
            path = Path(self.runner.work_dir, SAMPLES_NAME)
            path.write_text(text, encoding="utf-8", errors="surrogateescape")

    def _run_steps(self) -> None:
        runner = self.runner
        runner.call_hook("before_train")
        check_schedules(runner)  # after a resumed run has taken up its own
        runner.call_hook("before_train_epoch")
        self.dataloader_iterator = self._start_data()
        while self.iter < self.max_iters and not self.stop_training:
            runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self.update_val_interval()
            ends_here = self.stop_training and runner.val_loop is not None
            if (validation_is_due(runner) or ends_here) and not self._stopped_by:
                runner.val_loop.run()
        self.losses.check(runner, self.iter)
        runner.call_hook("after_train_epoch")
        runner.call_hook("after_train")

    def _start_data(self) -> Iterator[dict]:
        """Start reading at the position of the run, at once if the sampler can skip.

        mmengine's own loop does so in OneDL's releases; in the original ones it reads all images
        that have been seen once more.
        """
        sampler = self.dataloader.sampler
        if self._sampler_has_our_seed:
            sampler.seed = self.runner.seed  # a seed that was drawn comes from the checkpoint
        seed_samples(self.dataloader.dataset)
        can_skip = hasattr(sampler, "skip")
        if self.iter and can_skip:
            sampler.skip(self.iter * self.dataloader.batch_size)
        iterator = self.endless(self.dataloader)
        if self.iter and not can_skip:
            self.runner.logger.warning(
                f"{type(sampler).__name__} cannot skip: reading the images of {self.iter} steps "
                "again; train_dataloader.sampler=dict(type='PositionSampler') resumes at once"
            )
            for _ in range(self.iter):
                next(iterator)
        return iterator

    def run_iter(self, data_batch: dict) -> None:
        """Make one optimiser step on a process's share of the effective batch.

        Args:
            data_batch: ``inputs``, a list of (3, H, W) images, and ``data_samples``, theirs.
        """
        runner = self.runner
        runner.call_hook("before_train_iter", batch_idx=self.iter, data_batch=data_batch)
        self.signals.announce()
        self._begin_step(data_batch)
        seed_step(runner.seed, self.iter, get_rank())
        outputs = [
            runner.model.train_step(micro_batch, optim_wrapper=runner.optim_wrapper)
            for micro_batch in split(data_batch, self.micro_batch)
        ]
        outputs = _mean(outputs)
        self.losses.watch(runner, outputs["loss"], data_batch["data_samples"])
        self._stopped_by = self.signals.agreed()
        if self._stopped_by:
            self.stop_training = True  # the checkpoint hook saves
        runner.call_hook(
            "after_train_iter", batch_idx=self.iter, data_batch=data_batch, outputs=outputs
        )
        self.count_iter()

    def _begin_step(self, data_batch: dict) -> None:
        samples = data_batch["data_samples"]
        self._tell_head("begin_step", samples, self.num_micro_batches, self.iter, self.runner.seed)

    def _tell_head(self, method: str, *args) -> None:
        head = getattr(_unwrapped(self.runner.model), "decode_head", None)
        tell = getattr(head, method, None)
        if tell is not None:
            tell(*args)


def validation_is_due(runner) -> bool:
    """Return whether the config asks for a validation after the steps that have been made."""
    loop = runner.train_loop
    if runner.val_loop is None or runner.iter < max(loop.val_begin, 1):
        return False
    return runner.iter % loop.val_interval == 0 or runner.iter == runner.max_iters


def _unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    return model.module if is_model_wrapper(model) else model


def split(data_batch: dict[str, Sequence], size: int) -> list[dict[str, Sequence]]:
    """Split a batch of lists into batches of ``size`` images, in order."""
    length = len(data_batch["inputs"])
    return [
        {key: value[start : start + size] for key, value in data_batch.items()}
        for start in range(0, length, size)
    ]


def _mean(outputs: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {key: sum(output[key] for output in outputs) / len(outputs) for key in outputs[0]}
