"""What a terminal and a file show of a sweep."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from vfm_ss.sweep import display as module
from vfm_ss.sweep.status import RunState, table

RUNNING = RunState("a", 0, "w/a/seed0", "running", step=50, max_steps=200, eta_seconds=61)
DONE = replace(RUNNING, state="done", step=200, miou=12.5)


@pytest.fixture
def screen(monkeypatch):
    """What is written to a terminal of 100 columns."""
    written = io.StringIO()
    monkeypatch.setattr(
        module,
        "Console",
        lambda **options: Console(
            file=written, force_terminal=True, width=100, color_system=None, **options
        ),
    )
    return written


def test_a_sweep_in_a_terminal_shows_lines_and_the_runs_at_work(screen):
    with module.display() as (say, show):
        show([RUNNING])
        say("started: a \x1b[2J[bold]seed 0")
        show([replace(RUNNING, name="b", step=None, max_steps=None, eta_seconds=None)])
    text = screen.getvalue()
    assert "a seed 0: step 50/200, ETA 00:01:01" in text
    assert "b seed 0: step 0/?" in text
    assert "[bold]seed 0" in text, "what a run says is no markup"
    assert "\x1b[2J[bold]" not in text, "and no control sequence"


def test_a_sweep_into_a_file_shows_lines_alone(capsys):
    with module.display() as (say, show):
        show([RUNNING])
        say("done: a seed 0")
    assert capsys.readouterr().out == "done: a seed 0\n"


def test_a_terminal_is_watched_until_nothing_is_left(screen):
    looks = iter([[RUNNING], [replace(RUNNING, step=120)], [DONE]])
    assert module.watch(lambda: next(looks), table, 0.01) == [DONE]
    text = screen.getvalue()
    assert "120/200" in text
    assert "12.5" in text


def test_ctrl_c_ends_watching(screen):
    looks = [[RUNNING]]

    def states():
        if not looks:
            raise KeyboardInterrupt
        return looks.pop()

    assert module.watch(states, table, 0.01) == [RUNNING]


def test_a_file_gets_every_look(capsys):
    looks = iter([[RUNNING], [DONE]])
    assert module.watch(lambda: next(looks), lambda now: f"{now[0].state}\n", 0.01) == [DONE]
    assert capsys.readouterr().out.split() == ["running", "done"]
