"""Private names of the libraries below are touched in vfm_ss/compat alone.

Private is what starts with one underscore and is not ours. Two ways see different things: the
source of a file, and the names that a class of ours shares with a library's class that it inherits
from.
"""

import ast
import importlib
import inspect
import pkgutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from mmengine.hooks import CheckpointHook
from mmseg.models.decode_heads.decode_head import BaseDecodeHead

import vfm_ss

ROOT = Path(__file__).parents[2]
OURS = ("vfm_ss", "projects", "tools")
_BY_STRINGS = ("getattr", "setattr", "hasattr", "delattr", "patch", "object", "attrgetter")


def defined_names(trees: Iterable[ast.AST]) -> set[str]:
    """Return the private names that some code defines itself.

    Those of functions, classes, variables of modules and classes, arguments, and attributes of
    ``self``. An assignment to the attribute of another object defines nothing.
    """
    names = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif _of_self(node) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return {name for name in names if _private(name)}


def in_source(tree: ast.AST, defined: set[str]) -> Iterator[tuple[int, str]]:
    """List what one file uses of others.

    Args:
        tree: Its syntax tree.
        defined: Private names that are ours, see `defined_names`.

    Yields:
        Line and text of each private attribute, private import, string that names one, and
        assignment into an imported module or a table of one.
    """
    statements = [found for node in ast.walk(tree) for found in _imports(node)]
    foreign = {name for _, full, name in statements if _foreign(full)}
    harmless = {name for _, full, name in statements} - foreign
    for line, full, _ in statements:
        if _foreign(full) and any(map(_private, full.split(".")[1:])):
            yield line, f"import {full}"
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
            continue
        root, attribute = _root(node), getattr(node, "attr", "")
        if _private(attribute) and attribute not in defined and root not in harmless:
            yield node.lineno, ast.unparse(node)
        elif isinstance(getattr(node, "ctx", None), ast.Store) and root in foreign:
            yield node.lineno, f"{ast.unparse(node)} ="
        for text in _named_by_strings(node):
            name = text.rpartition(".")[2]
            if _private(name) and name not in defined:
                yield node.lineno, ast.unparse(node)


def in_classes(classes: Iterable[type]) -> Iterator[str]:
    """List the private names that classes of ours share with a library's that they inherit from.

    Yields:
        The class of ours whose code overrides, reads or sets the name, and where it is from.
    """
    for cls in classes:
        ours = [base for base in cls.__mro__ if _is_ours(base)]
        for library in (base for base in cls.__mro__ if base not in ours):
            theirs = set(vars(library)) | _names_in(library)
            for base in ours:
                for name in sorted(_names_in(base) & theirs):
                    yield f"{base.__module__}.{base.__qualname__}: {name} of {library.__qualname__}"


def our_classes() -> set[type]:
    """Return the classes of ours in the modules that are imported."""
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] in OURS]
    values = [value for module in modules for value in vars(module).values()]
    return {value for value in values if isinstance(value, type) and _is_ours(value)}


def parse(*folders: Path) -> dict[Path, ast.AST]:
    """Parse the Python files below folders, those of ``vfm_ss/compat`` and links left out."""
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    kept = [path for path in files if not {"compat", ".mim"} & set(path.parts)]
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in kept}


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name.strip("_") != ""


