"""Packed maps whose fixed point is the answer; the only callers of a VJP.

:class:`EquilibriumMap` is z -> f(z, x). :class:`JointMap` is the augmented map of JIIO (Gurumurthy et al. 2021, Eq.
11) over v = [z, mu, x, rule memory]:

    z  <- z  + b_z  (f(z, x) - z)
    mu <- mu + b_mu (J_z^T mu + grad_z l(z, x) - mu)
    x  <- prox( rule( x, J_x^T mu + grad_x l(z, x) ) )

Both transposed products and both gradients of l come from one reverse pass. Inside v, mu and x are *scaled* so that
all blocks are in units of z: mu is divided by the curvature ``sigma`` of the objective in z, and x multiplied by the
gain ``sqrt(kappa)`` of the cell in x. Both are measured per sample at the start, which makes the iteration
independent of batch size, of the scale of the objective and of the units of x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import CellError, fail
from .layout import Layout, Spec, Tree, leaves, map_tree
from .problem import Cell, Problem
from .prox import AbstractProx
from .rules import AbstractRule
from .solution import Evaluations
from .solvers.base import Damping, damping_of


def rms(part: Tensor) -> Tensor:
    """(B, n) -> (B,) root mean square."""
    return torch.linalg.vector_norm(part, dim=1) / part.shape[1] ** 0.5


def select(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Rows of ``new`` where ``mask`` (B,), else rows of ``old``.

    Most masks are all of one kind. On a CPU, where a look is free, one of the two then is the answer without a copy.
    """
    if new.dim() > 1 and new.device.type == "cpu":
        count = int(mask.sum())
        if count in (0, len(mask)):
            return new if count else old
    return torch.where(mask.view(-1, *([1] * (new.dim() - 1))), new, old)


@dataclass
class Point:
    """What one evaluation gives: F(v), and the residual and scale of each block (B, K), and the objective (B,) where
    there is one.
    """

    image: Tensor
    residual: Tensor
    scale: Tensor
    value: Tensor | None = None
    gradient: Tensor | None = None


class Pulled(NamedTuple):
    """Of one evaluation and one VJP: parts of f(z, x), l(z, x) (B,), parts of J_z^T mu + l_z and of J_x^T mu + l_x.

    A part is one tensor of the tree, (B, n_i); they are not joined here, because the caller joins more than these.
    """

    image: list[Tensor]
    value: Tensor
    z: list[Tensor]
    x: list[Tensor]


class EquilibriumMap:
    """v = z -> f(z, x) for a fixed x."""

    blocks = ("z",)

    def __init__(self, cell: Cell, x: Tree, z0: Tree, damping: Damping) -> None:
        self.cell, self.x = cell, x
        self.layout = Layout.of(z=z0)
        self.damping = damping_of(damping, "z")
        self.evaluations = Evaluations()

    def start(self, z0: Tree) -> Tensor:
        return self.layout.pack(z0)

    def __call__(self, v: Tensor) -> Point:
        spec = self.layout.specs[0]
        z = spec.unpack(v)
        out = self.cell(z, self.x)
        if self.evaluations.cell == 0:
            spec.check(out, v, "cell", "z'")
        self.evaluations.cell += 1
        image = spec.pack(out)
        if image.shape != v.shape:
            spec.check(out, v, "cell", "z'")
        with torch.no_grad():
            residual = rms(image - v)[:, None]
            scale = rms(image)[:, None]
        if self.damping != 1.0:
            image = torch.lerp(v, image, self.damping)
        return Point(image, residual, scale)

    def project(self, v: Tensor) -> Tensor:
        return v

    def slower(self, mask: Tensor) -> None:
        """Nothing to slow down: the equilibrium has no step size."""


