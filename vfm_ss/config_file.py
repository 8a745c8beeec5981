"""Reading a config file, with one line for what is wrong in it."""

import traceback
from pathlib import Path

import mmengine
from mmengine.config import Config

_MMENGINE = Path(mmengine.__file__).parent


def read_config(
    file: str | Path, options: dict | None = None, needs: tuple[str, ...] = ()
) -> Config:
    """Read a config. It is Python, and runs.

    Args:
        file: Config file.
        options: Overrides of it, with dots in the keys.
        needs: Sections without which it is of no use.

    Raises:
        OSError: If it, or a config that it inherits, cannot be opened.
        ImportError: If a module that it imports is missing.
        ValueError: If its code is wrong, or a section is missing. The line says where.
    """
    try:
        cfg = Config.fromfile(file)
    except Exception as error:
        if isinstance(error, ImportError) or (isinstance(error, OSError) and error.strerror):
            raise
        raise ValueError(_told(error, file)) from error
    cfg.merge_from_dict(options or {})
    missing = [name for name in needs if not isinstance(cfg.get(name), (dict, list))]
    if missing:
        raise ValueError(
            f"config {file} has no section {', '.join(missing)}; inherit a config of configs/vfm, "
            "or parts of configs/_base_"
        )
    return cfg


def _told(error: Exception, file: str | Path) -> str:
    """Name the file and the line, this config's or one's that it inherits, and what is wrong."""
    if isinstance(error, SyntaxError):  # mmengine parses a copy, whatever the file
        line = f", line {error.lineno}" if error.lineno else ""
        where = f"{file}, or a config that it inherits{line}"
        text = f"{error.msg}: {(error.text or '').strip()}".removesuffix(": ")
    else:
        own = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not Path(frame.filename).is_relative_to(_MMENGINE)
            and frame.filename != __file__
            and Path(frame.filename).is_file()
        ]
        where = f"{own[-1].filename}, line {own[-1].lineno}" if own else f"config {file}"
        # KeyError quotes its text.
        text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return f"{where}: {type(error).__name__}: {text}"
