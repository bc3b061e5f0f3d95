"""The values that programs can read, found from their code: attributes, closures, globals, modules, tensors.

A value of the user's own objects counts where code that the programs reach has its name, so that counters and histories
of a trainer do not. That is more than a program reads, and not less: names in text (``getattr(self, "beta")``) count
too. What a program reads from a file or through C code is not found.
"""

import argparse
import sys
import types
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sized
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from pyro.infer import ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import Distribution, Transform

from probvae.errors import TraceError

PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.layout, np.generic)
# Libraries whose numbers stay what they are, and those of their classes whose objects hold a program's numbers
_CLOSED = frozenset({"torch", "pyro", "numpy", "scipy", *sys.stdlib_module_names} - {"__main__"})
_OPEN = (nn.Module, Distribution, Transform, Messenger, ELBO, types.SimpleNamespace, argparse.Namespace)
_CONTAINERS = (dict, list, tuple, deque)
_WRAPPERS = (property, staticmethod, classmethod)
# Methods that no step calls by itself
_NOT_IN_A_STEP = frozenset({"__init__", "__new__", "__repr__", "__str__", "__init_subclass__", "__setattr__"})
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_INTERNAL_TO_MODULES = frozenset(name for name in vars(nn.Module()) if name.startswith("_"))
# A comparison of more values before every step would take longer than the step
_MOST_VALUES, _MOST_BYTES = 5000, 2**16


class Point(NamedTuple):
    """A place that a program reads: ``owner[key]``, or with ``is_attribute`` ``owner.key``, and the ``value`` there.

    ``is_library`` marks a library's own bookkeeping.
    """

    owner: Any
    key: Any
    value: Any
    is_attribute: bool
    is_library: bool

    def fact(self) -> Hashable:
        """The part that is compared: a value, a tensor's identity and place, a function's code, an object's kind."""
        value = self.value
        if isinstance(value, PLAIN):
            return Value(type(value), repr(value))  # NaN is itself, and 1 is not True
        if isinstance(value, Tensor):
            return Place(id(value), value.data_ptr(), value.requires_grad)
        if isinstance(value, np.ndarray):
            return str(value.dtype), value.shape, value.tobytes()
        if isinstance(value, types.FunctionType):
            return value.__code__
        if isinstance(value, types.MethodType):
            return value.__func__
        if isinstance(value, (*_CONTAINERS, set, frozenset)):
            return type(value), len(value)
        return (type(value), None if _has_parts(value) else id(value))


class Value(NamedTuple):
    """A plain value as it is compared and shown."""

    kind: type
    text: str

    def __str__(self) -> str:
        return self.text


class Place(NamedTuple):
    """A tensor as it is compared and shown."""

    identity: int
    pointer: int
    requires_grad: bool

    def __str__(self) -> str:
        return f"a {'trained' if self.requires_grad else 'constant'} tensor"


