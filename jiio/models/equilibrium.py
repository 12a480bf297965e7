"""EquilibriumModel: an injection, a cell and a head; the network is the fixed point of the cell."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..adjoints import AbstractAdjoint
from ..arithmetic import Arithmetic
from ..checks import ArgumentTypeError, check_callable, check_instance, fail
from ..layout import Tree, leaves
from ..persample import rows_of, taken
from ..problem import Problem
from ..prox import AbstractProx, Identity
from ..settings import OPTIONS, SolveSettings
from ..solution import Solution, Tolerance
from ..solvers import AbstractSolver
from ..solving import equilibrium
from .parts import Origin, Part, as_cell, as_module

PredictionObjective = Callable[[Tensor, Any], Tensor]


class BoundCell:
    """(z, x) -> cell(z, inject(x)), with everything bound that may not change during a solve: the dropout masks.

    ``module`` is the module that the engine holds fixed; ``inject`` None means that x is the injection's output
    already. Masks are a pure function of a seed drawn here and of the shapes of z, so that they exist before any z is
    known and cost nothing where there is no dropout; they live and die with this object.
    """

    apart = ("seed",)  # of a recorded step: the masks are constants of it, whatever they were drawn from

    def __init__(self, module: nn.Module, cell: nn.Module, inject: nn.Module | None) -> None:
        self.module, self.cell, self.inject = module, cell, inject
        active = cell.training and getattr(cell, "dropout", 0.0) > 0
        self.seed = int(torch.randint(2**62, ())) if active else None
        self._masks: dict[Any, Tree] = {}

    def __call__(self, z: Tree, x: Tree) -> Tree:
        u = x if self.inject is None else self.inject(x)
        return self.cell(z, u) if self.seed is None else self.cell(z, u, self.masks(z))

    def initial_state(self, x: Tree) -> Tree:
        """z0 for inputs x: zeros in the shapes, dtype and on the device that the cell wants."""
        with torch.no_grad():
            return self.cell.initial_state(x if self.inject is None else self.inject(x))  # type: ignore[operator]

    def rows(self, index: Tensor) -> BoundCell | None:
        """The samples ``index`` (k,), with their dropout masks, where cell and injection offer that."""
        cell = rows_of(self.cell, index)
        inject = None if self.inject is None else rows_of(self.inject, index)
        batches = {key[0][0][0] for key in self._masks}
        if cell is None or (inject is None) != (self.inject is None) or (self.seed is not None and len(batches) != 1):
            return None
        part = copy.copy(self)
        part.cell, part.inject, part._masks = cell, inject, {}
        for (shapes, *kind), masks in self._masks.items():
            few = tuple((len(index), *shape[1:]) for shape in shapes)
            part._masks[few, *kind] = taken(masks, index)
        return part

    def masks(self, z: Tree) -> Tree | None:
        """The dropout masks for states like z; the same at every call. None where nothing is dropped."""
        if self.seed is None:
            return None
        flat = leaves(z)
        key = (tuple(tuple(leaf.shape) for leaf in flat), flat[0].dtype, flat[0].device)
        if key not in self._masks:
            generator = torch.Generator(flat[0].device).manual_seed(self.seed)
            with torch.no_grad():
                self._masks[key] = self.cell.draw_masks(z, generator)  # type: ignore[operator]
        return self._masks[key]


class _Predicted:
    """(z, x) -> objective(head(z), x)."""

    def __init__(self, head: Callable[[Tree], Any], objective: PredictionObjective) -> None:
        self.head, self.objective = head, objective

    def __call__(self, z: Tree, x: Tree) -> Tensor:
        return self.objective(self.head(z), x)

    def rows(self, index: Tensor) -> _Predicted | None:
        """The samples ``index`` (k,), where head and objective offer that."""
        head, objective = rows_of(self.head, index), rows_of(self.objective, index)
        return None if head is None or objective is None else _Predicted(head, objective)


def arithmetic_of(tree: Tree) -> Arithmetic:
    """What surrounds a call with these tensors; that of the CPU where there are none."""
    found = (leaf for leaf in leaves(tree) if isinstance(leaf, Tensor))
    return Arithmetic.around(next(found, torch.empty(0)))


def _check_parts(inject: Any, cell: Any, head: Any) -> None:
    for name, part in (("inject", inject), ("cell", cell), ("head", head)):
        check_instance(name, part, nn.Module)
    if not callable(getattr(cell, "initial_state", None)):
        fail("cell", "a module with a method initial_state(u) -> z0", cell, error=ArgumentTypeError)


class _Setting:
    """One setting of the solve as an attribute of the model: read from its record, written by replacing the record."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, model: EquilibriumModel | None, owner: type) -> Any:
        return self if model is None else getattr(model.settings, self.name)

    def __set__(self, model: EquilibriumModel, value: Any) -> None:
        model.settings = dataclasses.replace(model.settings, **{self.name: value})


