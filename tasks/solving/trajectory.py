"""Where the Jacobian penalty of a training is taken: at the answer of the joint solve, or on the way to it.

A solve in training rarely ends at its answer, and its steps meet the cell far from there. The joint method as published
(Gurumurthy et al. 2021) penalises the Jacobian at an iterate drawn at random for each sample; the penalty of Bai,
Koltun and Kolter (2021) for plain equilibria is one at the equilibrium.
"""

from __future__ import annotations

import torch
from torch import Tensor

import jiio
from jiio.checks import ArgumentTypeError, check_choice, fail
from jiio.layout import Spec, Tree, detach
from jiio.outputs.shares import drawn

PLACES = ("solution", "trajectory")


class AtSolution:
    """The answer itself; nothing has to be watched."""

    callback = None

    def point(self, solution: jiio.Solution) -> tuple[Tree, Tree]:
        """z and x, constants."""
        return detach(solution.z), detach(solution.x)


class DrawnIterate:
    """For each sample one of all iterates of the solve, each as likely as any other.

    ``callback`` is to be given to the solve. It keeps an iterate with probability one over their number so far, which
    needs neither to know how many there will be nor to store more than one. A sample that ended early stands still for
    the rest of the batch's steps, which a batch that is divided may have fewer of: then the draw is another one, of
    equal right. Iterates that are not finite are passed over.
    """

    def __init__(self, generator: torch.Generator) -> None:
        if not isinstance(generator, torch.Generator):
            fail("generator", "a torch.Generator", generator, error=ArgumentTypeError)
        self.generator = generator
        self.z: Tensor | None = None  # (B, D), packed
        self.x: Tensor | None = None  # (B, n)
        self.seen: Tensor | None = None  # (B,) finite iterates so far

    def callback(self, step: int, z: Tree, x: Tree, value: Tensor) -> None:
        """Of :func:`jiio.solve`."""
        packed, code = Spec.of(z).pack(z), Spec.of(x).pack(x)
        finite = torch.isfinite(packed).all(1) & torch.isfinite(code).all(1)
        draw = drawn(lambda n: torch.rand(n, generator=self.generator), len(packed)).to(packed)  # drawn on the CPU
        if self.z is None or self.x is None or self.seen is None:
            self.z, self.x = torch.zeros_like(packed), torch.zeros_like(code)
            self.seen = torch.zeros_like(draw)
        self.seen = self.seen + finite
        taken = (finite & (draw * self.seen < 1.0))[:, None]
        self.z, self.x = torch.where(taken, packed, self.z), torch.where(taken, code, self.x)

    def point(self, solution: jiio.Solution) -> tuple[Tree, Tree]:
        """z and x that were drawn, constants; zeros where no iterate was finite."""
        if self.z is None or self.x is None:
            remedy = "Give its callback to the solve first."
            fail("DrawnIterate", "a solve that it has watched", "none", remedy)
        return Spec.of(solution.z).unpack(self.z), Spec.of(solution.x).unpack(self.x)


def place(name: str, generator: torch.Generator) -> AtSolution | DrawnIterate:
    """One of :data:`PLACES`, for one solve."""
    return DrawnIterate(generator) if check_choice("jacobian_at", name, PLACES) == "trajectory" else AtSolution()
