"""Equilibria inside a model, wherever they stand: seen, set and entered through the calls of their ``solve``.

A classifier is judged as it is deployed, so the whole of it is called: normalisation, wrappers, hooks, an overridden
``forward``. Whatever stands around an :class:`jiio.EquilibriumModel`, it asks for the equilibrium by ``solve``, and
there somebody else can answer.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import jiio
from jiio.checks import CellError, fail
from jiio.layout import detach, leaves

Solve = Callable[..., jiio.Solution]
Answer = Callable[..., jiio.Solution]  # (solve, x, **overrides): what a call of ``solve`` returns


def equilibria(model: nn.Module) -> list[jiio.EquilibriumModel]:
    """The equilibrium models in ``model``, itself included; one that is a part of another is left to the other."""
    if isinstance(model, jiio.EquilibriumModel):
        return [model]
    found = [one for part in model.children() for one in equilibria(part)]
    return list({id(one): one for one in found}.values())


def is_plain(model: nn.Module) -> bool:
    """Whether calling the model is head(solve(x).z) and nothing else: no method of its own, no hook."""
    whole = jiio.EquilibriumModel
    return isinstance(model, whole) and type(model).solve is whole.solve and not does_more(model)


def does_more(model: jiio.EquilibriumModel) -> bool:
    """Whether a call of the model is more, or something else, than head(solve(x).z)."""
    hooks = (model._forward_hooks, model._forward_pre_hooks, model._backward_hooks, model._backward_pre_hooks)
    return any(hooks) or "forward" in vars(model) or type(model).forward is not jiio.EquilibriumModel.forward


@contextlib.contextmanager
def answered(model: nn.Module, answer: Answer) -> Iterator[None]:
    """Inside, every call of ``solve`` of an equilibrium in ``model`` returns ``answer(solve, x, **overrides)``."""
    inner = equilibria(model)
    wide = [part for part in model.modules() if isinstance(part, nn.DataParallel)]
    devices = [part.device_ids for part in wide]

    try:
        for one in inner:
            vars(one)["solve"] = _uncompiled(_bound(one.solve, answer))
        for part in wide:  # its replicas would ask in several threads, each for a part of the batch
            part.device_ids = []
        yield
    finally:
        for one in inner:
            vars(one).pop("solve", None)
        for part, own in zip(wide, devices, strict=True):
            part.device_ids = own


def _bound(solve: Solve, answer: Answer) -> Solve:
    return lambda x, **overrides: answer(solve, x, **overrides)


def _uncompiled(call: Solve) -> Solve:
    """Left alone by torch.compile, where that is in use: a compiled model would not notice that the answer changed."""
    compiling: Any = torch.compiler
    return compiling.disable(call) if "torch._dynamo" in sys.modules else call


class Reached(NamedTuple):
    """What the solves behind one prediction did, (B,) each; ``state`` is the equilibrium where there was one."""

    converged: Tensor
    steps: Tensor
    residual: Tensor
    state: Any

    @classmethod
    def of(cls, solutions: list[jiio.Solution], x: Tensor) -> Reached | None:
        """Of all solves that a prediction for x (B, ...) asked for; None without any.

        A sample has settled when all of its solves have. Where a solve had another batch (patches, views), it is not
        known whose they are: then all of it has to settle.
        """
        if not solutions:
            return None
        whole = [_like_batch(solution, x) for solution in solutions]
        one = len(solutions) == 1 and len(solutions[0].status) == len(x)
        return cls(
            converged=torch.stack([converged for converged, _, _ in whole]).all(0),
            steps=torch.stack([steps for _, steps, _ in whole]).sum(0),
            residual=torch.stack([residual for _, _, residual in whole]).amax(0),
            state=detach(solutions[0].z) if one else None,
        )


def _like_batch(solution: jiio.Solution, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Converged, steps and residual of one solve, (B,) each."""
    told = (solution.converged, solution.steps, solution.residual[:, 0])
    if len(told[0]) == len(x):
        return told
    worst = (told[0].all(), told[1].amax(), told[2].amax())
    return tuple(value.expand(len(x)) for value in worst)  # type: ignore[return-value]


class _Arrived(BaseException):
    """Carries out what has reached the equilibrium; no ``except Exception`` on the way stops it."""


class Entrance:
    """A model around one equilibrium, taken apart at its ``solve``: a cell (z, x) -> z for the engine, and the scores
    for a state. ``module`` is what the engine holds fixed.
    """

    def __init__(self, model: nn.Module, inner: jiio.EquilibriumModel) -> None:
        self.module = model
        self.bound = inner.problem(lambda scores, _: scores).cell

    def __call__(self, z: Any, x: Tensor) -> Any:
        """One application of the cell, (B, ...)."""
        return self.bound(z, self.before(x))

    def initial_state(self, x: Tensor) -> Any:
        """Where the solver of the equilibrium starts."""
        return self.bound.initial_state(self.before(x))  # type: ignore[attr-defined]

    def before(self, x: Tensor) -> Any:
        """What of the model's input x reaches its equilibrium."""

        def arrive(solve: Solve, seen: Any, **overrides: Any) -> jiio.Solution:
            raise _Arrived(seen)

        try:
            with answered(self.module, arrive):
                self.module(x)
        except _Arrived as arrived:
            return arrived.args[0]
        return _not_one(0)

    def after(self, z: Any, x: Tensor) -> Tensor:
        """The scores for x if z were the equilibrium."""
        asked: list[Any] = []

        def given(solve: Solve, seen: Any, **overrides: Any) -> jiio.Solution:
            asked.append(seen)
            return _state_alone(z, seen)

        with answered(self.module, given):
            scores = self.module(x)
        return scores if len(asked) == 1 else _not_one(len(asked))


def _not_one(count: int) -> Any:
    remedy = "An attack through the equilibrium itself needs that; use PGD or APGD."
    fail("model", "one call of solve in every call of the model", f"{count} of them", remedy, CellError)


def _state_alone(z: Any, x: Any) -> jiio.Solution:
    """A solution that says no more than its state: no solve stands behind it."""
    first = leaves(z)[0]
    rows = first.detach().new_full((len(first),), float("nan"))
    return jiio.Solution(
        z=z,
        x=x,
        multiplier=None,
        value=rows,
        status=torch.full_like(rows, int(jiio.Status.RUNNING), dtype=torch.int8),
        steps=torch.zeros_like(rows, dtype=torch.int64),
        residual=rows[:, None],
        blocks=("z",),
        evaluations=jiio.Evaluations(),
    )
