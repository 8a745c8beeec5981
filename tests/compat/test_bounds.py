"""The required versions: stated in requirements/*.txt, and read wherever the package lies."""

import importlib.metadata as metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vfm_ss.compat import bounds as module
from vfm_ss.compat import stack
from vfm_ss.compat.bounds import bounds, fits, requirement

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"([\w-]+)(?:>=([\d.]+))?(?:,?<([\d.]+))?")


def stated(name: str) -> dict[str, tuple[str | None, str | None]]:
    """Read one of the files in a way of its own: distribution -> (lowest, too new)."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    matches = [LINE.fullmatch(line) for line in lines if line and line[0] != "#"]
    return {match[1]: (match[2], match[3]) for match in matches}


@pytest.fixture
def _anew():
    module.requirements.cache_clear()
    yield
    module.requirements.cache_clear()


def check_bounds():
    for name in ("runtime", "mminstall", "openmmlab"):
        for distribution, (lowest, too_new) in stated(name).items():
            expected = [f">={lowest}"] * bool(lowest) + [f"<{too_new}"] * bool(too_new)
            assert bounds(distribution) == ",".join(expected), distribution
            if lowest:
                assert fits(distribution, lowest)
            if too_new:
                assert not fits(distribution, too_new)


def test_the_bounds_are_those_of_the_files():
    check_bounds()
    assert stated("openmmlab")["mmcv"] == ("2.0.0", "2.2")


@pytest.mark.usefixtures("_anew")
def test_an_installed_package_reads_the_same_from_its_metadata(tmp_path, monkeypatch):
    for name in ("setup.py", "README.md", "requirements", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (tmp_path / "vfm_ss").mkdir()
    shutil.copy(ROOT / "vfm_ss" / "version.py", tmp_path / "vfm_ss")
    command = [sys.executable, "setup.py", "-q", "egg_info"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    built = metadata.Distribution.at(tmp_path / "vfm_ss.egg-info")
    monkeypatch.setattr(module, "_CHECKOUT", tmp_path / "site-packages")
    monkeypatch.setattr(module.metadata, "requires", lambda name: built.requires)
    check_bounds()
    with pytest.raises(KeyError):
        bounds("pytest")  # an extra that no stack needs


@pytest.mark.usefixtures("_anew")
def test_a_copy_that_is_neither_says_so(tmp_path, monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module, "_CHECKOUT", tmp_path)
    monkeypatch.setattr(module.metadata, "requires", requires)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} holds vfm_ss without setup.py"):
        bounds("torch")


@pytest.mark.parametrize(
    ("distribution", "version"),
    [("mmsegmentation", "1.2.0"), ("mmcv", "2.2.0"), ("mmcv-lite", "2.2.0"),
     ("onedl-mmcv", "2.2.0"), ("onedl-mmengine", "0.11.0"), ("torch", "2.3.1")],
)  # fmt: skip
def test_a_version_outside_is_refused_as_the_file_says(distribution, version, monkeypatch):
    module_name = next(m for m, names in stack._PROVIDERS.items() if distribution in names)

    def installed(name):
        return (distribution, version) if name == module_name else ("timm", "1.0.31")

    monkeypatch.setattr(stack, "_PROVIDERS", {module_name: stack._PROVIDERS[module_name]})
    monkeypatch.setattr(stack, "_OPENMMLAB", ())
    monkeypatch.setattr(stack, "installed", installed)
    with pytest.raises(ImportError) as error:
        stack.check()
    assert f"needs {requirement(distribution).replace('>', ' >', 1)}, but" in str(error.value)


@pytest.mark.parametrize("version", ["2.4.0", "2.12.1+cu128", "2.13.0.dev20260101"])
def test_builds_of_torch_are_accepted(version):
    assert fits("torch", version)


def test_the_versions_that_are_tested_are_within_the_bounds():
    pinned = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    known = {name for file in ("runtime", "mminstall", "openmmlab") for name in stated(file)}
    pins = [line.split("==") for line in pinned if "==" in line]
    assert {"torch", "timm", "mmcv", "onedl-mmcv"} <= {name for name, _ in pins} & known
    for name, version in pins:
        if name in known:
            assert fits(name, version), name
