"""The versions of other distributions that this one requires: what ``requirements/*.txt`` say.

They are stated there alone. A checkout has the files, an installed package what setup.py made of
them: its metadata.
"""

import functools
import importlib.metadata as metadata
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_CHECKOUT = Path(__file__).parents[2]
_FILES = ("runtime", "mminstall", "openmmlab")


@functools.cache
def requirements() -> dict[str, Requirement]:
    """Return what is required, whichever stack is installed, by the name of the distribution.

    Raises:
        FileNotFoundError: If neither files nor metadata are there.
    """
    found = map(Requirement, _lines())
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def requirement(name: str) -> str:
    """Return what to pass to pip for a distribution: its name and versions, lowest first.

    Args:
        name: Of the distribution; ``-lite`` is left out, these are the same with fewer parts.
    """
    return f"{name}{bounds(name)}"


def bounds(name: str) -> str:
    """Return the versions of a distribution that work, lowest first; empty for any."""
    found = requirements()[name.removesuffix("-lite")]
    return ",".join(sorted(map(str, found.specifier), reverse=True))


def fits(name: str, version: str) -> bool:
    """Return whether a version of a distribution works, development versions included."""
    found = requirements()[name.removesuffix("-lite")]
    return found.specifier.contains(version, prereleases=True)


def _lines() -> Iterable[str]:
    if (_CHECKOUT / "setup.py").is_file():
        for name in _FILES:
            path = _CHECKOUT / "requirements" / f"{name}.txt"
            lines = path.read_text(encoding="utf-8").splitlines()
            yield from (line for line in lines if line.strip() and not line.startswith("#"))
        return
    try:
        lines = metadata.requires("vfm_ss") or ()
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"{_CHECKOUT} holds vfm_ss without setup.py and requirements/, and it is not "
            "installed; install it with pip"
        ) from None
    for line in lines:
        marker = Requirement(line).marker
        if marker is None or any(marker.evaluate({"extra": name}) for name in ("", *_FILES[1:])):
            yield line
