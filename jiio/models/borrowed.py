"""A classifier written for torchdeq as an :class:`EquilibriumModel`: its parts are found by watching its one solve.

torchdeq itself is neither imported nor used: in place of its solver stands a function that looks at the map and the
start that the classifier hands to it, or that hands it an equilibrium.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import CellError, check_instance, fail
from ..layout import Tree, detach, leaves
from .equilibrium import EquilibriumModel
from .parts import Origin


def from_torchdeq(model: nn.Module, example: Tensor, *, origin: str | None = None, **options: Any) -> EquilibriumModel:
    """``model``, whose ``forward`` calls one torchdeq solver once, with the engine's solver in its place.

    example: a batch of inputs (B, ...) of the shape that the model takes. origin, options: as in
    :meth:`EquilibriumModel.of`. The weights are shared with ``model``. What comes before the solve is computed anew
    with every evaluation of the map, so that it should be cheap. Raises ArgumentError where the model has not exactly
    one such solver, ArgumentTypeError for what is no module or no tensor, ArgumentError where what follows the solve
    looks at the input itself; then name the parts: ``EquilibriumModel.of(inject, cell, head)``.
    """
    check_instance("model", model, nn.Module)
    check_instance("example", example, Tensor)
    found = [part for part in model.modules() if _is_solver(type(part))]
    if len(found) != 1:
        remedy = "Name the parts: EquilibriumModel.of(inject, cell, head)."
        fail("model", "a module with one torchdeq solver, a get_deq(...)", f"{len(found)} of them", remedy)

    view = _View(model, found[0])
    cell, head = BorrowedCell(view), BorrowedHead(view, example[:1])
    _check_head(view, example)
    config = None if origin is None else Origin(origin)
    return EquilibriumModel(nn.Identity(), cell, head, config=config, **options)


def _is_solver(kind: type) -> bool:
    """Whether a class is one of torchdeq's solvers, or derives from one."""
    return any(base.__module__.partition(".")[0] == "torchdeq" and base.__name__ == "DEQBase" for base in kind.__mro__)


class _Seen(Exception):
    """Carries what a classifier handed to its solver out of it."""

    def __init__(self, function: Callable[..., Any], start: Tree) -> None:
        self.function, self.start = function, start


class _View:
    """A classifier and its solver, which can be stood in for."""

    def __init__(self, model: nn.Module, solver: nn.Module) -> None:
        self.model, self.solver = model, solver

    @contextlib.contextmanager
    def instead(self, forward: Callable[..., Any]) -> Iterator[None]:
        """Within, this function is called in place of the solver."""
        self.solver.forward = forward
        try:
            yield
        finally:
            del self.solver.forward

    def asked(self, x: Tensor) -> _Seen:
        """The map and the start for inputs x."""

        def look(function: Any, start: Tree, *rest: Any, **options: Any) -> Any:
            raise _Seen(function, start)

        with self.instead(look):
            try:
                self.model(x)
            except _Seen as seen:
                return seen
        fail("model(x)", "a call of its torchdeq solver", "none", error=CellError)

    def answered(self, x: Tensor, z: Tree) -> Tensor:
        """The prediction for the equilibrium z where the input is x."""

        def hand(*arguments: Any, **options: Any) -> Any:
            return [list(z) if isinstance(z, tuple) else z], _Figures()

        with self.instead(hand):
            return self.model(x)


class _Figures(dict[str, Any]):
    """The figures of a solve that nobody made."""

    def __missing__(self, name: str) -> Tensor:
        return torch.zeros(1)


class BorrowedCell(nn.Module):
    """(z, x) -> f(z), the map that the classifier solves for this x."""

    def __init__(self, view: _View) -> None:
        super().__init__()
        self.model, self.view = view.model, view

    def forward(self, z: Tree, x: Tensor) -> Tree:
        """One application of the map."""
        function = self.view.asked(x).function
        found = function(z) if isinstance(z, Tensor) else function(*z)
        return found if isinstance(found, Tensor) else tuple(found)

    def initial_state(self, x: Tensor) -> Tree:
        """Where the classifier starts."""
        start = detach(self.view.asked(x).start)
        return start if isinstance(start, Tensor) else tuple(start)


class BorrowedHead(nn.Module):
    """z -> prediction, by what the classifier does after its solve; it does not look at the input (checked)."""

    example: Tensor

    def __init__(self, view: _View, example: Tensor) -> None:
        super().__init__()
        self.view = view  # no module: the weights are those of the cell
        self.register_buffer("example", torch.zeros_like(example), persistent=False)

    def forward(self, z: Tree) -> Tensor:
        """The prediction."""
        count = len(leaves(z)[0])
        return self.view.answered(self.example.expand(count, *self.example.shape[1:]), z)


@torch.no_grad()
def _check_head(view: _View, x: Tensor) -> None:
    """Raise where the same equilibrium is read in two ways for two inputs."""
    start = view.asked(x).start
    state = start if isinstance(start, Tensor) else tuple(start)
    with torch.random.fork_rng(devices=[]):
        one, other = view.answered(x, state), view.answered(torch.zeros_like(x) + 0.5, state)
    if not torch.equal(one, other):
        remedy = "Name the parts, with what the head needs in the state: EquilibriumModel.of(inject, cell, head)."
        fail("model", "a prediction from the equilibrium alone", "one that looks at the input as well", remedy)
