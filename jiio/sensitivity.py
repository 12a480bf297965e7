"""How the equilibrium of a cell moves with its input, S = dz*/dx, measured at one sample; and what follows from it.

Its rows are tangent fixed points t = J_z t + J_x e, solved as one batch of k. For a trained cell that contracts they
say, well enough to step by, how z* moves everywhere: the curvature in x of every problem with that cell, and a start.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from .adjoints import Detached
from .checks import check_instance, fail
from .holding import held_fixed
from .layout import Spec, Tree, check_tree, leaves
from .metric import Metric, check_smooth
from .operators import rms
from .problem import Problem, initial_state
from .solution import Evaluations, Solution, Tolerance
from .solving import equilibrium

LARGEST_INPUT = 512
SLOW = 0.65  # factor per step of the tangent solve from which on the state is what is slow, and no metric for x helps
TRUST = 0.2  # of the way that a state has come: how far from an equilibrium the one foreseen by S may be
NEWTON = 4  # steps on the linearised problem, at most
ENOUGH = 0.03  # of the slope that there was: what is left of it then is not worth another step
TIGHT = Tolerance(1e-6, 1e-4)
STEPS = 60


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """dz*/dx of a cell, (k, n) packed, at the equilibrium z (1, n) of x (1, k).

    matrix: dz*/dx, a row for each number of x. factor: by which a step of the tangent solve made its residual smaller
    (geometric mean); infinite where it did not converge. evaluations: what measuring cost, tangent products among
    ``adjoint_hvp``; batches of k.
    """

    matrix: Tensor
    z: Tensor
    x: Tensor
    factor: float
    evaluations: Evaluations

    @classmethod
    @torch.no_grad()
    def of(cls, problem: Problem, x: Tree, z0: Tree | None = None) -> Sensitivity:
        """Measure it for the cell of a problem at one sample x, a tree of tensors (1, ...).

        z0: the state to start from, as in :func:`jiio.solve`. The cell must take any batch size and be twice
        differentiable by autograd. Raises ArgumentError for more than one sample, or for more than 512 numbers in x
        (there the metric would cost more than it saves).
        """
        check_instance("problem", problem, Problem)
        like = leaves(check_tree("x", x))[0]
        size = Spec.of(x).size
        if like.shape[0] != 1:
            fail("x", "one sample, a batch of 1", f"a batch of {like.shape[0]}", "Take x[:1].")
        if size > LARGEST_INPUT:
            fail("x", f"at most {LARGEST_INPUT} numbers", f"{size}", "Solve without a metric.")

        with held_fixed(problem.cell):
            start = initial_state(problem.cell, x, z0, like)
            usual = {"adjoint": Detached(), "tolerance": TIGHT, "on_failure": "ignore", "max_steps": STEPS}
            here = equilibrium(problem.cell, x, start, **usual)  # type: ignore[arg-type]
            tangent = _Tangent(problem, here.z, x)
            unit, length = tangent.right()
            found = equilibrium(tangent, unit, unit, trace=True, **usual)  # type: ignore[arg-type]
        spent = Evaluations(cell=here.evaluations.cell + 1, vjp=1, adjoint_hvp=tangent.products)
        factor = _factor(found) if bool(here.converged.all()) else float("inf")
        return cls(found.z * length, Spec.of(here.z).pack(here.z), Spec.of(x).pack(x), factor, spent)

    @property
    def helps(self) -> bool:
        """Whether the cell contracts well enough for a metric to save calls: where the state itself is what is slow,
        a solve with a metric for x is no faster than one without, and may be slower.
        """
        return self.factor < SLOW

    @torch.no_grad()
    def linearised(self, problem: Problem, x0: Tree, z0: Tree | None = None) -> Linearised:
        """The optimum from x0 (B, ...) as if every equilibrium lay on z + (x - x_ref) S; one evaluation of the cell.

        One Newton step (shorter where a whole one would raise the objective of the linearised problem). The evaluation
        says for each sample how far the state that was foreseen there is from one; where that is more than a fifth of
        the way that the state has come, the sample stays at x0 and will be solved plainly. Where the cell contracts too
        slowly (:attr:`helps`) all of them are, without an evaluation: asking never costs more.

        problem: its prox must be Identity or QuadraticPrior. z0: a state like the problem's; may be left out where the
        cell has ``initial_state(x)``. The objective is differentiated twice: k products, as one batch where vmap can.
        """
        check_instance("problem", problem, Problem)
        first = leaves(check_tree("x0", x0))[0]
        if Spec.of(x0).size != self.x.shape[1]:
            fail("x0", f"{self.x.shape[1]} numbers a sample, as S was measured with", f"{Spec.of(x0).size}")
        check_smooth(problem)
        if not self.helps:
            return Linearised(x0, z0, None, 0)

        begin = initial_state(problem.cell, x0, z0, first)
        followed = _Followed(problem, self, x0, begin)
        d, metric = followed.bottom(self.matrix.square().sum(1).mean())
        with held_fixed(problem.cell):
            image, good = followed.tried(d)
        if not bool(good.any()):
            return Linearised(x0, z0, None, 1)

        x = torch.where(good, followed.x + d, followed.x)
        z = torch.where(good, image, followed.zspec.pack(begin))
        metric = dataclasses.replace(metric.only(good), following=self.matrix)
        return Linearised(followed.xspec.unpack(x), followed.zspec.unpack(z), metric, 1)


@dataclass(frozen=True, eq=False)
class Linearised:
    """Where to begin a solve, and the metric to do it in: ``solve(problem, near.x, near.z, metric=near.metric)``.

    x, z: trees (B, ...). metric: None where the plain solve from x0 is what to do. calls: evaluations of the batch that
    finding it took.
    """

    x: Tree
    z: Tree | None
    metric: Metric | None
    calls: int


class _Followed:
    """The objective as a function of a displacement d (B, k) of x0 that the state follows linearly."""

    def __init__(self, problem: Problem, sensitivity: Sensitivity, x0: Tree, like: Tree) -> None:
        self.problem, self.matrix = problem, sensitivity.matrix
        self.zspec, self.xspec = Spec.of(like), Spec.of(x0)
        self.x = self.xspec.pack(x0).detach()
        self.z = sensitivity.z + (self.x - sensitivity.x) @ self.matrix

    def input(self, d: Tensor) -> Tree:
        return self.xspec.unpack(self.x + d)

    def state(self, d: Tensor) -> Tree:
        return self.zspec.unpack(self.z + d @ self.matrix)

    def value(self, d: Tensor) -> Tensor:
        """(B,)."""
        return self.problem.total(self.state(d), self.input(d), len(d))

    def tried(self, d: Tensor) -> tuple[Tensor, Tensor]:
        """f(z, x) at x0 + d and the state foreseen there, (B, n), and where (B, 1) that state was not far off."""
        foreseen = self.z + d @ self.matrix
        image = self.zspec.pack(self.problem.cell(self.zspec.unpack(foreseen), self.input(d)))
        off, way = (image - foreseen).norm(dim=1, keepdim=True), (foreseen - self.z).norm(dim=1, keepdim=True)
        return image, off <= TRUST * way

    def bottom(self, gain: Tensor) -> tuple[Tensor, Metric]:
        """Where Newton's method ends, d (B, k), and the metric on the way there; no call of the cell.

        A second step, and more, only where the objective bends: of a quadratic one the first leaves no slope.
        """
        d = torch.zeros_like(self.x)
        slope, hessian = self.bent(d)
        first = slope.norm(dim=1)
        for _ in range(NEWTON):
            d = self.shortened(d, -Metric.of_curvature(hessian, gain)(slope))
            going = self.slope(d).norm(dim=1) > ENOUGH * first
            if not bool(going.any()):
                break
            fresh = self.bent(d)
            slope, hessian = (
                torch.where(going[:, None], fresh[0], 0.0),
                torch.where(going[:, None, None], fresh[1], hessian),
            )
        return d, Metric.of_curvature(hessian, gain)

    def shortened(self, d: Tensor, step: Tensor) -> Tensor:
        """d + step, or a quarter or a sixteenth of it, where the objective is no higher than at d; else d."""
        best, at = self.value(d), d
        for share in (1 / 16, 1 / 4, 1.0):
            value = self.value(d + share * step)
            lower = value <= best
            best, at = torch.where(lower, value, best), torch.where(lower[:, None], d + share * step, at)
        return at

    def slope(self, at: Tensor) -> Tensor:
        """Gradient (B, k) at d = ``at`` (B, k)."""
        with torch.enable_grad():
            d = at.detach().clone().requires_grad_()
            return torch.autograd.grad(self.value(d).sum(), d)[0]

    def bent(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (B, k) and Hessian (B, k, k) at d = ``at`` (B, k)."""
        with torch.enable_grad():
            d = at.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.value(d).sum(), d, create_graph=True)
        batch, k = d.shape
        if not slope.requires_grad:
            return slope, d.new_zeros(batch, k, k)
        hessian = _rows(slope, d, torch.eye(k).to(d)[:, None].expand(k, batch, k)).transpose(0, 1)
        return slope.detach(), 0.5 * (hessian + hessian.transpose(1, 2))


