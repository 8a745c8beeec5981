__version__ = "0.1.0"


def commit() -> str | None:
    """Return the commit of the checkout this package runs from, or None outside one.

    ``-dirty`` is appended where tracked files differ from the commit.
    """
    import subprocess  # here: every command's start imports this module
    from pathlib import Path

    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--abbrev=40",
        "--dirty",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
