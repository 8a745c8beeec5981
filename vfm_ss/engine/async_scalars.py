"""Losses and other scalars, read from the device without making it wait."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch


class AsyncScalars:
    """A queue of scalar tensors that are copied to the host in the background.

    On a CPU they are ready at once, on a GPU a step or two later.
    """

    def __init__(self):
        self._queue: deque = deque()

    def send(self, tensors: dict[str, Any], note: Any = None) -> None:
        """Start to copy tensors (other values stay what they are) and remember a note for them."""
        values = {
            key: value.detach().to("cpu", non_blocking=True)
            if isinstance(value, torch.Tensor)
            else value
            for key, value in tensors.items()
        }
        self._queue.append((values, note, _mark(tensors)))

    def take(self, wait: bool = False) -> Iterator[tuple[dict[str, Any], Any]]:
        """Yield what has been copied and its notes, in the order in which it was sent.

        Args:
            wait: Wait for the copies that are not done yet.
        """
        while self._queue:
            values, note, event = self._queue[0]
            if event is not None:
                if wait:
                    event.synchronize()
                elif not event.query():
                    return
            self._queue.popleft()
            yield values, note


def _mark(tensors: dict[str, Any]) -> torch.cuda.Event | None:
    """Return an event that happens when the copies up to here are done; None if they are."""
    if not any(isinstance(value, torch.Tensor) and value.is_cuda for value in tensors.values()):
        return None
    event = torch.cuda.Event()
    event.record()
    return event
