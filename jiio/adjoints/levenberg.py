"""How much damping the exact gradient needs: as much as makes the linearisation tell how far solutions really move.

A training step moves the weights, and with them the solution of every inner problem. To first order, by Newton's step
from the old solution s under the new weights,

    ds = -(K + delta I_x)^-1 (dL/ds (s; new) - dL/ds (s; old)),

and the solve that follows says by how much it moved indeed. Where x runs along a flat direction the undamped
prediction is far too long: the curvature changes on the way, or the solve ends before it has gone all of it. The delta
whose prediction is nearest to the truth is the one with which gradients hold for a step of this length, as Levenberg
(1944) meant it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..checks import GradientError, check_instance, check_integer, check_number, fail
from ..layout import Spec
from ..problem import Problem
from ..solution import Solution, Status
from ..solvers.krylov import minres
from .system import System, stiffness


@dataclass
class Levenberg:
    """The damping of :class:`jiio.KKT` for the training steps that are being taken, measured while they are.

    damping: to begin with, in the units of ``KKT(damping=)``. factor: between the dampings that are tried, the present
    one, one lower and one higher; the best of them is the next. low, high: what it stays between; ``high`` is as good
    as the first-order gradient. rtol, max_steps: of the linear solves.

    Every so many training steps, with a few samples: ``before(problem, solution)``, the step of the optimiser, and
    ``after(problem, solution)`` with the same samples solved again. Both solutions come from :func:`jiio.solve` with
    the same start and settings; where weights enter the problem when it is made, make it again. Errors: GradientError
    for solutions that do not belong together, ArgumentTypeError for what is none.
    """

    damping: float = 0.1
    factor: float = 4.0
    low: float = 1e-3
    high: float = 1e3
    max_steps: int = 60
    rtol: float = 1e-2
    _held: tuple[Tensor, Solution] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_number("Levenberg.low", self.low, 0.0, open_low=True)
        check_number("Levenberg.high", self.high, self.low)
        check_number("Levenberg.damping", self.damping, self.low, self.high)
        check_number("Levenberg.factor", self.factor, 1.0, open_low=True)
        check_number("Levenberg.rtol", self.rtol, 0.0)
        check_integer("Levenberg.max_steps", self.max_steps, 1)

    def before(self, problem: Problem, solution: Solution) -> None:
        """The ``solution`` (B, ...) of ``problem`` before a step of the weights."""
        check_instance("problem", problem, Problem)
        system = System.at(problem, _with_multiplier(solution))
        self._held = system.slope.detach(), solution

    def after(self, problem: Problem, solution: Solution) -> dict[float, float]:
        """The same samples solved after the step: chooses the damping, and says for each damping that was tried how far
        its prediction was from how x moved, relative to that way (0: right; 1: as bad as holding x constant).

        Where nothing moved, or nothing is finite, the damping stays, and nothing was tried.
        """
        check_instance("problem", problem, Problem)
        if self._held is None:
            remedy = "Call before(problem, solution) first, then take the step."
            fail("Levenberg.after", "a solution from before the step", "none", remedy, GradientError)
        (slope, old), self._held = self._held, None
        moved, root = _movement(old, _with_multiplier(solution))
        good = (old.status != int(Status.NONFINITE)) & (solution.status != int(Status.NONFINITE))
        # Newton's step from the old solution, under the new weights; its x for each damping.
        system = System.at(problem, old)
        right = system.tangent((slope - system.slope.detach()) * system.scale)
        exact, errors = system.diagonal, {}
        size = (moved * root)[good].square().sum()
        for damping in sorted({max(self.low, self.damping / self.factor), self.damping, self._higher()}):
            system.diagonal = exact + stiffness(damping, old)
            w = minres(system.product, right, rtol=self.rtol, max_steps=self.max_steps)[0]
            said = (system.tangent(w) * system.scale)[:, -system.sizes[2] :]
            error = ((said - moved) * root)[good].square().sum()
            if bool(size > 0) and bool(torch.isfinite(error / size)):
                errors[damping] = float((error / size).sqrt())
        if errors:
            self.damping = min(errors, key=errors.__getitem__)
        return errors

    def _higher(self) -> float:
        return min(self.high, self.damping * self.factor)


def _with_multiplier(solution: Solution) -> Solution:
    if check_instance("solution", solution, Solution).multiplier is None:
        fail("Levenberg", "a solution of jiio.solve", "one without a multiplier", error=GradientError)
    return solution


def _movement(old: Solution, new: Solution) -> tuple[Tensor, Tensor]:
    """By how much x moved, packed (B, k), and sqrt(kappa) that brings it to units of the state."""
    spec = Spec.of(old.x)
    if Spec.of(new.x) != spec or len(new.status) != len(old.status):
        came = f"a batch of {len(new.status)}, or other shapes"
        fail("Levenberg.after", f"the same {len(old.status)} samples as before", came, error=GradientError)
    moved = (spec.pack(new.x) - spec.pack(old.x)).detach()
    root = torch.ones_like(moved) if old.scaling is None else old.scaling[1].sqrt().expand_as(moved)
    return moved, root
