"""A cell or an objective taken apart: the tensors that it holds, and a name for all the rest.

A solve is handed a new closure every time, over new targets, with the same code. What was recorded with one closure
serves the next if nothing but the numbers in its tensors is another: so functions, partials, methods and plain objects
are followed down to tensors, which become constants of the recorded step, and to everything else, which becomes part of
its key. Modules stay where they are: their weights are read at their addresses, and training goes on under the record.
"""

from __future__ import annotations

import copy
import enum
import functools
import inspect
import types
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from ..holding import HeldWeight
from .base import refuse

SIMPLE = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.layout, enum.Enum, range)
FIXED = (type, types.ModuleType, types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
HOUSES = ("torch", "jiio", "builtins", "math", "functools", "operator")  # whose functions stay what they are
LARGEST = 20_000  # things that one closure may consist of
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

Maker = Callable[[list[Tensor]], Any]


class Ingredients:
    """What a tree of callables and tensors consists of.

    key: equal for two that differ in the numbers of their tensors alone. tensors: those, in a fixed order. modules:
    whose weights are read in place; they are not kept alive by the key.
    """

    def __init__(self, *whole: Any) -> None:
        self.tensors: list[Tensor] = []
        self.modules: list[nn.Module] = []
        self._places: dict[int, int] = {}  # id of a tensor -> where it stands
        self._open: set[int] = set()
        self._seen: dict[int, tuple[int, Maker | None]] = {}
        self._alive: list[Any] = []  # made on the way: while it is there nobody else gets its id
        self._count = 0
        found = [self._visit(part) for part in whole]
        self.key: Hashable = tuple(key for key, _ in found)
        self._whole, self._makers = whole, [maker for _, maker in found]
        self._alive.clear()

    def rebuilt(self, tensors: list[Tensor]) -> list[Any]:
        """The same callables over other tensors."""
        return [old if maker is None else maker(tensors) for old, maker in zip(self._whole, self._makers, strict=True)]

    def _visit(self, part: Any) -> tuple[Hashable, Maker | None]:
        """The key of one part, and what makes it anew; None where it holds no tensor."""
        self._count += 1
        if self._count > LARGEST:
            refuse("a closure over very many things")
        if isinstance(part, SIMPLE):
            return (type(part), part), None
        if isinstance(part, FIXED) or _at_home(part):
            return part, None

        if isinstance(part, Tensor):
            return self._tensor(part)
        if isinstance(part, nn.Module):
            self.modules.append(part)
            return ("module", id(part), module_key(part)), None

        # Met before, or within itself.
        if id(part) in self._seen:
            return ("again", self._seen[id(part)][0]), self._seen[id(part)][1]
        if id(part) in self._open:
            refuse("a closure that holds itself")
        self._open.add(id(part))
        key, maker = self._composed(part)
        self._open.discard(id(part))
        self._seen[id(part)] = len(self._seen), maker
        self._alive.append(part)
        return key, maker

    def _tensor(self, part: Tensor) -> tuple[Hashable, Maker | None]:
        if type(part) not in (Tensor, nn.Parameter) or part.layout != torch.strided or part.is_quantized:
            refuse(f"a closure over a {type(part).__name__} of layout {part.layout}")
        place = self._places.setdefault(id(part), len(self.tensors))
        if place == len(self.tensors):
            self.tensors.append(part)
        key = ("tensor", place, tuple(part.shape), part.dtype, part.device)
        return key, lambda tensors: tensors[place]

    def _composed(self, part: Any) -> tuple[Hashable, Maker | None]:
        if isinstance(part, (tuple, list)):
            return self._sequence(part)
        if isinstance(part, dict):
            return self._mapping(part)
        if isinstance(part, functools.partial):
            key, maker = self._visit((part.func, part.args, part.keywords))
            return ("partial", key), _after(maker, lambda found: functools.partial(found[0], *found[1], **found[2]))
        if inspect.ismethod(part):
            key, maker = self._visit((part.__func__, part.__self__))
            return ("method", key), _after(maker, lambda found: types.MethodType(*found))
        if inspect.isfunction(part):
            return self._function(part)
        return self._object(part)

    def _sequence(self, part: Any) -> tuple[Hashable, Maker | None]:
        found = [self._visit(entry) for entry in part]
        kind, named = type(part), hasattr(part, "_fields")

        def made(tensors: list[Tensor]) -> Any:
            new = [old if m is None else m(tensors) for old, (_, m) in zip(part, found, strict=True)]
            return kind(*new) if named else kind(new)

        return (kind, tuple(key for key, _ in found)), made if any(m for _, m in found) else None

    def _mapping(self, part: dict[Any, Any]) -> tuple[Hashable, Maker | None]:
        if type(part) is not dict:
            refuse(f"a closure over a {type(part).__name__}")
        names, maker_of_names = self._visit(list(part))
        values, maker = self._visit(list(part.values()))
        if maker_of_names is not None:
            refuse("a closure over a dict whose keys hold tensors")
        return ("dict", names, values), _after(maker, lambda found: dict(zip(part, found, strict=True)))

    def _function(self, part: types.FunctionType) -> tuple[Hashable, Maker | None]:
        """Code, defaults, what it closes over, and the globals that it names; only the last stay where they are."""
        closed = [cell.cell_contents for cell in part.__closure__ or ()]
        inner, maker = self._visit([closed, list(part.__defaults__ or ()), dict(part.__kwdefaults__ or {})])
        named = [(name, self._global(part.__globals__[name])) for name in _names(part.__code__) & set(part.__globals__)]

        def made(found: Any) -> Any:
            cells = tuple(types.CellType(value) for value in found[0])
            new = types.FunctionType(part.__code__, part.__globals__, part.__name__, tuple(found[1]) or None, cells)
            new.__kwdefaults__ = found[2] or None
            return new

        return ("function", part.__code__, part.__module__, inner, tuple(sorted(named, key=str))), _after(maker, made)

    def _global(self, value: Any) -> Hashable:
        """A global that a function names: simple ones by value, tensors by their address, others by what they are."""
        if isinstance(value, Tensor):
            return ("address", id(value), value.data_ptr() if value.device.type != "meta" else 0, tuple(value.shape))
        if isinstance(value, (*SIMPLE, *FIXED)) or _at_home(value):
            return self._visit(value)[0]
        if inspect.isfunction(value) and id(value) not in self._open and id(value) not in self._seen:
            return self._visit(value)[0]
        if isinstance(value, nn.Module):
            return self._visit(value)[0]
        return ("object", id(value))

    def _object(self, part: Any) -> tuple[Hashable, Maker | None]:
        """A plain object: its class and its attributes, but for those that it declares to be no part of the map."""
        if isinstance(part, torch.Generator) or not hasattr(part, "__dict__") or _slots(type(part)):
            refuse(f"a closure over a {type(part).__module__}.{type(part).__qualname__}")
        apart = getattr(type(part), "apart", ())
        attributes = {name: value for name, value in vars(part).items() if name not in apart}
        key, maker = self._visit(attributes)

        def made(found: dict[str, Any]) -> Any:
            new = copy.copy(part)
            new.__dict__.update(found)
            return new

        return ("object", type(part), key), _after(maker, made)


def module_key(module: nn.Module) -> Hashable:
    """All that the operations of a module depend on but the numbers in its weights; raises for one with hooks."""
    found: list[Hashable] = []
    for part in module.modules():
        own: list[Hashable] = [type(part), part.training]
        if any(part.__dict__.get(name) for name in HOOKS):
            refuse(f"a {type(part).__name__} with hooks, which would not be called")

        # Weights by their address, numbers by value, anything else by what it is.
        for name, value in part.__dict__.items():
            if isinstance(value, Tensor):
                own.append((name, *address(value)))
            elif name in ("_parameters", "_buffers"):
                own += [(key, *address(t)) for key, t in value.items() if t is not None]
            elif isinstance(value, SIMPLE):
                own.append((name, value))
            elif name == "forward":
                own.append(_replaced(value))
            elif not name.startswith("_"):
                own.append((name, id(value)))
        found.append(tuple(own))
    return tuple(found)


def _replaced(forward: Any) -> Hashable:
    """What stands in for the ``forward`` of a module: that of a held weight is looked after by the solve itself."""
    if isinstance(forward, HeldWeight):
        return None
    closed = [cell.cell_contents for cell in getattr(forward, "__closure__", None) or ()]
    simple = tuple((type(value), value) for value in closed if isinstance(value, SIMPLE))
    return "forward", getattr(forward, "__code__", id(forward)), simple


def address(t: Tensor) -> tuple[Hashable, ...]:
    """Where a weight lies, and how."""
    return id(t), t.data_ptr(), tuple(t.shape), tuple(t.stride()), t.dtype, t.device


def _slots(kind: type) -> bool:
    """Whether instances keep something outside of their ``__dict__``."""
    return any(base.__dict__.get("__slots__") for base in kind.__mro__)


def _after(maker: Maker | None, change: Callable[[Any], Any]) -> Maker | None:
    return None if maker is None else lambda tensors: change(maker(tensors))


def _names(code: types.CodeType) -> set[str]:
    """The globals that code may name, and that of the functions within it."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found


def _at_home(part: Any) -> bool:
    """A plain function of a library, which closes over nothing."""
    if not inspect.isfunction(part) or part.__closure__:
        return False
    return (part.__module__ or "").partition(".")[0] in HOUSES
