"""A resumed run under another config: the optimiser's state goes on, its settings are the config's.

mmengine takes learning rates, decay and the schedule from the checkpoint, whatever the config says:
a finished run with more steps would make them at the last rate of the old schedule, which is 0.
"""

import copy
import warnings
from dataclasses import dataclass

from mmengine.optim import OptimWrapper
from mmengine.runner import Runner


@dataclass(frozen=True)
class StatedSettings:
    """What the config says of the optimiser and its schedules, as they were built from it.

    Attributes:
        groups: Settings of each parameter group.
        schedules: State of each scheduler before the first step.
    """

    groups: list[dict]
    schedules: list[dict]

    @classmethod
    def of(cls, runner: Runner) -> "StatedSettings":
        """Take note of them; call this before a checkpoint is taken up.

        Raises:
            ValueError: If the run has several optimisers.
        """
        if not isinstance(runner.optim_wrapper, OptimWrapper):
            raise ValueError(
                "same_config=False cannot restate the settings of several optimisers; resume with "
                "the config of the checkpoint, or start a new run from its weights by load_from"
            )
        groups = [
            {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
            for group in runner.optim_wrapper.param_groups
        ]
        schedules = [copy.deepcopy(s.state_dict()) for s in runner.param_schedulers or ()]
        return cls(groups, schedules)

    def apply(self, runner: Runner) -> None:
        """Set them, with the schedules as they are after the steps that the run has made."""
        for group, stated in zip(runner.optim_wrapper.param_groups, self.groups, strict=True):
            group.update(stated)
        schedulers = runner.param_schedulers or []
        for scheduler, state in zip(schedulers, self.schedules, strict=True):
            scheduler.load_state_dict(state)
        with warnings.catch_warnings():  # of steps of a schedule without the optimiser's
            warnings.simplefilter("ignore")
            for _ in range(runner.iter):  # schedules build on each other, step by step
                for scheduler in schedulers:
                    scheduler.step()
