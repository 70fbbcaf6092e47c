"""Import a package without modules of it that it runs and nobody needs; they are run when something does need them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
else:
    Loader = MetaPathFinder = object  # the import of these takes 4 ms, and they add nothing here


def defer(package: str, modules: Mapping[str, Sequence[str]]) -> None:
    """Let `import package`, if it is still to come, not run these modules, of it or of others, given by full names.

    They are run when a name of theirs is asked for, and before any further module of the package is imported: that one
    may rely on what they register. The functions given for a module may be taken from it without that: what is taken
    runs the module when it is called. Once the module is run, the package has its own function instead.
    `importlib.util.LazyLoader` would also run them when their `__file__` is asked for, which `inspect` does with all
    modules during `import torch`.
    """
    finder = _Finder(package, modules)
    if package not in sys.modules and finder not in sys.meta_path:
        sys.meta_path.insert(0, finder)


class _Finder(MetaPathFinder):
    def __init__(self, package: str, modules: Mapping[str, Sequence[str]]) -> None:
        self._package, self._modules = package, modules

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Finder) and vars(self) == vars(other)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self._package not in sys.modules:
            return None
        package = sys.modules[self._package]
        if getattr(package.__spec__, "_initializing", False):
            return self._deferred(fullname, path, package) if fullname in self._modules else None
        if fullname.startswith(f"{self._package}."):
            # The finder stays where it is, without work: this list is being walked, perhaps by several threads.
            names, self._modules = self._modules, {}
            for name in [name for name in [*sys.modules] if name in names]:  # in the order of their imports
                _run(sys.modules[name])
            if fullname in sys.modules:  # one of them imports it too
                return _imported(sys.modules[fullname])
        return None

    def _deferred(self, fullname: str, path: Sequence[str] | None, package: ModuleType) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Deferring(spec.loader, package, self._modules[fullname])
        return spec


class _Deferring(Loader):
    """Creates a module and leaves it to be run later."""

    def __init__(self, loader: Loader, package: ModuleType, functions: Sequence[str]) -> None:
        self._loader, self._package, self._functions = loader, package, functions
        self._stand_ins: dict[str, Callable[..., Any]] = {}

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._stand_ins = {name: _stand_in(module, name) for name in self._functions}
        vars(module).update(self._stand_ins)
        module.__class__ = _DeferredModule

    def run(self, module: ModuleType) -> None:
        module.__class__ = ModuleType  # its base, of the same layout
        assert module.__spec__
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        for name, stand_in in self._stand_ins.items():
            if vars(self._package).get(name) is stand_in:
                setattr(self._package, name, getattr(module, name))


class _Imported(Loader):
    """Gives a module that was imported while the import system looked for it, which would make a second one of it."""

    def __init__(self, module: ModuleType, loader: Loader | None) -> None:
        self._module, self._loader = module, loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__
        module.__spec__.loader = self._loader


def _imported(module: ModuleType) -> ModuleSpec | None:
    """The module's own spec, as the import system takes no other for a module that is there."""
    spec = module.__spec__
    if spec is not None:
        spec.loader = _Imported(module, spec.loader)
    return spec


class _DeferredModule(ModuleType):
    def __getattr__(self, name: str) -> object:
        """Run the module for a name that it does not have yet; what every module may lack tells of no need.

        `from module import *` asks for `__all__`.
        """
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        _run(self)
        return getattr(self, name)


def _stand_in(module: ModuleType, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        _run(module)
        return getattr(module, name)(*args, **kwargs)

    return call


def _run(module: ModuleType) -> None:
    if isinstance(module, _DeferredModule):
        assert module.__spec__ and isinstance(module.__spec__.loader, _Deferring)
        module.__spec__.loader.run(module)