class JointMap:
    """v = [z, mu / sigma, x sqrt(kappa), memory] -> one augmented step. See the module's words for the equations."""

    blocks = ("z", "mu", "x")

    def __init__(
        self, problem: Problem, rule: AbstractRule, x0: Tree, z0: Tree, damping: Damping, differentiable: bool
    ) -> None:
        self.problem, self.rule = problem, rule
        self.prox: AbstractProx = problem.prox.bind(x0)
        self.zspec, self.xspec = Spec.of(z0), Spec.of(x0)
        x = self.prox.project(self.xspec.pack(x0))
        self.memory = rule.init(x)
        widths = [m.shape[1] for m in self.memory]
        self.sizes = [self.zspec.size, self.zspec.size, self.xspec.size, *widths]
        self.batch, self.dtype = x.shape[0], x.dtype
        self.damping = {block: damping_of(damping, block) for block in self.blocks}
        self.differentiable = differentiable
        self.evaluations = Evaluations()
        self.step = 0
        self.sigma = self.kappa = torch.ones_like(x[:, :1])
        self.factor = torch.ones_like(x[:, :1])  # lowered where the safeguard had to go back
        self.shortened = False  # whether it was, for any sample

    # -- packing

    def join(self, z: Tensor, mu: Tensor, x: Tensor, memory: tuple[Tensor, ...]) -> Tensor:
        """Natural units -> v."""
        return torch.cat([z, mu / self.sigma, x * self.kappa.sqrt(), *memory], dim=1)

    def parts(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
        """v -> packed z, mu, x in natural units, and the memory."""
        z, mu, x, *memory = v.split(self.sizes, dim=1)
        return z, mu * self.sigma, x / self.kappa.sqrt(), tuple(memory)

    def project(self, v: Tensor) -> Tensor:
        """Make the input feasible again after mixing."""
        if type(self.prox).__name__ == "Identity":
            return v
        z, mu, x, *memory = v.split(self.sizes, dim=1)
        root = self.kappa.sqrt()
        return torch.cat([z, mu, self.prox.project(x / root) * root, *memory], dim=1)

    def descend(self, v: Tensor, following: Tensor, point: Point) -> Tensor:
        """Take the plain step where the accelerated one would move the input uphill (B, D).

        Acceleration looks for *any* stationary point; along the wrong one (a saddle, a maximum: a correctly
        classified input is nearly one for an attack) its input moves against the gradient. Measured on an
        attack, this is the difference between a weak and a full-strength adversary (docs/design.md).
        """
        assert point.gradient is not None
        start = 2 * self.sizes[0]
        block = slice(start, start + self.sizes[2])
        # With a prior the plain step itself says where down is: the gradient leaves the prior out.
        down = -point.gradient if self.prox.is_set else (point.image - v)[:, block]
        uphill = ((following[:, block] - v[:, block]) * down).sum(1) < 0
        return select(uphill, point.image, following)

    def slower(self, mask: Tensor) -> None:
        """Quarter the input step of these samples."""
        self.factor = torch.where(mask[:, None], self.factor / 4, self.factor)
        self.shortened = True

    # -- the one reverse pass

    def pullback(self, z: Tensor, mu: Tensor, x: Tensor, weight: Tensor | None = None) -> Pulled:
        """One evaluation and one VJP at packed (z, mu, x); ``weight`` (B,) multiplies the objective (1 where None)."""
        with torch.enable_grad():
            if self.differentiable:
                z, x = (t if t.requires_grad else t.detach().requires_grad_() for t in (z, x))
            ztree, xtree = self.zspec.unpack(z), self.xspec.unpack(x)
            if not self.differentiable:
                # Leaves of their own: a packed leaf would have to gather its gradient from the parts.
                ztree, xtree = (map_tree(lambda t: t.detach().requires_grad_(), tree) for tree in (ztree, xtree))
            out = self.problem.cell(ztree, xtree)
            if self.evaluations.cell == 0:
                self.zspec.check(out, z, "cell", "z'")
            value = self.problem.value(ztree, xtree, self.batch)
            image, inputs = leaves(out), [*leaves(ztree), *leaves(xtree)]
            if [i.shape for i in image] != [i.shape for i in leaves(ztree)]:
                self.zspec.check(out, z, "cell", "z'")
            pairs = [*zip(image, leaves(self.zspec.unpack(mu)), strict=True)]
            pairs.append((value, torch.ones_like(value) if weight is None else weight))
            pairs = [(o, g) for o, g in pairs if o.requires_grad]
            if not pairs:
                fail("cell and objective", "outputs that depend differentiably on z or x", "constants", error=CellError)
            outputs, weights = zip(*pairs, strict=True)
            grads = torch.autograd.grad(outputs, inputs, weights, create_graph=self.differentiable, allow_unused=True)
        self.evaluations.cell += 1
        self.evaluations.vjp += 1
        grads = [torch.zeros_like(t) if g is None else g for g, t in zip(grads, inputs, strict=True)]
        if not self.differentiable:
            image, value = [i.detach() for i in image], value.detach()
        image, grads = ([t.reshape(self.batch, -1) for t in many] for many in (image, grads))
        return Pulled(image, value, grads[: len(image)], grads[len(image) :])

    def __call__(self, v: Tensor) -> Point:
        # Everything stays in the scaled units of v: with the objective divided by sigma, the VJP is as well.
        z, mu, x, *memory = v.split(self.sizes, dim=1)
        root = self.kappa.sqrt()
        x = x / root
        pulled = self.pullback(z, mu, x, 1.0 / self.sigma[:, 0])
        gx = torch.cat(pulled.x, dim=1)
        gradient, curvature = gx / self.kappa, self.sigma * self.kappa
        full = self.rule.at(self.step)
        rate = full * self.factor
        self.step += 1
        moved, memory_next = self.rule.update(x, gradient, tuple(memory), rate)
        moved = self.prox.apply(moved, rate / curvature)
        image = torch.cat([*pulled.image, *pulled.z, moved * root, *memory_next], dim=1)
        with torch.no_grad():
            # How far one full curvature-scaled step would move the input: the same question for every rule. Not
            # the shortened step: once it drowns in rounding, it would pass for standing still.
            unit, plain = full, moved
            if not self.rule.exact_step or self.shortened:
                unit = full if self.rule.exact_step else 1.0
                plain = self.prox.apply(x - unit * gradient, unit / curvature)
            n = self.zspec.size
            apart = image[:, : 2 * n] - v[:, : 2 * n]
            residual = torch.stack([rms(apart[:, :n]), rms(apart[:, n:]), rms((plain - x) / unit * root)], dim=1)
            scale = torch.stack([rms(image[:, :n]), rms(image[:, n : 2 * n]), rms(x * root)], dim=1)
        if any(b != 1.0 for b in self.damping.values()):
            blocks = zip(v.split(self.sizes, dim=1), image.split(self.sizes, dim=1), self._weights(), strict=True)
            image = torch.cat([new if b == 1.0 else torch.lerp(old, new, b) for old, new, b in blocks], dim=1)
        value = pulled.value if self.prox.is_set else pulled.value + self.prox.penalty(x)
        return Point(image, residual, scale, value, gx * self.sigma)

    def _weights(self) -> list[float]:
        """The damping of every block of v; the memory of the rule is never damped."""
        return [*(self.damping[block] for block in self.blocks), *(1.0 for _ in self.memory)]

    # -- the start

    def start(
        self, z0: Tree, multiplier: Tree | None, x0: Tree, scaling: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Pack the start; take the scales that are given, or measure them."""
        z, x = self.zspec.pack(z0), self.prox.project(self.xspec.pack(x0))
        mu = torch.zeros_like(z) if multiplier is None else self.zspec.pack(multiplier)
        if scaling is not None:
            self.rescale(scaling)
            return self.join(z, mu, x, self.memory)
        given = self.rule.curvature
        if given is not None:
            curvature = given if isinstance(given, Tensor) else x.new_tensor(float(given))
            self.kappa = curvature.reshape(-1, 1).to(x).expand(self.batch, 1)
            return self.join(z, mu, x, self.memory)
        with torch.no_grad():
            image, first = self._measure(z.detach(), mu.detach(), x.detach(), cold=multiplier is None)
        if multiplier is None and not self.differentiable:
            z, mu = image, first  # both were paid for, and both are nearer than the start
        return self.join(z, mu, x, self.memory)

    def rescale(self, scaling: tuple[Tensor, Tensor]) -> None:
        """Take these scales, sigma and kappa, each () or (B, 1)."""
        like = self.sigma
        self.sigma, self.kappa = (part.detach().to(like).reshape(-1, 1).expand(self.batch, 1) for part in scaling)

    def _measure(self, z: Tensor, mu: Tensor, x: Tensor, cold: bool) -> tuple[Tensor, Tensor]:
        eps = torch.finfo(x.dtype).eps
        # First evaluation: with mu = 0 it gives f and the gradients of l; the second, at f, prices mu = l_z
        # through the cell.
        zero = torch.zeros_like(mu)
        image = torch.cat(self.pullback(z, zero, x).image, dim=1)
        if not bool(torch.isfinite(image).all()):
            image = torch.where(torch.isfinite(image), image, z)
        lz1, lx1 = self._objective_gradient(image, x)
        u = lz1 if cold else mu
        through = torch.cat(self.pullback(image, u, x).x, dim=1)
        gain = (through - lx1).norm(dim=1, keepdim=True)
        size = u.norm(dim=1, keepdim=True)
        # A state near zero says nothing about its own scale; activations are of order one.
        length = image.norm(dim=1, keepdim=True).clamp_min(1e-2 * image.shape[1] ** 0.5)
        # Curvature of l in z along its gradient, by a secant a tenth of the state's length long.
        reach = 0.1 * length
        probe = image - reach * lz1 / lz1.norm(dim=1, keepdim=True).clamp_min(eps**2)
        lz2, _ = self._objective_gradient(probe, x)
        bend = (lz2 - lz1).norm(dim=1, keepdim=True) / (probe - image).norm(dim=1, keepdim=True).clamp_min(eps * reach)
        floor = 1e-2 * lz1.norm(dim=1, keepdim=True) / length
        sigma = torch.maximum(bend, floor)
        self.sigma = torch.where(torch.isfinite(sigma) & (sigma > 0), sigma, torch.ones_like(sigma))
        slope = (gain / size.clamp_min(eps**2)).square()
        slope = torch.where(torch.isfinite(slope) & (slope > 0) & (size > 0), slope, torch.ones_like(slope))
        # A regulariser r(x) adds its own curvature, in the same units.
        step = gain / (self.sigma * slope).clamp_min(eps**2)
        direction = torch.where(
            gain > 0, (through - lx1) / gain.clamp_min(eps**2), torch.ones_like(x) / x.shape[1] ** 0.5
        )
        stride = torch.where(step > 0, 0.1 * step, torch.full_like(step, 1e-3))
        _, lx2 = self._objective_gradient(image, x - stride * direction)
        own = (lx2 - lx1).norm(dim=1, keepdim=True) / stride
        own = torch.where(torch.isfinite(own), own, torch.zeros_like(own))
        self.kappa = slope + own / self.sigma
        return image, torch.where(torch.isfinite(lz1), lz1, torch.zeros_like(lz1))

    def _objective_gradient(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z, x = z.detach().requires_grad_(), x.detach().requires_grad_()
            value = self.problem.value(self.zspec.unpack(z), self.xspec.unpack(x), self.batch)
            if not value.requires_grad:
                return torch.zeros_like(z), torch.zeros_like(x)
            gz, gx = torch.autograd.grad(value.sum(), [z, x], allow_unused=True)
        return torch.zeros_like(z) if gz is None else gz, torch.zeros_like(x) if gx is None else gx
