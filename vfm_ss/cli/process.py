"""Asks another Python process: for what needs mmengine or torch, in commands that do without."""

import json
import os
import subprocess
import sys
from pathlib import Path

from vfm_ss.errors import UsageError

_ROOT = Path(__file__).resolve().parents[2]


def asked(module: str, request: object, what: str) -> object:
    """Run a module in a process of its own.

    Args:
        module: The module; it calls `answer_with`.
        request: What it is asked, as JSON.
        what: What cannot be done, for an error without words.

    Returns:
        Its answer.

    Raises:
        UsageError: If it cannot answer.
    """
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(request),
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        told = done.stderr.strip().splitlines()
        raise UsageError(told[-1] if told else f"{what}: {done.returncode}")
    return json.loads(lines[-1])


def answer_with(answer) -> None:
    """Answer a request: the last line of the output, or of the errors."""
    try:
        print("\n" + json.dumps(answer(json.load(sys.stdin))))
    except (UsageError, ImportError) as error:
        sys.exit(" ".join(str(error).split()))
