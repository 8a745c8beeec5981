"""Do something before and after another library is imported, whoever imports it and when.

Standard library only. wrapt's post-import hooks are not enough: they run after the import alone,
too late to say what is wrong with the library, and where one fails, a second import of the library
succeeds without it. Without importlib.abc, too, which takes longer than all else at our start.
"""

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType


def around_import(
    name: str, before: Callable[[], None] | None = None, after: Callable[[], None] | None = None
) -> None:
    """Run functions around the import of a module; at once where it is imported already.

    An error of theirs ends the import, and every later attempt meets it again.

    Args:
        name: Full name of the module.
        before: Runs before its code, where it can be found.
        after: Runs after its code.
    """
    if sys.modules.get(name) is not None:
        for function in filter(None, (before, after)):
            function()
    else:
        sys.meta_path.insert(0, _Finder(name, before, after))


class _Finder:
    def __init__(self, name, before, after):
        self.name, self.before, self.after = name, before, after

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        others = [f for f in sys.meta_path if f is not self and hasattr(f, "find_spec")]
        spec = next(filter(None, (f.find_spec(fullname, path, target) for f in others)), None)
        if spec is None or spec.loader is None:
            return spec
        if self.before is not None:
            self.before()
        if self.after is not None:
            spec.loader = _Loader(spec.loader, self.after)
        return spec


class _Loader:
    def __init__(self, loader, after):
        self.loader, self.after = loader, after

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.after()