class _Tangent:
    """t -> J_z t + J_x e for all unit vectors e as a batch of k, at one linearisation point, in units where J_x e is 1.

    The transposed products are recorded once, as functions of what they are applied to; a product with J itself is one
    reverse pass through that record. It needs no forward mode, which not every layer has.
    """

    def __init__(self, problem: Problem, z: Tree, x: Tree) -> None:
        zspec, xspec = Spec.of(z), Spec.of(x)
        self.products = 0
        with torch.enable_grad():
            self.z, self.x = (
                s.pack(t).detach().repeat(xspec.size, 1).requires_grad_() for s, t in ((zspec, z), (xspec, x))
            )
            image = zspec.pack(problem.cell(zspec.unpack(self.z), xspec.unpack(self.x)))
            self.u = torch.zeros_like(image).requires_grad_()
            self.pulled = torch.autograd.grad(image, (self.z, self.x), self.u, create_graph=True, allow_unused=True)

    def right(self) -> tuple[Tensor, Tensor]:
        """J_x e (k, n) with RMS 1, and the RMS (k, 1) that it had."""
        along = self._product(1, torch.eye(len(self.x)).to(self.x))
        size = rms(along)[:, None]
        size = torch.where(size > 0, size, torch.ones_like(size))
        return along / size, size

    def __call__(self, t: Tensor, right: Tensor) -> Tensor:
        return self._product(0, t) + right

    def _product(self, which: int, t: Tensor) -> Tensor:
        """J_z t (which 0) or J_x t (1)."""
        self.products += 1
        pulled = self.pulled[which]
        if pulled is None or not pulled.requires_grad:
            return torch.zeros_like(self.u)
        return torch.autograd.grad(pulled, self.u, t, retain_graph=True)[0]


def _factor(found: Solution) -> float:
    """The mean factor per step of a solve, over the steps and the samples; infinite where one did not converge."""
    if not bool(found.converged.all()):
        return float("inf")
    assert found.trace is not None
    first, steps = found.trace.residual[0, :, 0], (found.steps - 1).clamp_min(1)
    shrunk = (found.residual[:, 0] / first).log() / steps
    return float(shrunk[torch.isfinite(shrunk)].mean().exp()) if bool(torch.isfinite(shrunk).any()) else 0.0


def _rows(slope: Tensor, d: Tensor, units: Tensor) -> Tensor:
    """(k, B, k): the gradient of <slope, unit> in d for each unit, at once where every layer can, else one by one."""
    try:
        return torch.autograd.grad(slope, d, units, retain_graph=True, is_grads_batched=True)[0]
    except RuntimeError:
        return torch.stack([torch.autograd.grad(slope, d, unit, retain_graph=True)[0] for unit in units])
