"""`around_import` on modules made here, in this process."""

import importlib
import sys

import pytest

from vfm_ss.compat.import_hooks import around_import


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A package `library_below` that can be imported, and whatever its import adds is removed."""
    package = tmp_path / "library_below"
    package.mkdir()
    (package / "__init__.py").write_text("events = ['its own code']\n")
    (package / "data.txt").write_text("data")
    (package / "sub.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:])
    yield "library_below"
    for name in [n for n in sys.modules if n.startswith("library_below")]:
        del sys.modules[name]


def test_functions_run_around_the_import_and_once(library):
    seen = []
    around_import(
        library,
        before=lambda: seen.append(library in sys.modules),
        after=lambda: seen.append(sys.modules[library].events),
    )
    assert seen == []
    importlib.import_module(library)
    importlib.import_module(library)
    assert seen == [False, ["its own code"]]


def test_a_submodule_that_is_imported_first_imports_its_package_and_runs_them(library):
    seen = []
    around_import(library, after=lambda: seen.append(f"{library}.sub" in sys.modules))
    importlib.import_module(f"{library}.sub")
    assert seen == [False], "before the submodule's own code"


def test_they_run_at_once_where_the_module_is_there(library):
    importlib.import_module(library)
    seen = []
    around_import(library, before=lambda: seen.append("before"), after=lambda: seen.append("after"))
    assert seen == ["before", "after"]


def test_the_module_keeps_its_own_loader(library):
    around_import(library, after=lambda: None)
    module = importlib.import_module(library)
    assert module.__loader__ is module.__spec__.loader
    assert importlib.resources.files(library).joinpath("data.txt").read_text() == "data"
    assert importlib.reload(module) is module


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_error_ends_every_import_until_it_is_fixed(library, when):
    broken = [True]

    def function():
        if broken:
            raise ImportError("the stack is unusable")

    around_import(library, **{when: function})
    for _ in range(2):
        with pytest.raises(ImportError, match=r"^the stack is unusable$"):
            importlib.import_module(library)
        assert library not in sys.modules
    broken.clear()
    assert importlib.import_module(library).events == ["its own code"]


def test_a_module_that_does_not_exist_stays_one(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:])
    around_import("no_such_library", before=lambda: pytest.fail("it cannot be imported"))
    assert importlib.util.find_spec("no_such_library") is None
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_library'"):
        importlib.import_module("no_such_library")