class Reachable:
    """All ``points``, ``modules`` and tensors that ``programs`` reach; the points are known by readable names.

    ``sized`` are the containers whose length shows that something was added, ``held`` parameters and buffers of
    modules, ``tensors`` all others. Raises :class:`~probvae.errors.TraceError` where there are too many to be compared.
    """

    def __init__(self, programs: Iterable[object]) -> None:
        roots, known = list(programs), 0
        self.names = {"forward"}
        self.own = {"probvae", *(_package(root) for root in roots)} - _CLOSED
        while known != len(self.names):  # names in code lead to more objects, and these to more code
            known = len(self.names)
            self._start()
            for root in roots:
                self._visit(root, _name_of(root))

    def _start(self) -> None:
        self.points: dict[str, Point] = {}
        self.sized: list[Sized] = []
        self.modules: list[nn.Module] = []
        self.held: dict[int, Tensor] = {}
        self.tensors: list[Tensor] = []
        self._seen: dict[Any, object] = {}  # the objects live as long as their identities are used

    def _add(self, owner: Any, key: Any, value: Any, name: str, attribute: bool = False, library: bool = False) -> None:
        if len(self.points) >= _MOST_VALUES:
            raise TraceError(f"the program reaches more than {_MOST_VALUES} values, among them {name}")
        if isinstance(value, np.ndarray) and value.nbytes > _MOST_BYTES:
            raise TraceError(f"the program reaches {name}, a large array in which a change would not be seen")
        while name in self.points:
            name += "'"
        self.points[name] = Point(owner, key, value, attribute, library)
        self._visit(value, name, library)

    def _visit(self, value: Any, name: str, library: bool = False) -> None:
        if isinstance(value, PLAIN) or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, Tensor):
            if id(value) not in self.held:
                self.tensors.append(value)
        elif isinstance(value, types.FunctionType):
            self._function(value, name)
        elif isinstance(value, types.MethodType):
            self._visit(value.__self__, _name_of(value.__self__))
            self._visit(value.__func__, name)
        elif isinstance(value, partial):
            for part in (value.func, value.args, value.keywords):
                self._visit(part, name)
        elif isinstance(value, _WRAPPERS):
            self._visit(value.fget if isinstance(value, property) else value.__func__, name)
        elif isinstance(value, type):
            self._class(value, is_made=True)
        elif isinstance(value, types.ModuleType):
            self._python_module(value)
        elif hasattr(value, "__wrapped__"):
            self._visit(value.__wrapped__, name)
        else:
            self._object(value, name, library)

    def _object(self, value: Any, name: str, library: bool) -> None:
        if isinstance(value, _CONTAINERS):
            self.sized.append(value)
            for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
                self._add(value, key, part, f"{name}[{key!r}]", library=library)
        elif isinstance(value, set | frozenset):
            self.sized.append(value)
        if not _has_parts(value):
            return
        kind, entries = type(value), getattr(value, "__dict__", {})
        library = not self._is_own(kind) and not isinstance(value, types.SimpleNamespace | argparse.Namespace)
        self._class(kind, is_made=False)
        if isinstance(value, nn.Module):
            self._network(value, name)
        if entries and not library:
            self.sized.append(entries)
        is_whole = any(not self._is_own(base) for base in _bases(kind))
        for key, part in list(entries.items()):
            is_internal = isinstance(value, nn.Module) and key in _INTERNAL_TO_MODULES
            if not is_internal and (is_whole or key in self.names or key == "training"):
                self._add(entries, key, part, f"{name}.{key}", library=library)
        for key in _slots(kind):
            if (is_whole or key in self.names) and hasattr(value, key):
                self._add(value, key, getattr(value, key), f"{name}.{key}", attribute=True, library=library)

    def _network(self, module: nn.Module, name: str) -> None:
        self.modules.append(module)
        for part in ("_parameters", "_buffers", "_modules"):
            entries = vars(module).get(part)
            if not isinstance(entries, dict):
                continue
            self.sized.append(entries)
            if part != "_modules":
                self.held.update({id(tensor): tensor for tensor in entries.values() if tensor is not None})
            for key, child in list(entries.items()):
                self._add(entries, key, child, f"{name}.{key}")
        for part in _HOOKS:
            hooks = vars(module).get(part, {})
            self.sized.append(hooks)
            if hooks:
                self._add(vars(module), part, hooks, f"{name}.{part}")

    def _function(self, function: types.FunctionType, name: str) -> None:
        for free, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if cell != types.CellType():  # an empty cell has no contents yet
                self._add(cell, "cell_contents", cell.cell_contents, f"{name}: {free}", attribute=True)
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self._visit(value, f"a default of {name}")
        if not self._is_own(function):
            return
        names = set(_names_in(function.__code__))
        self.names |= names
        for key in sorted(names & function.__globals__.keys()):
            self._global(function.__globals__, key, key, function)

    def _global(self, entries: dict[str, Any], key: str, name: str, reader: object) -> None:
        """A global of a module of Python: constants of this package, and code of libraries, stay what they are."""
        value = entries[key]
        is_code = isinstance(value, type | types.FunctionType | types.BuiltinFunctionType | types.ModuleType)
        stays = isinstance(value, types.ModuleType) or (is_code and not self._is_own(value))
        if not stays and _package(reader) != "probvae":
            self._add(entries, key, value, name)
        elif is_code:
            self._visit(value, name)

    def _class(self, kind: type, is_made: bool) -> None:
        """The methods that code has the names of, and the class's numbers; ``is_made`` where objects of it are made."""
        for base in kind.__mro__:
            if not self._is_own(base) or (id(base), is_made) in self._seen:
                continue
            self._seen[id(base), is_made] = base
            for key, value in list(vars(base).items()):
                is_special = key.startswith("__") and key.endswith("__")
                called = is_special and (key not in _NOT_IN_A_STEP or (is_made and key == "__init__"))
                if isinstance(value, (types.FunctionType, *_WRAPPERS)):
                    if called or key in self.names:
                        self._visit(value, f"{base.__name__}.{key}")
                elif key in self.names and not (is_special or _package(base) == "probvae" or hasattr(value, "__get__")):
                    self._add(base, key, value, f"{base.__name__}.{key}", attribute=True)

    def _python_module(self, module: types.ModuleType) -> None:
        """The numbers in a user's module of Python that code has the names of: ``settings.beta``."""
        if self._is_own(module) and _package(module) != "probvae":
            for key in sorted(self.names & vars(module).keys()):
                if not key.startswith("__"):
                    self._global(vars(module), key, f"{module.__name__}.{key}", module)

    def _is_own(self, value: object) -> bool:
        package = _package(value)
        return package in self.own or not (package in _CLOSED or _is_installed(package))


def _package(value: object) -> str:
    """The top-level package of a function, a class, a module of Python, a method, or an object's class."""
    if isinstance(value, types.ModuleType):
        return value.__name__.partition(".")[0]
    if isinstance(value, types.MethodType):
        return _package(value.__self__)
    if not isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        value = type(value)
    return str(getattr(value, "__module__", None) or "builtins").partition(".")[0]


@cache
def _is_installed(package: str) -> bool:
    """True for a package among those that an installer puts beside Python's own."""
    module = sys.modules.get(package)
    paths = [*(getattr(module, "__path__", None) or []), getattr(module, "__file__", None) or ""]
    return any("site-packages" in str(path) or "dist-packages" in str(path) for path in paths)


def _bases(kind: type) -> Iterator[type]:
    """The classes whose methods may read an object's attributes: not those that every class or module has."""
    for base in kind.__mro__:
        if base is not nn.Module and _package(base) not in sys.stdlib_module_names:
            yield base


def _has_parts(value: object) -> bool:
    """True for objects whose attributes are looked at."""
    if isinstance(value, _OPEN):
        return True
    is_code = isinstance(value, type | types.FunctionType | types.MethodType | types.ModuleType | Tensor)
    if is_code or _package(value) in _CLOSED:
        return False
    return hasattr(value, "__dict__") or any(True for _ in _slots(type(value)))


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if not slot.startswith("__"):
                yield slot


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)
        elif isinstance(constant, str) and constant.isidentifier():
            yield constant


def _name_of(value: object) -> str:
    return getattr(value, "__qualname__", None) or type(value).__name__
