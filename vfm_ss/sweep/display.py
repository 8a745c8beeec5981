"""What a sweep shows in a terminal while it goes on, and what it prints into a file."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from vfm_ss.report.table import printable
from vfm_ss.sweep.status import RunState, duration, summary


def watch(states: Callable, render: Callable, seconds: float) -> list[RunState]:
    """Show the runs until nothing is left to do.

    Args:
        states: Looks at all runs.
        render: Turns them into text.
        seconds: Pause between two looks.

    Returns:
        The last states.
    """
    console = Console(highlight=False)
    now = states()
    if not console.is_terminal:
        while True:
            print(render(now), flush=True)
            if _is_over(now):
                return now
            time.sleep(seconds)
            now = states()
    with Live(Text(render(now)), console=console, auto_refresh=False) as live:
        try:
            while not _is_over(now):
                time.sleep(seconds)
                now = states()
                live.update(Text(render(now)), refresh=True)
        except KeyboardInterrupt:
            pass
    return now


def _is_over(states) -> bool:
    return all(state.state in ("done", "failed") for state in states)


@contextmanager
def display() -> Iterator[tuple[Callable, Callable]]:
    """Give two functions: one prints a line, one shows the runs at work below the lines."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield (lambda line: print(printable(line), flush=True)), (lambda states: None)
        return
    with Live(Text(), console=console, auto_refresh=False, transient=True) as live:

        def say(line: str) -> None:
            console.print(Text(printable(line)))

        def show(states) -> None:
            lines = [summary(states)]
            for s in states:
                if s.state == "running":
                    eta = "" if s.eta_seconds is None else f", ETA {duration(s.eta_seconds)}"
                    lines.append(
                        f"  {s.name} seed {s.seed}: step {s.step or 0}/{s.max_steps or '?'}{eta}"
                    )
            live.update(Text("\n".join(map(printable, lines))), refresh=True)

        yield say, show
