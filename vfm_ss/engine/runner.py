"""mmengine's runner, which replaces the saved config of a work dir only once it trains there."""

from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import Runner


class KeepingRunner(Runner):
    """mmengine's runner, except for when the config is written into the work dir.

    mmengine writes it as soon as the runner is built. A test with other options, or a training that
    is then refused, would replace the config of the run whose checkpoints lie beside it.
    """

    def dump_config(self) -> None:
        """Write the config, unless one of the same name is there."""
        if not Path(self.work_dir, Path(self.cfg.filename or "").name).is_file():
            super().dump_config()

    def train(self):
        """Train, and write the config when the first step is due, after all checks."""
        self.register_hook(_SaveConfigHook(), priority="LOWEST")
        return super().train()


class _SaveConfigHook(Hook):
    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        if not getattr(self, "_saved", False):
            Runner.dump_config(runner)
        self._saved = True
