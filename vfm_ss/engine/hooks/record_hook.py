import math
import statistics
import time
from dataclasses import replace
from pathlib import Path

from mmengine.dist import broadcast_object_list, get_world_size, is_main_process, master_only
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.model import is_model_wrapper
from mmseg.registry import HOOKS

from vfm_ss.compat.runner import is_training, load_from, resume_mode
from vfm_ss.compat.torch_modules import is_compiled
from vfm_ss.protocol.evaluations import Scores, at_step, joined, taken_up, with_score
from vfm_ss.protocol.records import RECORD_NAME, Record, count_classes, read_record, write_record
from vfm_ss.version import commit

from .. import run_facts as facts
from ..evaluations import Evaluation, evaluate, prepare, remark_shared_images
from ..optim_wrapper import precision_of
from ..remarks import remarks
from ..resumed_settings import SETTINGS, compare_settings, settings
from ..train_loop import validation_is_due


@HOOKS.register_module()
class RecordHook(Hook):
    """Write ``record.json``, the run's row in the benchmark, after each validation.

    Everything is read off the run. Backbone, decoder and dataset go by the attribute ``key`` of
    their class, without one by its name in lower case; arguments override that. After each
    validation the model is evaluated on the data sets of ``eval_data`` of the config, too.

    Args:
        vfm: Key of the VFM.
        train_dataset: Name of the training dataset.
        eval_dataset: Name of the dataset evaluated on.
        size: ``'b'`` or ``'l'``, or a project's own.
    """

    priority = "VERY_LOW"

    def __init__(
        self,
        vfm: str | None = None,
        train_dataset: str | None = None,
        eval_dataset: str | None = None,
        size: str | None = None,
    ):
        stated = {
            "vfm": vfm,
            "train_dataset": train_dataset,
            "eval_dataset": eval_dataset,
            "size": size,
        }
        self.stated = {name: value for name, value in stated.items() if value is not None}
        self.history: list[list] = []
        self.train_seconds = 0.0
        self.step_times: list[float] = []
        self._mark = 0.0
        self._commit: str | None = None
        self._weights: dict | None = None
        self.further: list[Evaluation] = []
        self.scores: Scores = {}
        self._before: dict = {}  # what the resumed run said of itself

    def before_run(self, runner) -> None:
        """Refuse to overwrite the record of a finished run.

        Raises:
            ValueError: If the work dir holds one and this run does not resume it.
        """
        path = Path(runner.work_dir) / RECORD_NAME
        if not is_training(runner) or resume_mode(runner) or not path.exists():
            return
        try:
            finished = read_record(path).status == "finished"
        except ValueError:
            return  # damaged or of another version: nothing that could be ranked is lost
        if finished:
            raise ValueError(
                f"{runner.work_dir} holds a finished run; choose another --work-dir, or delete "
                "that one to train again"
            )

    def before_train(self, runner) -> None:
        """Start the clock; go on with the history of a resumed run.

        A run that was stopped between a checkpoint and the validation at the same step makes up
        for that validation first, or the record would lack it; at the last step, for ever.
        """
        self._commit = commit()  # of the code that runs, whatever is checked out meanwhile
        if not resume_mode(runner) and is_main_process():
            self._weights = facts.weights_of(_model(runner), load_from(runner))
        self.further = prepare(runner, self._eval_name(runner))
        if resume_mode(runner):
            compare_settings(runner, self._before)
            self._take_up_history(runner)
            self._drop_half_a_validation(runner)
            self._take_up_patience(runner)
            if validation_is_due(runner) and runner.iter not in [step for step, _ in self.history]:
                runner.val_loop.run()
        remark_shared_images(runner, self._eval_name(runner), self.further)
        self._mark = time.perf_counter()

    def _take_up_history(self, runner) -> None:
        """Join the history in the checkpoint with the validation that followed it, if any."""
        path = Path(runner.work_dir) / RECORD_NAME
        rows, scores = dict(self.history), self.scores
        try:
            if path.exists():
                record = read_record(path)
                rows.update(record.history)
                scores = joined(scores, taken_up(record))
        except ValueError as error:
            runner.logger.warning(f"The record is rebuilt: {error}")
        # The main process decides: to the others the file may look different at this moment.
        history = [[step, rows[step]] for step in sorted(rows) if step <= runner.iter]
        decided = [history, scores]
        broadcast_object_list(decided)
        self.history, self.scores = decided

    def _drop_half_a_validation(self, runner) -> None:
        """Forget a validation that lacks a further data set, so that it is made again.

        The run was stopped in the midst of them, or its ``eval_data`` names more than before.
        """
        held = at_step(self.scores, runner.iter) or {}
        lacking = [
            one.name
            for one in self.further
            if (held.get(one.name) or {}).get("config") != one.config
            or runner.iter not in dict(map(tuple, held[one.name]["history"]))
        ]
        if lacking and validation_is_due(runner):
            self.history = [row for row in self.history if row[0] != runner.iter]

    def _eval_name(self, runner) -> str | None:
        if runner.val_loop is None:
            return None
        return self.stated.get("eval_dataset") or facts.dataset_name(runner.val_dataloader.dataset)

    def _take_up_patience(self, runner) -> None:
        """Show early stopping the scores of the history, which it does not save."""
        for hook in runner.hooks:
            if not isinstance(hook, EarlyStoppingHook):
                continue
            if hook.monitor == "mIoU":
                for _, miou in self.history:
                    hook.after_val_epoch(runner, {"mIoU": math.nan if miou is None else miou})
            else:
                runner.logger.warning(
                    f"EarlyStoppingHook counts the validations without a better {hook.monitor} "
                    "from 0 again; with monitor='mIoU' it would go on counting"
                )

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Count the time of one optimiser step, its data included."""
        now = time.perf_counter()
        self.step_times.append(now - self._mark)
        self.train_seconds += now - self._mark
        self._mark = now

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Add the validation to the history, evaluate on further data sets, write the record.

        The record of a run is finished when its last step has been validated, or when a hook
        has ended it before.
        """
        miou = facts.percent((metrics or {}).get("mIoU"))
        if is_training(runner):
            self.history.append([runner.iter, miou])
            for one in self.further:
                score = evaluate(runner, one)
                self.scores = with_score(self.scores, one.name, one.config, runner.iter, *score)
            self._write(runner, miou)
        self._mark = time.perf_counter()

    def after_train(self, runner) -> None:
        """Finish the record of a run that a hook has ended before its last step."""
        if getattr(runner.train_loop, "stopped_early", False) and self.history:
            runner.logger.info(f"Stopped early, at step {runner.iter} of {runner.max_iters}.")
            self._finish(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep clock, history and first weights for a resumed run."""
        checkpoint["train_seconds"] = self.train_seconds
        checkpoint["history"] = self.history
        checkpoint["evaluations"] = self.scores
        checkpoint["first_weights"] = self._weights
        checkpoint[SETTINGS] = settings(runner)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Go on counting where the resumed run stopped."""
        if resume_mode(runner):
            self.train_seconds = checkpoint.get("train_seconds", 0.0)
            self.history = checkpoint.get("history", [])
            self.scores = checkpoint.get("evaluations", {})
            self._weights = checkpoint.get("first_weights")
            self._before = checkpoint.get(SETTINGS) or {}

    @master_only
    def _finish(self, runner) -> None:
        """Turn the record of the last validation, perhaps an earlier process's, into the end."""
        path = Path(runner.work_dir) / RECORD_NAME
        record = replace(read_record(path), status="finished", stopped_early=True)
        write_record(path, record)

    @master_only
    def _write(self, runner, miou: float | None) -> None:
        loop = runner.train_loop
        finished = runner.iter >= runner.max_iters
        model = _model(runner)
        ious = facts.class_ious(runner.val_evaluator)
        known = [value for _, value in self.history if value is not None]
        record = Record(
            name=facts.name_of(runner.cfg),
            **{**facts.describe_setting(model, runner), **self.stated},
            seed=runner.seed,
            status="finished" if finished else "running",
            step=runner.iter,
            max_steps=runner.max_iters,
            miou=miou,
            best_miou=max(known, default=None),
            iou=ious,
            history=self.history,
            train_seconds=self.train_seconds or None,
            step_seconds=statistics.median(self.step_times) if self.step_times else None,
            trainable_params=facts.count_parameters(model, trainable=True),
            total_params=facts.count_parameters(model),
            peak_memory_mb=facts.peak_memory_mb(),
            device=facts.device_name(),
            world_size=get_world_size(),
            micro_batch=getattr(loop, "micro_batch", loop.dataloader.batch_size),
            effective_batch=getattr(
                loop, "effective_batch", loop.dataloader.batch_size * get_world_size()
            ),
            precision=precision_of(runner.optim_wrapper),
            compiled=is_compiled(model),
            versions=facts.versions(),
            commit=self._commit,
            stopped_early=False if finished else None,
            remarks=remarks(runner),
            evaluations=at_step(self.scores, runner.iter),
            weights=self._weights,
            classes=count_classes(ious),
            **facts.describe_configuration(model, runner),
        )
        write_record(Path(runner.work_dir) / RECORD_NAME, record)


def _model(runner):
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
