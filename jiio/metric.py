"""A metric for the input: the inverse of the curvature that the problem has in x once the state follows.

Along the equilibria z*(x) the objective has, but for the curvature of z* itself, the Hessian

    H = S^T l_zz S + S^T l_zx + l_xz S + l_xx,      S = dz*/dx,

and x <- x - rate H^-1 (J_x^T mu + l_x) is a Gauss-Newton step in place of a gradient step. What is slow in a joint
solve is mostly the condition of H; :class:`jiio.Sensitivity` measures S once for a model and then knows H of every
problem without a call of the cell.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import fail
from .constraints import QuadraticPrior
from .layout import Tree, leaves
from .persample import share_of
from .problem import Problem
from .prox import Identity
from .rules import AbstractRule

FLOOR = 1e-3  # of the largest curvature: directions flatter than this are not divided by their own


@dataclass(frozen=True, eq=False)
class Metric:
    """What a joint solve steps by: ``inverse`` (B, k, k) or (1, k, k), positive definite, of the curvature in x.

    scaling: curvature of the objective in z and squared gain of z in x, each () or (B, 1), as ``Solution.scaling``: the
    units of the solve, which then need not be measured; NaN for samples that are to be solved plainly. pace: the share
    of the rule's rate that a step takes: the multiplier has to follow, so that a quarter of Newton's step (rate 0.5,
    pace 0.5) arrives earlier than half of it. following: dz*/dx (k, n), packed; by it the state goes along with a step
    of the input at once. None leaves it behind by a step.
    """

    inverse: Tensor
    scaling: tuple[Tensor, Tensor]
    pace: float = 0.5
    following: Tensor | None = None

    @classmethod
    def of_curvature(cls, hessian: Tensor, gain: Tensor) -> Metric:
        """From ``hessian`` H (B, k, k), symmetric, and the mean squared gain () of z in a unit of x.

        Negative curvature counts by its size, so that a step goes downhill, and the flattest directions as if they had
        a thousandth of the largest.
        """
        hessian = torch.where(torch.isfinite(hessian), hessian, torch.zeros_like(hessian)).double()
        bend, axes = torch.linalg.eigh(hessian)
        bend = bend.abs()
        bend = torch.maximum(bend, FLOOR * bend.amax(-1, keepdim=True))
        bend = torch.where(bend > 0, bend, torch.ones_like(bend))

        # A step of rate 1 along the gradient is right for the mean curvature: sigma kappa = trace H / k.
        # Where the state does not move with x at all, there is no such unit, and the solve is a plain one.
        gain = torch.where(gain > 0, gain, torch.full_like(gain, float("nan")))
        sigma = bend.mean(-1, keepdim=True) / gain.double()
        inverse = axes @ (axes / bend.unsqueeze(-2)).transpose(-1, -2)
        return cls(inverse.to(gain), (sigma.to(gain), gain))

    def only(self, good: Tensor) -> Metric:
        """The same for the samples in ``good`` (B, 1); the others are to be solved plainly."""
        nan = torch.full_like(self.scaling[0], float("nan"))
        return dataclasses.replace(self, scaling=tuple(torch.where(good, part, nan) for part in self.scaling))

    def rows(self, index: Tensor, batch: int) -> Metric:
        """The samples ``index`` (k,) of ``batch``."""
        inverse = share_of(self.inverse, index, batch, 3)
        sigma, gain = (share_of(part, index, batch, 2) for part in self.scaling)
        return dataclasses.replace(self, inverse=inverse, scaling=(sigma, gain))

    @property
    def plain(self) -> Tensor:
        """(B, 1) or (): the samples that are to be solved plainly."""
        return self.scaling[0].isnan() | self.scaling[1].isnan()

    def __call__(self, gradient: Tensor) -> Tensor:
        """inverse @ gradient, (B, k) -> (B, k)."""
        return (self.inverse @ gradient.unsqueeze(-1)).squeeze(-1)

    def check(self, problem: Problem, rule: AbstractRule, x0: Tree) -> None:
        """Raise unless a solve of this problem by this rule from x0 may use it."""
        flat = leaves(x0)
        batch, size = flat[0].shape[0], sum(leaf[0].numel() for leaf in flat)
        if self.inverse.dim() != 3 or self.inverse.shape[0] not in (1, batch) or self.inverse.shape[1:] != (size, size):
            fail("metric", f"a matrix ({batch}, {size}, {size}), for this x0", self.inverse, "Take it of this problem.")
        for part in (self.inverse, self.following):
            if part is not None and (part.dtype != flat[0].dtype or part.device != flat[0].device):
                fail("metric", "the dtype and device of x0", part)

        check_smooth(problem)
        if not rule.exact_step or rule.diagonal or rule.curvature is not None:
            fail("metric", "GradientStep() without a curvature of its own", f"rule {type(rule).__name__}")

    def check_state(self, size: int) -> None:
        """Raise unless ``following`` is of a state of ``size`` numbers."""
        if self.following is not None and self.following.shape != (self.inverse.shape[1], size):
            fail("metric", f"following ({self.inverse.shape[1]}, {size}), for this z0", self.following)


def check_smooth(problem: Problem) -> None:
    """Raise unless the prox is one that a metric can be used with.

    A projection, or a threshold, in the plain norm ends somewhere else after steps in another one.
    """
    if not isinstance(problem.prox, (Identity, QuadraticPrior)):
        remedy = "Leave the metric out, or put the constraint into the objective."
        fail("metric", "a problem with Identity or QuadraticPrior", type(problem.prox).__name__, remedy)


def smooth(problem: Problem) -> Problem:
    """The same problem with its quadratic prior as a part of the objective, where steps in a metric can see it."""
    if isinstance(problem.prox, Identity):
        return problem
    return dataclasses.replace(problem, objective=_Total(problem), prox=Identity())


class _Total:
    """What a problem minimises, its prior included, as an objective."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def __call__(self, z: Tree, x: Tree) -> Tensor:
        return self.problem.total(z, x, leaves(x)[0].shape[0])
