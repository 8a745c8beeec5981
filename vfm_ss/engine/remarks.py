"""What a reader of a run's score has to know: lines in the log, in the record, and in reports."""

from mmengine.runner import Runner

_KEY = "remarks"


def remark(runner: Runner, text: str) -> None:
    """Warn, and keep the line for the record; it is saved in checkpoints with mmengine's hub.

    Args:
        runner: The runner, when it has taken up a checkpoint, or none is to be resumed.
        text: One line.
    """
    runner.logger.warning(text)
    known = remarks(runner)
    if text not in known:
        runner.message_hub.update_info(_KEY, [*known, text])


def remarks(runner: Runner) -> list[str]:
    """Return the lines that were kept, those before a resume too."""
    return list(runner.message_hub.runtime_info.get(_KEY, ()))
