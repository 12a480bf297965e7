"""Where a joint solve begins: at the plain start, or at a proposal, which is checked against the plain start.

A proposal is an input, and with it a state, a multiplier and the scales of the problem, from wherever (a network,
:mod:`.amortised`; the answer of a similar problem). The solve that follows is the same and ends at the same accuracy; a
good proposal saves it steps. One that is worse than the plain start, in its objective or in how far it is from an
equilibrium, is dropped, sample by sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import jiio
from jiio.layout import Spec, Tree, leaves, map_tree, rows
from jiio.problem import initial_state


@dataclass(frozen=True, eq=False)
class Start:
    """Where a solve begins.

    scaling: of :func:`jiio.solve`; None, or NaN for some samples, where the solve measures it, which it cannot near
    an answer. calls: evaluations
    plus VJPs of the batch that were spent to find the start. kept: (B,) whether the proposal was kept; None where there
    was none. metric: to solve in; it brings scales of its own.
    """

    x: Tree
    z: Tree | None = None
    multiplier: Tree | None = None
    scaling: tuple[Tensor, Tensor] | None = None
    calls: int = 0
    kept: Tensor | None = None
    metric: jiio.Metric | None = None

    @property
    def measures(self) -> bool:
        """Whether the solve measures scales, at the price of two evaluations and two VJPs of the batch."""
        scaling = self.scaling if self.metric is None else self.metric.scaling
        return scaling is None or any(bool(part.isnan().any()) for part in scaling)

    def solve(self, problem: jiio.Problem, **settings: Any) -> jiio.Solution:
        """:func:`jiio.solve` from here."""
        known = {"multiplier": self.multiplier, "scaling": self.scaling, "metric": self.metric}
        return jiio.solve(problem, self.x, self.z, **known, **settings)


class AbstractStart(ABC):
    """A way to begin."""

    @abstractmethod
    def begin(self, problem: jiio.Problem, x0: Tree, observation: Tensor) -> Start:
        """For one batch. x0: the plain start. observation: (B, n), or (B, M, n) for M elements of a set."""


class Plain(AbstractStart):
    """At x0, as it is."""

    def begin(self, problem: jiio.Problem, x0: Tree, observation: Tensor) -> Start:
        return Start(x0)


@torch.no_grad()
def safeguarded(problem: jiio.Problem, x0: Tree, said: Start) -> Start:
    """For each sample the better of a proposal and of the plain start x0, after one plain step of z (and mu) from each.

    The proposal is kept where its objective is no larger and its state and multiplier move no further, relative to
    their size, than those of the plain start. The step from the chosen one is not lost: the solve goes on from there.
    The other is the price: two calls at most.
    """
    z0 = initial_state(problem.cell, x0, None, leaves(x0)[0])
    spec, prox = Spec.of(x0), problem.prox.bind(x0)
    finite = torch.isfinite(spec.pack(said.x)).all(1)
    x = spec.unpack(prox.project(torch.where(finite[:, None], spec.pack(said.x), spec.pack(x0))))
    own = Stepped.of(problem, x, z0 if said.z is None else said.z, said.multiplier)
    plain = Stepped.of(problem, x0, z0, None)
    kept = finite & (own.value <= plain.value) & (own.moved <= plain.moved).all(1)

    def choose(a: Tree, b: Tree) -> Tree:
        return map_tree(lambda new, old: torch.where(rows(kept, new), new, old), a, b)

    multiplier = None if said.multiplier is None else choose(own.multiplier, plain.multiplier)
    calls = own.calls + plain.calls
    return Start(choose(x, x0), choose(own.z, plain.z), multiplier, scales_of(said, kept), calls, kept)


def scales_of(said: Start, kept: Tensor) -> tuple[Tensor, Tensor] | None:
    """The scales that a proposal says, for the samples (B,) that keep it; they are of its place, so where it is dropped
    the solve measures its own. With those of a dropped one it was seen to take 62 steps in place of 38.
    """
    if said.scaling is None or not bool(kept.any()):
        return None
    unknown = torch.tensor(torch.nan)
    sigma, kappa = (torch.where(kept[:, None], part.to(kept.device), unknown.to(part)) for part in said.scaling)
    return sigma, kappa


@dataclass(frozen=True, eq=False)
class Stepped:
    """A start after one plain step of its state and multiplier at the same x.

    value: (B,) the objective there. moved: (B, 2) the lengths of the steps of z and mu relative to where they led; 1
    from zero. calls: of the batch.
    """

    z: Tree
    multiplier: Tree
    value: Tensor
    moved: Tensor
    calls: int

    @classmethod
    def of(cls, problem: jiio.Problem, x: Tree, z: Tree, multiplier: Tree | None) -> Stepped:
        """A multiplier costs a VJP; without one, the step from zero leads to the gradient of the objective."""
        spec, batch = Spec.of(z), leaves(z)[0].shape[0]

        # One evaluation with its graph, and at its image the objective with its slope.
        with torch.enable_grad():
            leaf = spec.pack(z).detach().requires_grad_()
            image = spec.pack(problem.cell(spec.unpack(leaf), x))
            pulled = torch.zeros_like(leaf)
            if multiplier is not None and image.requires_grad:
                (pulled,) = torch.autograd.grad(image, leaf, spec.pack(multiplier))
            after = image.detach().requires_grad_()
            value = problem.total(spec.unpack(after), x, batch)
            (slope,) = torch.autograd.grad(value.sum(), after)

        # z went to f(z, x), and mu to J^T mu + l_z; the plain step of both blocks.
        before = torch.zeros_like(slope) if multiplier is None else spec.pack(multiplier)
        led = pulled + slope
        moved = torch.stack([relative(leaf.detach(), after.detach()), relative(before, led)], 1)
        # What is not finite is never the better of two.
        value = torch.where(torch.isfinite(value.detach()), value.detach(), torch.inf)
        moved = torch.where(torch.isfinite(moved), moved, torch.inf)
        calls = 1 + (multiplier is not None)
        return cls(spec.unpack(after.detach()), spec.unpack(led), value, moved, calls)


def relative(before: Tensor, after: Tensor) -> Tensor:
    """(B,) |after - before| / |after|; 0 where nothing moved."""
    length = (after - before).norm(dim=1)
    return torch.where(length == 0, length, length / after.norm(dim=1))