class EquilibriumModel(nn.Module):
    """prediction = head(z*), where z* = cell(z*, inject(x)).

    inject: x -> u. cell: (z, u) -> z with ``initial_state(u)``, see :class:`jiio.models.AbstractCell`. head: from z to
    the prediction, a tensor (B, ...) or, of two heads, a named tuple of them. config: what :func:`jiio.models.build`
    made the model from, or the origin of one from :meth:`of`; None for one made by hand.

    The settings of the solve are attributes and may be set at any time: solver, adjoint, tolerance, max_steps,
    on_failure, with the meaning they have in :func:`jiio.equilibrium`; all together they are ``settings``, a
    :class:`jiio.SolveSettings`. Gradients exist whenever grad mode is on, in train and eval alike; the two modes differ
    in dropout only.
    """

    solver = _Setting()
    adjoint = _Setting()
    tolerance = _Setting()
    max_steps = _Setting()
    on_failure = _Setting()

    def __init__(
        self,
        inject: nn.Module,
        cell: nn.Module,
        head: nn.Module,
        *,
        solver: AbstractSolver | None = None,
        adjoint: AbstractAdjoint | None = None,
        tolerance: Tolerance | None = None,
        max_steps: int = 100,
        on_failure: str = "warn",
        config: Any = None,
    ) -> None:
        super().__init__()
        _check_parts(inject, cell, head)

        # None means the default here, as it does in ``merged``.
        chosen = {"solver": solver, "adjoint": adjoint, "tolerance": tolerance}
        self.settings = SolveSettings(max_steps=max_steps, on_failure=on_failure).merged(**chosen)
        self.inject, self.cell, self.head = inject, cell, head
        self.config = config

    @classmethod
    def of(
        cls,
        inject: Part,
        cell: Part,
        head: Part,
        *,
        initial_state: Callable[[Tree], Tree] | None = None,
        origin: str | None = None,
        **options: Any,
    ) -> EquilibriumModel:
        """A model from plain functions or modules: inject x -> u, cell (z, u) -> z, head z -> prediction.

        initial_state: u -> z0 (None: that of the cell where it has one, else zeros like u). origin: the import path
        "package.module:name" of a function without arguments that makes this model; :func:`jiio.models.save` writes it
        down, and :func:`jiio.models.load` follows it where its caller allows the path. options: the solve settings of
        :class:`EquilibriumModel`.

        The modules that a function is a method of, or names itself, become part of the model, and so move, save and
        change their mode with it; those that it uses through other functions do not. Raises ArgumentTypeError for what
        cannot be called.
        """
        if origin is not None:
            check_instance("origin", origin, str, "It is an import path, package.module:name.")
        middle = as_cell(cell, initial_state)
        known = set(middle.modules())  # a module that several functions use is a part of the cell, once
        parts = as_module("inject", inject, known), middle, as_module("head", head, known)
        return cls(*parts, config=None if origin is None else Origin(origin), **options)

    def __deepcopy__(self, memo: dict[int, Any]) -> EquilibriumModel:
        """All of it, hooks included; the reduction for pickle (in :mod:`.build`) keeps weights and settings only."""
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__dict__ = copy.deepcopy(self.__dict__, memo)
        return new

    def forward(self, x: Tree) -> Tensor:
        """The prediction at the equilibrium for x (B, ...)."""
        z = self.solve(x).z
        with arithmetic_of(z).asked(self.tolerance.rtol, torch.float32):
            return self.head(z)

    def solve(self, x: Tree, **overrides: Any) -> Solution:
        """The equilibrium for x as a :class:`jiio.Solution`; ``z`` carries gradients to the parameters and to x.

        overrides: settings for this call alone, among solver, adjoint, tolerance, max_steps, on_failure, z0 and trace.
        The injection is evaluated once.
        """
        known = (*OPTIONS, "z0", "trace")
        unknown = sorted(set(overrides) - set(known))
        if unknown:
            fail("solve", "the options " + ", ".join(known), ", ".join(unknown), error=ArgumentTypeError)
        settings = self.settings.arguments() | overrides
        around = arithmetic_of(x)
        with around.asked(getattr(settings["tolerance"], "rtol", 1.0), torch.float32):
            u = self.inject(around.raised(x))
        solution = equilibrium(BoundCell(self.cell, self.cell, None), u, **settings)
        return dataclasses.replace(solution, x=x)

    def problem(self, objective: PredictionObjective, prox: AbstractProx = Identity()) -> Problem:  # noqa: B008
        """For :func:`jiio.solve`: minimise objective(head(z), x) over x, subject to z = cell(z, inject(x)).

        objective: (prediction, x) -> (B,), one number per sample. prox: the constraint or prior on x (default: none).
        Dropout masks, where the model is in train mode and has any, are drawn here, once, and belong to the returned
        problem.
        """
        check_callable("objective", objective, "(prediction, x) -> tensor of shape (B,)")
        return Problem(BoundCell(self, self.cell, self.inject), _Predicted(self.head, objective), prox)