def _imports(node: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield line, full name and the name in the file of what an import statement imports."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield node.lineno, alias.name, alias.asname or alias.name.split(".")[0]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        for alias in node.names:
            yield node.lineno, f"{node.module}.{alias.name}", alias.asname or alias.name


def _named_by_strings(node: ast.AST) -> list[str]:
    """Return the strings in ``getattr(x, "_name")``, ``patch("module._name")`` and their like."""
    given = []
    if isinstance(node, ast.Call):
        if ast.unparse(node.func).rpartition(".")[2] in _BY_STRINGS:
            given = node.args
    elif isinstance(node, ast.Subscript):
        owner = ast.unparse(node.value)
        if owner.startswith("vars(") or owner.endswith(".__dict__"):
            given = [node.slice]
    values = [arg.value for arg in given if isinstance(arg, ast.Constant)]
    return [value for value in values if isinstance(value, str)]


def _foreign(full: str) -> bool:
    return full.split(".")[0] not in {*OURS, *sys.stdlib_module_names}


def _is_ours(cls: type) -> bool:
    name = f"{cls.__module__}."
    return name.split(".")[0] in OURS and not name.startswith("vfm_ss.compat.")


def _names_in(cls: type) -> set[str]:
    """Return the private names that the source of a class defines, or takes of ``self``."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return set()
    names = {node.attr for node in ast.walk(tree) if _of_self(node)}
    for node in tree.body[0].body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if _private(name)}


def _of_self(node: ast.AST) -> bool:
    """Return whether a node is ``self.name``, ``cls.name`` or ``super().name``."""
    return isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "cls", "super()")


def _root(node: ast.AST) -> str | None:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def test_no_source_uses_a_private_name_of_a_library():
    trees = parse(ROOT / "vfm_ss", ROOT / "projects", ROOT / "tools")
    assert len(trees) > 100
    defined = defined_names(trees.values())
    found = [
        f"{path.relative_to(ROOT)}:{line}: {use}"
        for path, tree in trees.items()
        for line, use in in_source(tree, defined)
    ]
    assert found == []


def test_no_class_touches_what_its_base_in_a_library_keeps_private():
    for module in pkgutil.walk_packages(vfm_ss.__path__, "vfm_ss."):
        importlib.import_module(module.name)
    classes = our_classes()
    assert {"AtomicCheckpointHook", "VFMEncoderDecoder", "RawADE20KDataset", "TimmViT"} <= {
        cls.__name__ for cls in classes
    }
    assert sorted(set(in_classes(classes))) == []


OWN = """
class Ours:
    _shared = 1
    def __init__(self):
        self._mine = 2
"""
PLANTED = {
    "runner._resume": "runner._resume",
    "runner._train_loop = 3": "runner._train_loop",
    "x.y()._private[0]": "x.y()._private",
    "from mmengine.runner.loops import _InfiniteDataloaderIterator": (
        "import mmengine.runner.loops._InfiniteDataloaderIterator"
    ),
    "import torch._dynamo": "import torch._dynamo",
    "from torch._utils import _rebuild_tensor_v2 as f": "import torch._utils._rebuild_tensor_v2",
    "import numpy as np\nnp._core.multiarray": "np._core",
    "getattr(model, '_compiled_call_impl', None)": "getattr(model, '_compiled_call_impl', None)",
    "vars(model)['_modules']": "vars(model)['_modules']",
    "from unittest.mock import patch\npatch('timm.models._builder._x')": (
        "patch('timm.models._builder._x')"
    ),
    "from mmengine.hooks import iter_timer_hook\niter_timer_hook.time = None": (
        "iter_timer_hook.time ="
    ),
    "from mmengine.config.utils import MODULE2PACKAGE\nMODULE2PACKAGE['a'] = 'b'": (
        "MODULE2PACKAGE['a'] ="
    ),
    "import mmengine.config.config as config\nconfig.get_installed_path = f": (
        "config.get_installed_path ="
    ),
}


@pytest.mark.parametrize("source", PLANTED)
def test_a_planted_use_is_found(source):
    tree = ast.parse(source)
    found = [use for _, use in in_source(tree, defined_names([tree, ast.parse(OWN)]))]
    assert found == [PLANTED[source]]


@pytest.mark.parametrize("source", [
    "self._mine", "other._mine", "Ours._shared", "runner.resume", "x.__class__.__name__",
    "import os\nos._exit(1)\nos.environ['A'] = 'b'", "from vfm_ss.sweep import lock\nlock._read",
    "d = {}\nd['a'] = 1", "def f(_arg):\n    return f(_arg=1)", "getattr(x, 'name')", "'_word'",
])  # fmt: skip
def test_what_is_ours_or_pythons_is_not(source):
    tree = ast.parse(source)
    assert list(in_source(tree, defined_names([tree, ast.parse(OWN)]))) == []


def test_a_planted_override_and_attribute_of_a_base_are_found(monkeypatch):
    class Overrides(CheckpointHook):
        def _save_checkpoint(self, runner):
            self._own = 1

    class Reads(BaseDecodeHead):
        def forward(self, inputs):
            return self._transform_inputs(inputs)

    class Sets(BaseDecodeHead):
        def __init__(self):
            self._forward_hooks = {}

    class Innocent(BaseDecodeHead):
        def _of_my_own(self):
            return self._of_my_own

    monkeypatch.setitem(globals(), "OURS", (*OURS, __name__.split(".")[0]))
    planted = in_classes([Overrides, Reads, Sets, Innocent])
    found = {line.split(": ")[1] for line in planted}
    assert found == {
        "_save_checkpoint of CheckpointHook",
        "_transform_inputs of BaseDecodeHead",
        "_forward_hooks of Module",
    }
