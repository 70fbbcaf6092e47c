"""Import a package without modules of it that it runs and nobody needs; they are run when something does need them."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
else:
    Loader = MetaPathFinder = object  # the import of these takes 4 ms, and they add nothing here


def defer(package: str, modules: Collection[str]) -> None:
    """Let `import package`, if it is still to come, not run these modules, of it or of others, given by full names.

    They are run when a name of theirs is asked for, and before any further module of the package is imported: that one
    may rely on what they register. `importlib.util.LazyLoader` would also run them when their `__file__` is asked for,
    which `inspect` does with all modules during `import torch`.
    """
    finder = _Finder(package, frozenset(modules))
    if package not in sys.modules and finder not in sys.meta_path:
        sys.meta_path.insert(0, finder)


class _Finder(MetaPathFinder):
    def __init__(self, package: str, modules: frozenset[str]) -> None:
        self._package, self._modules = package, modules

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Finder) and vars(self) == vars(other)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self._package not in sys.modules:
            return None
        if getattr(sys.modules[self._package].__spec__, "_initializing", False):
            return self._deferred(fullname, path) if fullname in self._modules else None
        if fullname.startswith(f"{self._package}."):
            # The finder stays where it is, without work: this list is being walked, perhaps by several threads.
            names, self._modules = self._modules, frozenset()
            for name in [name for name in [*sys.modules] if name in names]:  # in the order of their imports
                _run(sys.modules[name])
        return None

    def _deferred(self, fullname: str, path: Sequence[str] | None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Deferring(spec.loader)
        return spec


class _Deferring(Loader):
    """Creates a module and leaves it to be run later."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        module.__class__ = _DeferredModule


class _DeferredModule(ModuleType):
    def __getattr__(self, name: str) -> object:
        """Run the module for a name that it does not have yet; what every module may lack tells of no need.

        `from module import *` asks for `__all__`.
        """
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        _run(self)
        return getattr(self, name)


def _run(module: ModuleType) -> None:
    if isinstance(module, _DeferredModule):
        module.__class__ = ModuleType  # type: ignore[assignment]  # its base, of the same layout
        assert module.__spec__ and module.__spec__.loader
        module.__spec__.loader.exec_module(module)
