import os.path as osp
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.runner import IterBasedTrainLoop
from mmseg.registry import HOOKS

from vfm_ss.compat.runner import (
    OpenCheckpointHook,
    is_training,
    load_from,
    resume_mode,
    set_load_from,
    set_resume_mode,
    train_loop,
)
from vfm_ss.datasets.probe import refuse_moved_classes
from vfm_ss.files import remove_partial_files, write_atomically
from vfm_ss.models.backbones.late_weights import expect_checkpoint
from vfm_ss.protocol.identity import describe
from vfm_ss.run_lock import hold_run, release_run

from ..checkpoint_io import find_checkpoints
from ..fingerprint import difference, fingerprint, is_first, samples_of
from ..remarks import remark
from ..restate import StatedSettings
from ..resume import POINTER, check_weights, newest_sound
from ..stopping import Interrupted

_FINGERPRINT, _SAMPLES = "run", "train_samples"  # in the checkpoint's meta


@HOOKS.register_module()
class AtomicCheckpointHook(OpenCheckpointHook):
    """mmengine's checkpoint hook, for runs that may be killed at any moment.

    A checkpoint is there as a whole or not at all, and an old one goes only when a newer one is
    there. A run that resumes by itself takes the newest one that is sound. A new run does not
    start beside the checkpoints of another. A run that is asked to stop saves first. Nothing is
    saved that is not finite.

    With ``load_from``, ``resume=True`` goes on from that checkpoint, as in mmengine, and
    ``resume='auto'`` (tools/train.py --resume) from the newest in the work dir; a run that has none
    yet starts with the weights of ``load_from``.

    Args:
        *args: See mmengine's ``CheckpointHook``.
        same_config: Refuse to resume a run whose seed, model, optimiser, schedule, data set or
            augmentation differ. False goes on from its step with the optimiser's settings and the
            schedule of this config, as if they had been those from the start, and says so in the
            record.
        **kwargs: See mmengine's ``CheckpointHook``. ``max_keep_ckpts`` counts the newest ones; the
            best one is kept besides.
    """

    def __init__(self, *args, same_config: bool = True, **kwargs):
        super().__init__(*args, **kwargs)
        self.same_config = same_config
        self._samples: dict | None = None
        self._saved_samples: dict | None = None
        self._stated: StatedSettings | None = None
        self._changes = ""
        remote = "://" in str(self.out_dir or "")
        if not remote and self.backend_args is None and self.file_client_args is None:
            self.backend_args = {"backend": "atomic"}

    @property
    def _is_atomic(self) -> bool:
        return (self.backend_args or {}).get("backend") == "atomic"

    def before_run(self, runner) -> None:
        """Find the checkpoint to resume from; mmengine loads it next.

        Raises:
            ValueError: If another process trains in the work dir, if there are checkpoints and none
                can be read, or if there are some and the run is not to be resumed.
            FileNotFoundError: If the checkpoints are gone.
        """
        if not is_training(runner):
            expect_checkpoint(runner.model, load_from(runner) is not None)
            return
        if self.by_epoch and isinstance(train_loop(runner), IterBasedTrainLoop):
            raise ValueError(
                "default_hooks.checkpoint counts epochs (by_epoch=True is mmengine's default), so "
                "nothing would be saved before the last step; set by_epoch=False"
            )
        if self._is_atomic:
            self._find_checkpoint(runner)
        expect_checkpoint(runner.model, load_from(runner) is not None)

    def _find_checkpoint(self, runner) -> None:
        answer: list = [None]
        if is_main_process():
            try:
                answer = [self._prepare(runner)]
            except (OSError, ValueError) as error:  # the other processes must not wait for ever
                answer = [error]
        broadcast_object_list(answer)
        if isinstance(answer[0], Exception):
            raise answer[0]
        if answer[0] is not None:
            set_load_from(runner, answer[0])
        elif resume_mode(runner) == "auto":
            set_resume_mode(runner, False)

    def after_run(self, runner) -> None:
        """Unlock the work dir."""
        release_run(runner.work_dir)

    def before_train(self, runner) -> None:
        """Take up what the resumed run has saved."""
        super().before_train(runner)
        expect_checkpoint(runner.model, False)
        self._samples = samples_of(runner.train_dataloader.dataset)
        if self._stated is not None:
            self._stated.apply(runner)
            remark(
                runner,
                f"resumed at step {runner.iter} with another config ({self._changes}); the "
                "optimiser's settings and the schedule are those of this config from there on, "
                f"for {runner.max_iters} steps in all",
            )
        if self._saved_samples not in (None, self._samples):
            was, now = self._saved_samples.get("count"), self._samples["count"]
            what = f"{was} samples, now {now}" if was != now else f"{now} samples of other names"
            remark(runner, f"the training set has changed before step {runner.iter + 1}: {what}")
        if resume_mode(runner) and "last_ckpt" in runner.message_hub.runtime_info:
            # mmengine saves a best score with the last checkpoint, if it knows of one.
            self.last_ckpt = self._in_out_dir(runner.message_hub.get_info("last_ckpt"))
        if getattr(self, "best_ckpt_path", None):
            self.best_ckpt_path = self._in_out_dir(self.best_ckpt_path)

    def before_test(self, runner) -> None:
        """Expect no further weights."""
        expect_checkpoint(runner.model, False)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Say in the checkpoint which run it is of."""
        checkpoint["meta"][_FINGERPRINT] = self._fingerprint(runner)
        if self._samples is not None:
            checkpoint["meta"][_SAMPLES] = self._samples

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Refuse to resume another run, or what is no run, and weights of another model.

        Raises:
            ValueError: If the checkpoint is of one; says what differs.
        """
        if not resume_mode(runner):
            check_weights(runner, checkpoint)
            if not is_training(runner):
                _check_tested_classes(runner, checkpoint)
            return
        # The best one has no optimiser: mmengine would start that and the schedule from step 0.
        needed = {"meta", "message_hub", "optimizer"}
        needed |= {"param_schedulers"} if runner.param_schedulers else set()
        if not needed <= checkpoint.keys():
            raise ValueError(
                f"{load_from(runner)} holds weights alone, which cannot be resumed; without "
                "--resume, load_from starts a new run from them"
            )
        meta = checkpoint["meta"]
        self._saved_samples = meta.get(_SAMPLES)
        seed = (runner.cfg.get("randomness") or {}).get("seed")
        if None not in (seed, meta.get("seed")) and seed != meta["seed"]:
            raise ValueError(
                f"{load_from(runner)} is of seed {meta['seed']}, and a run keeps its seed: resume "
                f"with --seed {meta['seed']}, or train seed {seed} in another --work-dir"
            )
        self._changes = self._compare(runner, checkpoint)
        if self._changes and self.same_config:
            raise ValueError(
                f"{load_from(runner)} is of another run: {self._changes}. Use its config, another "
                "--work-dir, or, if you know that it fits, --cfg-options "
                "default_hooks.checkpoint.same_config=False, which goes on with this config: the "
                f"schedule is made again for {runner.max_iters} steps, and the record says so"
            )
        if self._changes:
            if meta["iter"] > runner.max_iters:
                raise ValueError(
                    f"{load_from(runner)} has made {meta['iter']} steps, more than "
                    f"train_cfg.max_iters={runner.max_iters}; use an earlier checkpoint"
                )
            self._stated = StatedSettings.of(runner)

    def _fingerprint(self, runner) -> dict[str, str]:
        found = fingerprint(runner.cfg)
        if getattr(runner.train_loop, "mixing", None):
            found["train_cfg.micro_batch"] = str(runner.train_loop.micro_batch)
        return found

    def _compare(self, runner, checkpoint: dict) -> str:
        """Say how the run differs from the one that saved a checkpoint; empty if it does not."""
        saved, current = checkpoint["meta"].get(_FINGERPRINT), self._fingerprint(runner)
        if saved is None:  # mmengine's own hook saved it: its schedules tell a little
            ends = [s.get("end") for s in checkpoint.get("param_schedulers") or ()]
            now = [s.end for s in runner.param_schedulers or ()]
            saved, current = {"param_scheduler.end": str(ends)}, {"param_scheduler.end": str(now)}
        elif is_first(saved):
            runner.logger.warning(
                f"{load_from(runner)} does not say how its images were augmented; make sure that "
                "this config does it alike."
            )
        return describe(difference(saved, current), saved, current)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Save at the interval, at the end, and when the run is asked to stop."""
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        name = self.filename_tmpl.format(runner.iter + 1)
        if getattr(runner.train_loop, "stop_training", False) and not self._is_last(name):
            self.save_now(runner)

    def after_train(self, runner) -> None:
        """Save the last step of a run that a hook has ended before its time."""
        name = self.filename_tmpl.format(runner.iter)
        if getattr(runner.train_loop, "stopped_early", False) and not self._is_last(name):
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self.save_step_checkpoint(runner, runner.iter, meta)
        super().after_train(runner)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Give a validation up when the run is asked to stop; a resume makes up for it."""
        signals = getattr(train_loop(runner), "signals", None)
        if signals is None or not signals.received:
            return
        if runner.iter and not self._is_last(self.filename_tmpl.format(runner.iter)):
            runner.train_loop.losses.check(runner, runner.iter, together=False)
            self._write_checkpoint(runner, runner.iter, dict(epoch=runner.epoch, iter=runner.iter))
        raise Interrupted

    def _is_last(self, name: str) -> bool:
        return self.last_ckpt is not None and osp.basename(self.last_ckpt) == name

    def _prepare(self, runner) -> str | None:
        """Lock the work dir, clean up behind a killed run, return the checkpoint to resume from."""
        hold_run(runner.work_dir)  # tools/train.py has, mmseg's own has not
        work_dir, folder = Path(runner.work_dir), self._folder(runner)
        checkpoints = find_checkpoints(folder, self.filename_tmpl)
        if not resume_mode(runner):
            if checkpoints:
                raise ValueError(
                    f"{folder} holds {checkpoints[0].name} of an earlier run; go on with it by "
                    "--resume, choose another --work-dir, or delete that one"
                )
            return None
        for place in {work_dir, folder}:
            for name in remove_partial_files(place) if place.is_dir() else ():
                runner.logger.info(f"Removed {place / name}, which a killed run left half written.")
        if load_from(runner) is not None and resume_mode(runner) != "auto":
            return None
        return newest_sound(work_dir / POINTER, folder, checkpoints, runner.logger)

    def save_step_checkpoint(self, runner, step: int, meta: dict) -> None:
        """Save what is known to be finite."""
        _check_finite(runner, step)
        if self._is_atomic:
            self._write_checkpoint(runner, step, meta)
        else:
            super().save_step_checkpoint(runner, step, meta)

    def _write_checkpoint(self, runner, step: int, meta: dict) -> None:
        """Save, then say so, then remove what is too old; mmengine's order loses the old one."""
        name = self.filename_tmpl.format(step)
        self.last_ckpt = osp.join(self.out_dir, name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_atomically(Path(runner.work_dir) / POINTER, str(self.last_ckpt).encode())
            if self.max_keep_ckpts > 0:
                checkpoints = find_checkpoints(self.out_dir, self.filename_tmpl)
                for path in checkpoints[self.max_keep_ckpts :]:
                    if path.name != name:  # resumed from an older one by hand
                        path.unlink()

    def save_best_checkpoint(self, runner, metrics: dict) -> None:
        """Save the best one before the previous best is removed.

        Raises:
            ValueError: If the validation does not give the score to go by.
        """
        if not is_training(runner):
            return
        missing = [key for key in self.save_best or () if key not in (*metrics, "auto")]
        if missing:
            raise ValueError(
                f"default_hooks.checkpoint.save_best={missing[0]!r}, but the validation gives "
                f"{', '.join(metrics)}; name one of these, or None"
            )
        _check_finite(runner, runner.iter)
        if not (self._is_atomic and hasattr(self, "best_ckpt_path")):
            super().save_best_checkpoint(runner, metrics)
            return
        previous, self.best_ckpt_path = self.best_ckpt_path, None
        super().save_best_checkpoint(runner, metrics)
        if self.best_ckpt_path is None:
            self.best_ckpt_path = previous
        elif is_main_process():
            template = f"best_{self.key_indicators[0]}_{self.filename_tmpl}".replace("/", "_")
            for path in find_checkpoints(self.out_dir, template):
                if path.name != Path(self.best_ckpt_path).name:
                    path.unlink()

    def _folder(self, runner) -> Path:
        """Return where checkpoints will be, as mmengine does when training starts."""
        if self.out_dir is None or self.out_dir == runner.work_dir:
            return Path(runner.work_dir)
        return Path(self.out_dir, Path(runner.work_dir).name)

    def _in_out_dir(self, path: str) -> str:
        """Find a saved path again in a work dir that has been moved."""
        return osp.join(self.out_dir, osp.basename(path))


def _check_tested_classes(runner, checkpoint: dict) -> None:
    meta = (checkpoint.get("meta") or {}).get("dataset_meta") or {}
    trained = meta.get("classes")
    tested = getattr(runner.test_dataloader.dataset, "metainfo", {}).get("classes")
    if None not in (trained, tested):
        note = refuse_moved_classes(trained, tested, "test_dataloader.dataset")
        if note is not None:
            runner.logger.warning(note)


def _check_finite(runner, step: int) -> None:
    losses = getattr(runner.train_loop, "losses", None)
    if losses is not None:
        losses.check(runner, step)
