"""The KKT system of a solve in a metric, block by block: state, multiplier, and what is left in the input.

K w = r with w = (a, b, c) over [z, mu, x] has the rows

    (J - I) a + J_x c = r_mu,      (J - I)^T b + L_zz a + L_zx c = r_z,      J_x^T b + L_xz a + L_xx c = r_x.

Given c, the first two are fixed points, as cheap as the cell contracts. The third is then a system in c alone, whose
matrix is the curvature in x once the state follows; a :class:`jiio.Metric` is nearly its inverse, so that conjugate
gradients need two or three steps, however flat some directions are. MINRES on the whole of K feels all of the
condition; here it has the last word: on what the elimination leaves, and on samples whose curvature is not positive.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..arithmetic import Arithmetic
from ..metric import Metric
from ..solution import Tolerance
from ..solvers import Anderson
from ..solvers.krylov import minres
from .implicit import linear_fixed_point
from .system import System

INNER = 0.25  # tolerance of the fixed points, of that of the whole
FEW = 40  # steps of a fixed point, at most


def eliminated(system: System, right: Tensor, metric: Metric, rtol: float, max_steps: int) -> tuple[Tensor, Tensor]:
    """w (B, D) with K w = right in the system's units, and its relative residual (B,).

    metric: of the solve, for the curvature without damping. rtol: of the residual. max_steps: products, at most.
    """
    before, size = system.counts.adjoint_hvp, _length(right)
    w = _Elimination(system, _inverse(metric, system), rtol, max_steps).solve(right)
    rest = right - system.product(w)
    left = _length(rest)

    # MINRES goes on where too much is left, from nothing where that is more than there was.
    bad = ~(left < size)
    w, rest, left = w.masked_fill(bad, 0.0), torch.where(bad, right, rest), torch.where(bad, size, left)
    rest = rest.masked_fill(left <= rtol * size, 0.0)
    share = left / size.clamp_min(torch.finfo(size.dtype).tiny)
    steps = max(1, max_steps - (system.counts.adjoint_hvp - before))
    more, residual, _ = minres(system.product, rest, rtol=rtol / share.clamp_min(rtol), max_steps=steps)
    return w + more, torch.where(rest.any(1), residual, torch.ones_like(residual)) * share[:, 0]


def _inverse(metric: Metric, system: System) -> Tensor:
    """(B, k, k), nearly the inverse of the curvature in x but for the unit; zero where the metric says nothing."""
    found, damping = metric.inverse.double(), torch.as_tensor(system.stiffness).double()
    if bool(damping.any()):
        eye = torch.eye(found.shape[1]).to(found)
        found = torch.linalg.inv(torch.linalg.inv(found) + damping.to(found).reshape(-1, 1, 1) * eye)
    plain = metric.plain.reshape(-1, 1, 1).expand(len(system.scale), 1, 1)
    return torch.where(plain, 0.0, found.to(system.scale))


class _Elimination:
    """The solve of one right-hand side (B, D), in the scaled units of the system.

    inverse: positive definite, (B, k, k). A sample with a zero there, or whose curvature turns out not to be positive,
    keeps what it has.
    """

    def __init__(self, system: System, inverse: Tensor, rtol: float, max_steps: int) -> None:
        self.system, self.inverse, self.rtol = system, inverse, rtol
        self.last = system.counts.adjoint_hvp + max_steps
        self.solver, self.tolerance = Anderson(), Tolerance(atol=0.1 * INNER * rtol, rtol=INNER * rtol)
        self.arithmetic = Arithmetic.around(system.scale)

    def product(self, a: Tensor | None = None, b: Tensor | None = None, c: Tensor | None = None) -> list[Tensor]:
        """The rows of K (a, b, c); None is zero."""
        empty = self.system.scale.new_zeros
        blocks = [
            empty(len(self.system.scale), n) if part is None else part
            for part, n in zip((a, b, c), self.system.sizes, strict=True)
        ]
        return list(self.system.product(torch.cat(blocks, 1)).split(self.system.sizes, 1))

    def state(self, right: Tensor) -> Tensor:
        """a with (I - J) a = right."""
        return self._fixed(lambda u: u + self.product(a=u)[1], right)

    def multiplier(self, right: Tensor) -> Tensor:
        """b with (I - J)^T b = right."""
        return self._fixed(lambda u: u + self.product(b=u)[0], right)

    def _fixed(self, step: Callable[[Tensor], Tensor], right: Tensor) -> Tensor:
        if not bool(right.any()):
            return right
        return linear_fixed_point(step, right, self.solver, self.tolerance, FEW, self.arithmetic)[0]

    def followed(self, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """State and multiplier that follow c, and the row of x: the curvature times c."""
        a = self.state(self.product(c=c)[1])
        rz, _, rx = self.product(a=a, c=c)
        b = self.multiplier(rz)
        return a, b, rx + self.product(b=b)[2]

    def solve(self, right: Tensor) -> Tensor:
        """w (B, D): conjugate gradients in x, the other blocks along with it."""
        rz, rm, rx = right.split(self.system.sizes, 1)
        a = self.state(-rm)
        az, _, ax = self.product(a=a) if bool(rm.any()) else (torch.zeros_like(rz), rm, torch.zeros_like(rx))
        b = self.multiplier(az - rz)
        rest = rx - ax - self.product(b=b)[2]
        c, way = torch.zeros_like(rest), torch.zeros_like(rest)
        w = torch.cat([a, b, c], 1)

        # Sample by sample: the steepness in the metric, and who goes on.
        steep = first = self._steepness(rest)
        before = torch.ones_like(steep)
        going = steep > 0
        while bool(going.any()) and self.system.counts.adjoint_hvp < self.last:
            near = (self.inverse @ rest[..., None])[..., 0]
            way = near + steep / before * way
            a, b, bent = self.followed(way.masked_fill(~going, 0.0))
            curvature = (way * bent).sum(1, keepdim=True)
            going = going & (curvature > 0) & torch.isfinite(curvature)

            # The step; the others stay where they are.
            length = torch.where(going, steep / torch.where(going, curvature, torch.ones_like(curvature)), 0.0)
            w = w + length * torch.cat([a, b, way], 1)
            rest = rest - length * bent
            before, steep = torch.where(going, steep, torch.ones_like(steep)), self._steepness(rest)
            going = going & (steep > self.rtol**2 * first)
        return w

    def _steepness(self, rest: Tensor) -> Tensor:
        """(B, 1)."""
        return (rest * (self.inverse @ rest[..., None])[..., 0]).sum(1, keepdim=True)


def _length(v: Tensor) -> Tensor:
    return torch.linalg.vector_norm(v, dim=1, keepdim=True)
