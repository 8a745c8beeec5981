"""The libraries below us: which versions work, and what has to be prepared in them.

Two families of distributions provide mmengine, mmcv and mmseg: OpenMMLab's own releases and their
maintained continuation by OneDL. vfm_ss runs on both.
"""

import contextlib
import importlib
import importlib.metadata as metadata
import io
import warnings

from packaging.version import Version

# module: (distributions that provide it, lowest version, first version that is too new)
_NEEDED = {
    "torch": (("torch",), "2.4", "3"),
    "timm": (("timm",), "1.0.31", "2"),
    "mmengine": (("onedl-mmengine", "mmengine", "mmengine-lite"), "0.10.3", "1"),
    "mmcv": (("onedl-mmcv", "mmcv", "mmcv-lite"), "2.0.0", "3"),
    "mmseg": (("onedl-mmsegmentation", "mmsegmentation"), "1.2.0", "2"),
}
_OPENMMLAB = ("mmengine", "mmcv", "mmseg")


def installed(module: str) -> tuple[str, str] | None:
    """Return the distribution that provides ``module`` and its version, or None."""
    for name in _NEEDED[module][0]:
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def check() -> None:
    """Check the installed libraries without importing them.

    Raises:
        ImportError: One line that says what is installed, what is needed, and the command that
            mends it.
    """
    for module, (names, lowest, too_new) in _NEEDED.items():
        found = installed(module)
        if found and Version(lowest) <= Version(found[1]) < Version(too_new):
            continue
        have = f"{found[0]} {found[1]} is installed" if found else f"{module} is not installed"
        mend = (
            "pip install 'vfm_ss[mminstall]'"
            if module in _OPENMMLAB and not (found and found[0] == module)
            else f"pip install '{found[0] if found else names[0]}>={lowest},<{too_new}'"
        )
        raise ImportError(
            f"vfm_ss needs {names[0]} >={lowest},<{too_new}, but {have}; mend it with: {mend}"
        )


def prepare() -> None:
    """Import mmseg without its noise, and make its configs and ours known to mmengine.

    At import, OneDL's mmseg announces optional parts that it lacks and we do not use. For
    ``_base_ = 'package::...'``, mmengine keeps a fixed table of packages; OneDL's keeps OpenMMLab's
    distribution name for mmseg in it and then does not find it.
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Fail to import ``MultiScaleDeformableAttention``")
        for module in ("mmseg.datasets", "mmseg.models"):
            importlib.import_module(module)
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE["vfm_ss"] = "vfm_ss"
    MODULE2PACKAGE["mmseg"] = installed("mmseg")[0]
