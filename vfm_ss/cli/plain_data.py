"""Reading config files whose values are written into other configs."""

import ast
from collections.abc import Mapping
from pathlib import Path

from vfm_ss.protocol.settings import ConfigName, parse_config_name


def imported_config(file: str):
    """Read a config, and import what it names. It is Python and runs.

    Raises:
        ValueError: If it does not exist.
    """
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import vfm_ss  # noqa: F401  makes vfm_ss:: known

    if not Path(file).is_file():
        raise ValueError("the file does not exist")
    cfg = Config.fromfile(file)
    init_default_scope(cfg.get("default_scope", "mmseg"))
    return cfg


def literal(name: str, value):
    """Return a config's value as plain data.

    Raises:
        ValueError: If it is more than that.
    """
    value = _without_scope(value)
    try:
        same = ast.literal_eval(repr(value)) == value
    except (ValueError, SyntaxError):
        same = False
    if not same:
        raise ValueError(
            f"{name} holds more than numbers, texts, lists and dicts, so it cannot be written into "
            "a config; name classes by text"
        )
    return value


def check_name(what: str, name: str, parts: ConfigName) -> None:
    """Refuse a name that cannot be part of a config's.

    Args:
        what: What to rename, for the error.
        name: The name.
        parts: A config's name with it.

    Raises:
        ValueError: If the config's name would be read as another.
    """
    try:
        told = parse_config_name(str(parts), own=True)
    except ValueError:
        told = None
    if told != parts or not name.isprintable() or "/" in name:
        raise ValueError(
            f"the name {name!r} cannot be part of a config's name, whose parts are separated by _ "
            f"and whose end says fraction and steps; give the {what} another"
        )


def _without_scope(value):
    if isinstance(value, Mapping):
        return {k: _without_scope(v) for k, v in value.items() if k != "_scope_"}
    if isinstance(value, (list, tuple)):
        return type(value)(_without_scope(part) for part in value)
    return value
