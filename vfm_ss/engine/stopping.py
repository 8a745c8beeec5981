"""Ctrl-C, and a scheduler's SIGTERM: stop after a whole step, on all processes at once."""

import os
import signal
import threading
import time

import torch
from mmengine.dist import get_world_size

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A launcher passes a terminal's Ctrl-C on, so its processes get it twice.
_SAME_SECONDS = 3.0


class StopSignals:
    """While entered, a signal asks the train loop to stop; a second one ends the process at once.

    Call `announce` when a step begins and `agreed` when it ends. Between processes the request
    is shared by gloo on the CPUs while the step runs: no device waits, and all stop after the
    same step.
    """

    def __init__(self):
        self.received: int | None = None
        self._since = 0.0
        self._previous: dict = {}
        self._group = None
        self._request: tuple | None = None

    def __enter__(self) -> "StopSignals":
        """Handle the signals; outside the main thread, where Python allows none, do nothing."""
        if get_world_size() > 1:
            self._group = torch.distributed.new_group(backend="gloo")
        if threading.current_thread() is threading.main_thread():
            # A job in the background may have been started with Ctrl-C ignored.
            handled = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._receive) for number in handled}
        return self

    def __exit__(self, *_) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def announce(self) -> None:
        """Tell the other processes whether this one is to stop after the step that begins."""
        request = torch.tensor([self.received or 0])
        work = None
        if self._group is not None:
            work = torch.distributed.all_reduce(
                request, torch.distributed.ReduceOp.MAX, group=self._group, async_op=True
            )
        self._request = request, work

    def agreed(self) -> int | None:
        """Return the signal after which all processes stop now, if any."""
        request, work = self._request
        if work is not None:
            work.wait()
            return int(request) or None
        return self.received

    def _receive(self, number: int, frame) -> None:
        now = time.monotonic()
        launched = self._group is not None or "TORCHELASTIC_RUN_ID" in os.environ
        if self.received is not None:
            if not (launched and now - self._since < _SAME_SECONDS):
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.received, self._since = number, now
        # Data workers may get the same signal; their end must not end us within a step.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        name = signal.Signals(number).name
        # Not the logger: it may be in the middle of a line.
        os.write(2, f"\n{name}: saving after this step; a second one ends at once\n".encode())


class Interrupted(BaseException):
    """A stop within a validation, which changes no weights and can be aborted."""
