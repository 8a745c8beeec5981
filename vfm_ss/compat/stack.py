"""The libraries below us: which versions work, and what has to be prepared in them.

Two families of distributions provide mmengine, mmcv and mmseg: OpenMMLab's own releases and their
maintained continuation by OneDL. vfm_ss runs on both.
"""

import contextlib
import importlib
import importlib.metadata as metadata
import importlib.util
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

from .bounds import bounds, fits, requirement

# module: distributions that provide it
_PROVIDERS = {
    "torch": ("torch",),
    "timm": ("timm",),
    "mmengine": ("onedl-mmengine", "mmengine", "mmengine-lite"),
    "mmcv": ("onedl-mmcv", "mmcv", "mmcv-lite"),
    "mmseg": ("onedl-mmsegmentation", "mmsegmentation"),
}
_OPENMMLAB = ("mmengine", "mmcv", "mmseg")
# What OpenMMLab's releases import without requiring it. distribution: {module: distribution}
_UNSTATED = {
    "mmengine": {"pkg_resources": "setuptools"},  # setuptools 81 dropped it
    "mmsegmentation": {"ftfy": "ftfy", "regex": "regex"},
}


def installed(module: str) -> tuple[str, str] | None:
    """Return the distribution that provides ``module`` and its version, or None."""
    for name in _PROVIDERS[module]:
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def check() -> None:
    """Check the installed libraries without importing them.

    Raises:
        ImportError: The first of the `problems`.
    """
    for problem in problems():
        raise ImportError(problem)


def problems() -> Iterator[str]:
    """Yield what keeps the installed libraries from working, without importing them.

    Each is a line that says what is installed, what is needed, and the command that fixes it.
    """
    for module, names in _PROVIDERS.items():
        found = installed(module)
        if found and fits(*found):
            continue
        name = found[0] if found else names[0]
        have = f"{name} {found[1]} is installed" if found else f"{module} is not installed"
        by_extra = module in _OPENMMLAB and name.startswith("onedl-")
        fix = "vfm_ss[mminstall]" if by_extra else requirement(name)
        yield f"vfm_ss needs {name} {bounds(name)}, but {have}; fix it with: pip install '{fix}'"
    for name, version in filter(None, map(installed, _OPENMMLAB)):
        for missing, distribution in _UNSTATED.get(name, {}).items():
            if importlib.util.find_spec(missing) is None:
                yield (
                    f"{name} {version} imports {missing}, which is not installed; fix it with: "
                    f"pip install '{requirement(distribution)}'"
                )


def import_quietly(*modules: str) -> None:
    """Import modules of mmseg without their noise.

    For onedl-mmsegmentation 1.4: at import it announces optional parts that it lacks and we do not
    use.
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Fail to import ``MultiScaleDeformableAttention``")
        for module in modules:
            importlib.import_module(module)


def name_packages() -> None:
    """Let configs inherit from ``vfm_ss::`` and ``mmseg::``.

    For every mmengine: it looks packages up in a fixed table, which lacks ours. For onedl-mmengine
    0.10: that table keeps OpenMMLab's distribution name of mmseg, and then does not find it.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE["vfm_ss"] = "vfm_ss"
    MODULE2PACKAGE["mmseg"] = installed("mmseg")[0]
    if installed("mmengine")[0] != "onedl-mmengine":
        _find_editable_install()


def _find_editable_install() -> None:
    """Let configs inherit from ``vfm_ss::`` where vfm_ss is installed with ``pip install -e``.

    For OpenMMLab's mmengine 0.10: it takes the folder of a distribution for that of its package,
    which in an editable installation it is not.
    """
    import mmengine.config.config as config

    find = config.get_installed_path
    if getattr(find, "knows_vfm_ss", False):
        return

    def get_installed_path(package: str) -> str:
        return str(Path(__file__).parents[1]) if package == "vfm_ss" else find(package)

    get_installed_path.knows_vfm_ss = True
    config.get_installed_path = get_installed_path
