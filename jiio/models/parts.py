"""Functions and plain modules as the parts of an equilibrium model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_callable
from ..layout import Tree, map_tree
from ..persample import rows_of

Part = nn.Module | Callable[..., Any]


@dataclass(frozen=True)
class Origin:
    """Where a model that somebody put together comes from: a function without arguments at ``package.module:name``,
    which puts it together again, with other weights.
    """

    path: str


class Called(nn.Module):
    """A function as a module. The modules that it is seen to use are its children, but for the ``known`` ones, which
    are somebody else's already; so they move, save and change their mode with the model.
    """

    def __init__(self, function: Callable[..., Any], known: Collection[nn.Module] = ()) -> None:
        super().__init__()
        self.function = function
        self.used = nn.ModuleList(part for part in modules_of(function) if part not in known)

    def forward(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def rows(self, index: Tensor) -> Called | None:
        """The samples ``index`` (k,), where the function offers that, as :class:`jiio.PerSample` does."""
        function = rows_of(self.function, index)
        return None if function is None else Called(function)


class StartedCell(nn.Module):
    """(z, u) -> cell(z, u) with an initial state, zeros like u unless ``start`` (u -> z0) says another."""

    def __init__(self, cell: nn.Module, start: Callable[[Tree], Tree] | None) -> None:
        super().__init__()
        self.cell, self.start = cell, start

    def forward(self, z: Tree, u: Tree) -> Tree:
        return self.cell(z, u)

    def rows(self, index: Tensor) -> StartedCell | None:
        """The samples ``index`` (k,), where the cell offers that."""
        cell = rows_of(self.cell, index)
        return None if cell is None else StartedCell(cell, self.start)

    def initial_state(self, u: Tree) -> Tree:
        return map_tree(torch.zeros_like, u) if self.start is None else self.start(u)


def as_module(name: str, part: Part, known: Collection[nn.Module] = ()) -> nn.Module:
    """A part of a model: itself where it is a module. known: modules that belong to the model already."""
    if isinstance(part, nn.Module):
        return part
    return Called(check_callable(name, part, "or a module, a part of the model"), known)


def as_cell(cell: Part, start: Callable[[Tree], Tree] | None) -> nn.Module:
    """A cell with an initial state: itself where it has one and no other is asked for."""
    if start is not None:
        check_callable("initial_state", start, "u -> z0")
    elif isinstance(cell, nn.Module) and callable(getattr(cell, "initial_state", None)):
        return cell
    return StartedCell(as_module("cell", cell), start)


def modules_of(function: Callable[..., Any]) -> list[nn.Module]:
    """The modules that a function uses by itself: that it is a method of, that were bound to it, or that it names.

    What it uses through other functions is not seen.
    """
    if isinstance(function, functools.partial):
        bound = [*function.args, *function.keywords.values()]
        return [part for part in bound if isinstance(part, nn.Module)] + modules_of(function.func)

    values: list[Any] = [getattr(function, "__self__", None)]
    if inspect.isfunction(function) or inspect.ismethod(function):
        names = inspect.getclosurevars(function)
        values += [*names.nonlocals.values(), *names.globals.values()]
    found = {id(value): value for value in values if isinstance(value, nn.Module)}
    return list(found.values())
