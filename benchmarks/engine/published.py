"""The scheme as published (Gurumurthy et al. 2021), written down plainly, for comparison only.

Damped updates of (z, mu, x) stacked in one vector; Anderson acceleration with ring buffers of the points and their
images, a full Gram matrix at every step, and the bordered system [[0, 1^T], [1, H]] solved per batch. The settings are
the authors': damping 0.8 for z and 0.6 for mu, a fixed step in x in raw gradient units that drops at 5/8 of the steps,
all T steps always run. With ``accepts`` it returns what the released solver returns: not the last point, but the
last that it kept, sample by sample, because its relative residual was a new minimum (in the first steps always), or its
cost was one and its residual at most 1.3 times the smallest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import jiio
from jiio.holding import held_fixed
from jiio.layout import Spec
from jiio.problem import initial_state


@dataclass(frozen=True)
class Scheme:
    """Settings. rate: first and second step in x. normalised: the step is that long, along the gradient (attacks).

    kind: "good" is Galerkin (type I), "bad" least squares. weight: of the objective, the authors' "cost scaling".
    """

    rate: tuple[float, float] = (0.01, 0.003)
    steps: int = 100
    memory: int = 20
    kind: str = "good"
    damping: tuple[float, float] = (0.8, 0.6)
    normalised: bool = False
    weight: float = 1.0
    accepts: bool = False

    def switch(self, step: int) -> float:
        return self.rate[0] if step + 1 < max(50, 5 * self.steps // 8) else self.rate[1]


class AugmentedMap:
    """v = [z, mu, x] -> one damped update of all three; one evaluation and one VJP."""

    def __init__(self, problem: jiio.Problem, scheme: Scheme, z0: Tensor, x0: Tensor) -> None:
        self.problem, self.scheme, self.step = problem, scheme, 0
        self.zspec, self.xspec = Spec.of(z0), Spec.of(x0)
        self.prox = problem.prox.bind(x0)
        self.sizes = [self.zspec.size, self.zspec.size, self.xspec.size]
        self.cost = x0.new_zeros(len(x0))  # (B,) at the latest point

    def start(self, z0: Tensor, x0: Tensor) -> Tensor:
        z = self.zspec.pack(z0)
        return torch.cat([z, torch.zeros_like(z), self.xspec.pack(x0)], dim=1)

    def __call__(self, v: Tensor) -> Tensor:
        z, mu, x = v.split(self.sizes, dim=1)

        # One reverse pass through weight l(z, x) + mu . f(z, x) is the whole gradient of the Lagrangian.
        with torch.enable_grad():
            z, x = z.detach().requires_grad_(), x.detach().requires_grad_()
            ztree, xtree = self.zspec.unpack(z), self.xspec.unpack(x)
            image = self.zspec.pack(self.problem.cell(ztree, xtree))
            cost = self.scheme.weight * self.problem.objective(ztree, xtree)
            self.cost = cost.detach()
            gz, gx = torch.autograd.grad([cost, image], [z, x], [torch.ones_like(cost), mu])

        b_z, b_mu = self.scheme.damping
        rate = self.scheme.switch(self.step)
        self.step += 1
        if self.scheme.normalised:
            gx = gx / (gx.norm(dim=1, keepdim=True) + 1e-8)
        moved = self.prox.project(x.detach() - rate * gx)
        z = z.detach()
        return torch.cat([z + b_z * (image.detach() - z), mu + b_mu * (gz - mu), moved], dim=1)


class Accepted:
    """The point that the released solver would return, per sample (B, D)."""

    ALWAYS, SLACK, FIRST = 10, 1.3, 2  # steps that are kept in any case; of the least residual; minima count from here

    def __init__(self, v: Tensor) -> None:
        self.v, self.count = v, 0
        self.residual = v.new_full((len(v),), 1e12)
        self.cost = v.new_full((len(v),), float("inf"))

    def offer(self, v: Tensor, image: Tensor, cost: Tensor) -> None:
        """Point and image (B, D), cost (B,)."""
        residual = (image - v).norm(dim=1) / (1e-5 + image.norm(dim=1))
        lower = (residual < self.residual) | (self.count < self.ALWAYS)
        kept = lower | ((cost < self.cost) & (residual < self.SLACK * self.residual))
        self.v = torch.where(kept[:, None], v, self.v)

        if self.count >= self.FIRST:
            self.residual = torch.where(lower, residual, self.residual)
            self.cost = torch.where(kept, cost, self.cost)
        self.count += 1


class BorderedAnderson:
    """Ring buffers of points X and images F; sum alpha = 1 by a border around the Gram matrix."""

    def __init__(self, v: Tensor, memory: int, kind: str) -> None:
        batch, size = v.shape
        self.memory, self.kind, self.count = memory, kind, 0
        self.points, self.images = v.new_zeros(batch, memory, size), v.new_zeros(batch, memory, size)

    def step(self, v: Tensor, fv: Tensor) -> Tensor:
        slot = self.count % self.memory
        self.points[:, slot], self.images[:, slot] = v, fv
        self.count += 1
        n = min(self.count, self.memory)
        if n == 1:
            return fv

        # [[0, 1^T], [1, H]] [nu; alpha] = [1; 0]: the mixture of least residual whose weights sum to one.
        points, images = self.points[:, :n], self.images[:, :n]
        residuals = images - points
        gram = torch.bmm(points if self.kind == "good" else residuals, residuals.transpose(1, 2))
        bordered = v.new_zeros(v.shape[0], n + 1, n + 1)
        bordered[:, 0, 1:] = bordered[:, 1:, 0] = 1.0
        bordered[:, 1:, 1:] = gram

        right = v.new_zeros(v.shape[0], n + 1, 1)
        right[:, 0] = 1.0
        alpha = self._solve(bordered, right)[:, 1:, 0]
        return torch.bmm(alpha.unsqueeze(1), images)[:, 0]

    @staticmethod
    def _solve(matrix: Tensor, right: Tensor) -> Tensor:
        ridge = 1e-4
        for _ in range(20):  # only when the solve raises, as in the authors' code (which tries for ever)
            try:
                return torch.linalg.solve(matrix, right)
            except RuntimeError:
                matrix = matrix.clone()
                matrix[:, 1:, 1:] += ridge * torch.eye(matrix.shape[1] - 1)
                ridge *= 10
        return torch.linalg.pinv(matrix) @ right


@torch.no_grad()
def published(
    problem: jiio.Problem, x0: Tensor, scheme: Scheme, *, each: Callable[[Tensor], None] | None = None
) -> Tensor:
    """The last x of ``scheme.steps`` evaluations; ``each`` sees every x (made feasible) as it is reached."""
    with held_fixed(problem.cell):
        z0 = initial_state(problem.cell, x0, None, x0)
        augmented = AugmentedMap(problem, scheme, z0, x0)
        v = augmented.start(z0, x0)  # (B, 2 |z| + |x|)
        solver, kept, x = BorderedAnderson(v, scheme.memory, scheme.kind), Accepted(v), x0
        for _ in range(scheme.steps):
            image = augmented(v)
            kept.offer(v, image, augmented.cost)
            v = solver.step(v, image)

            # What would be returned if the iteration ended here.
            shown = kept.v if scheme.accepts else v
            x = augmented.xspec.unpack(augmented.prox.project(shown[:, -augmented.sizes[2] :]))
            if each is not None:
                each(x)
    return x
