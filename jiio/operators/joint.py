"""The augmented map of JIIO (Gurumurthy et al. 2021, Eq. 11) over v = [z, mu, x, rule memory]:

    z  <- z  + b_z  (f(z, x) - z)
    mu <- mu + b_mu (J_z^T mu + grad_z l(z, x) - mu)
    x  <- prox( rule( x, J_x^T mu + grad_x l(z, x) ) )

Both transposed products and both gradients of l come from one reverse pass. Inside v, mu and x are in the units of
:mod:`jiio.operators.scales`.
"""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor

from ..layout import Spec, Tree
from ..metric import Metric
from ..persample import placed, rows_of, taken
from ..problem import Problem
from ..prox import AbstractProx, Identity
from ..rules import AbstractRule
from ..solvers.base import Damping, damping_of
from .base import Point, rms, select
from .claims import refused
from .packed import PackedProblem
from .renewal import hidden, renewed, suspicious
from .scales import Local, Scales, measured


class JointMap:
    """v = [z, mu / sigma, x sqrt(kappa), memory] -> one augmented step. See the module's words for the equations."""

    blocks = ("z", "mu", "x")

    def __init__(
        self,
        problem: Problem,
        rule: AbstractRule,
        x0: Tree,
        z0: Tree,
        damping: Damping,
        differentiable: bool,
        metric: Metric | None = None,
    ) -> None:
        self.problem, self.rule, self.metric = problem, rule, metric
        self.prox: AbstractProx = problem.prox.bind(x0)
        self.zspec, self.xspec = Spec.of(z0), Spec.of(x0)
        if metric is not None:
            metric.check_state(self.zspec.size)
        x = self.prox.project(self.xspec.pack(x0))
        self.batch, self.differentiable = x.shape[0], differentiable
        self.packed = PackedProblem(problem, self.zspec, self.xspec, self.batch, differentiable)
        self.evaluations = self.packed.evaluations

        # The blocks of v: how wide each is, and how far the map moves it.
        self.memory = rule.init(x)
        self.sizes = [self.zspec.size, self.zspec.size, self.xspec.size, *(m.shape[1] for m in self.memory)]
        self.damping = {block: damping_of(damping, block) for block in self.blocks}

        # What a solve changes: its units, the step that it is at, and shorter steps where it had to go back.
        self.scales = Scales.ones(x)
        self.step = 0
        self.apart: Tensor | None = None  # to write F(v) - v of state and multiplier into
        self.scheduled: Tensor | None = None  # the rate of this step, where somebody else keeps count of steps
        self.factor = torch.ones_like(x[:, :1])
        self.shortened = False  # whether the factor is below 1 for any sample
        self.plain = torch.zeros_like(self.factor, dtype=torch.bool)  # who steps without the metric
        self.looks = torch.zeros_like(x[:, 0])  # how often a claim was refused and other units were taken
        self.steep = torch.zeros_like(x[:, 0])  # the largest multiplier so far, in its units

    # -- the start

    def start(
        self, z0: Tree, multiplier: Tree | None, x0: Tree, scaling: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Pack the start; take the scales that are given, or measure them."""
        z, x = self.zspec.pack(z0), self.prox.project(self.xspec.pack(x0))
        mu = torch.zeros_like(z) if multiplier is None else self.zspec.pack(multiplier)
        if self.metric is not None:
            scaling = self.metric.scaling if scaling is None else scaling
            self.plain = self.plain | self.metric.plain
        measuring = scaling is None and self.rule.curvature is None
        if multiplier is None and not measuring and not self.differentiable:
            # Costs no call, and with mu = 0 a start at x = 0 would look settled.
            mu = self.packed.slopes(z, x)[0].nan_to_num(0.0, 0.0, 0.0)

        if scaling is not None:
            self.scales = Scales.given(scaling, x)
            unknown = self.scales.unknown
            if bool(unknown.any()):
                cold = multiplier is None
                here = measured(self.packed, z.detach(), mu.detach(), x.detach(), cold=cold)
                self.scales = self.scales.completed(here.scales)
                if cold and not self.differentiable:  # who is measured begins as if all were
                    z, mu = torch.where(unknown, here.image, z), torch.where(unknown, here.slope, mu)
        elif self.rule.curvature is not None:
            self.scales = self._curvature_of_the_rule(x)
        else:
            cold = multiplier is None
            self.scales, image, slope = measured(self.packed, z.detach(), mu.detach(), x.detach(), cold=cold)
            if cold and not self.differentiable:
                z, mu = image, slope  # both were paid for, and both are nearer than the start
        return self.scales.pack(z, mu, x, self.memory)

    def _curvature_of_the_rule(self, x: Tensor) -> Scales:
        given = self.rule.curvature
        assert given is not None
        curvature = given if isinstance(given, Tensor) else x.new_tensor(float(given))
        return Scales(torch.ones_like(x[:, :1]), curvature.reshape(-1, 1).to(x).expand(self.batch, 1))

    def parts(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
        """v -> packed z, mu, x in natural units, and the memory."""
        return self.scales.unpack(v, self.sizes)

    def rows(self, index: Tensor) -> Self | None:
        """The map of the samples ``index`` (k,) alone, where cell, objective, prox and rule offer that; else None."""
        cell, objective = rows_of(self.problem.cell, index), rows_of(self.problem.objective, index)
        if cell is None or objective is None:
            return None
        # Bound to the input, the parameters of the prox are (B, n) whatever they were.
        prox = self.prox.rows(index, self.factor.expand(self.batch, self.xspec.size))
        rule = self.rule.rows(index, self.batch)
        if prox is None or rule is None:
            return None

        part = copy.copy(self)
        part.problem, part.prox, part.rule, part.batch = Problem(cell, objective, prox), prox, rule, len(index)
        part.packed = self.packed.rows(part.problem, part.batch)
        part.metric = None if self.metric is None else self.metric.rows(index, self.batch)
        part.apart = None
        part.memory, part.scales = taken(self.memory, index), self.scales.rows(index)
        for name in ("factor", "plain", "looks", "steep"):
            setattr(part, name, getattr(self, name).index_select(0, index))
        return part

    def adopt(self, places: Tensor, part: Self) -> None:
        """Take over the units of the samples ``places`` (k,), which went on as ``part``."""
        self.scales = self.scales.with_rows(places, part.scales)
        self.plain, self.looks = placed(self.plain, places, part.plain), placed(self.looks, places, part.looks)

    @property
    def places(self) -> dict[str, slice]:
        """Where each block lies in v; the memory of the rule belongs to x."""
        n = self.zspec.size
        return {"z": slice(0, n), "mu": slice(n, 2 * n), "x": slice(2 * n, sum(self.sizes))}

    # -- one step

    def __call__(self, v: Tensor) -> Point:
        # Everything stays in the scaled units of v: with the objective divided by sigma, the VJP is as well.
        z, mu, x, *memory = v.split(self.sizes, dim=1)
        sigma, kappa, root = self.scales.sigma, self.scales.kappa, self.scales.root
        x = x / root
        pulled = self.packed.pull(z, mu, x, 1.0 / sigma[:, 0])
        gx = torch.cat(pulled.x, dim=1)
        gradient = gx / kappa if self.metric is None else torch.where(self.plain, gx / kappa, self.metric(gx * sigma))

        # The input moves by the rule, and back to where the prox wants it.
        full = self._rate() * self._pace()
        rate = full * self.factor
        self.step += 1
        moved, memory_next = self.rule.update(x, gradient, tuple(memory), rate)
        moved = self.prox.apply(moved, rate / (sigma * kappa))

        image = torch.cat([*pulled.image, *pulled.z, moved * root, *memory_next], dim=1)
        moves = [self._full_move(x, gradient, moved, full) * root]
        if self.metric is not None:
            moves.append(gx / root)  # a plain step has to be short as well: settled means what it means without one
        residual, scale = self._residual(v, image, x, moves)
        self.steep = torch.fmax(self.steep, scale[:, 1])
        image = self._damped(v, image)
        if (along := self.along(moved - x)) is not None:
            n = self.zspec.size
            image = torch.cat([image[:, :n] + along, image[:, n:]], dim=1)
        value = pulled.value if self.prox.is_set else pulled.value + self.prox.penalty(x)
        return Point(image, residual, scale, value, gx * sigma)

    def _rate(self) -> float | Tensor:
        """The rule's rate at this step; a tensor () where the step is recorded and the rate follows a schedule."""
        return self.rule.at(self.step) if self.scheduled is None else self.scheduled

    def _pace(self) -> float | Tensor:
        """The share of the rule's rate that a step takes, a number or (B, 1)."""
        return 1.0 if self.metric is None else torch.where(self.plain, 1.0, self.metric.pace).to(self.factor)

    @torch.no_grad()
    def _full_move(self, x: Tensor, gradient: Tensor, moved: Tensor, full: float | Tensor) -> Tensor:
        """How far one full curvature-scaled step would move the input: the same question for every rule.

        Not the shortened step: once it drowns in rounding, it would pass for standing still.
        """
        if self.rule.exact_step and not self.shortened:
            return (moved - x) / full
        unit = full if self.rule.exact_step else 1.0
        plain = self.prox.apply(x - unit * gradient, unit / (self.scales.sigma * self.scales.kappa))
        return (plain - x) / unit

    @torch.no_grad()
    def _residual(self, v: Tensor, image: Tensor, x: Tensor, moves: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Residual and scale of the blocks (B, 3); ``moves``: of the input, in the units of v; the longest counts."""
        n = self.zspec.size
        if self.apart is None:
            self.apart = torch.empty_like(image[:, : 2 * n])
        apart = torch.sub(image[:, : 2 * n], v[:, : 2 * n], out=self.apart)
        settled = torch.stack([rms(move) for move in moves]).amax(0)
        residual = torch.stack([rms(apart[:, :n]), rms(apart[:, n:]), settled], dim=1)
        sizes = [rms(image[:, :n]), rms(image[:, n : 2 * n]), rms(x * self.scales.root)]
        return residual, torch.stack(sizes, dim=1)

    def _damped(self, v: Tensor, image: Tensor) -> Tensor:
        """Every block moved as far as its damping says; the memory of the rule is never damped."""
        if all(weight == 1.0 for weight in self.damping.values()):
            return image
        weights = [*self.damping.values(), *(1.0 for _ in self.memory)]
        blocks = zip(v.split(self.sizes, dim=1), image.split(self.sizes, dim=1), weights, strict=True)
        return torch.cat([new if b == 1.0 else torch.lerp(old, new, b) for old, new, b in blocks], dim=1)

    def along(self, moved: Tensor) -> Tensor | None:
        """How far the state goes along, (B, n), with an input that ``moved`` (B, k); None where no metric tells.

        Added to the image of the state. At the fixed point nothing moves, and on the way x may go faster, because
        f(z, x) alone is a step behind.
        """
        if self.metric is None or self.metric.following is None:
            return None
        return torch.where(self.plain, 0.0, moved @ self.metric.following)

    # -- what the loop asks for between two steps

    def project(self, v: Tensor) -> Tensor:
        """Make the input feasible again after mixing."""
        if isinstance(self.prox, Identity):
            return v
        z, mu, x, *memory = v.split(self.sizes, dim=1)
        root = self.scales.root
        return torch.cat([z, mu, self.prox.project(x / root) * root, *memory], dim=1)

    def descend(self, v: Tensor, following: Tensor, point: Point) -> Tensor:
        """Take the plain step where the accelerated one would move the input uphill (B, D).

        Acceleration looks for *any* stationary point; along the wrong one (a saddle, a maximum: a correctly
        classified input is nearly one for an attack) its input moves against the gradient. Measured on an
        attack, this is the difference between a weak and a full-strength adversary (docs/decisions.md).
        """
        assert point.gradient is not None
        start = 2 * self.sizes[0]
        block = slice(start, start + self.sizes[2])
        # With a prior the plain step itself says where down is: the gradient leaves the prior out.
        down = -point.gradient if self.prox.is_set else (point.image - v)[:, block]
        here, move = v[:, block], following[:, block] - v[:, block]
        # What stays where it is, at a vertex say, moves by rounding alone, and that has no direction.
        still = move.abs() <= 2 * torch.finfo(v.dtype).eps * here.abs()
        uphill = (move * down).masked_fill(still, 0.0).sum(1) < 0
        return select(uphill, point.image, following)

    def renew(self, v: Tensor, point: Point, done: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """v (B, D) for those of ``done`` (B,) that have to go on, in other units mostly, and who they are.

        allowed (B,): RMS that the tolerance leaves the state.
        """
        z, _, x, _ = self.parts(v)
        here = Local(self.packed, z, x)
        again = done & suspicious(self, point)
        if bool(again.any()):
            v, again = renewed(self, v, point, again, allowed, here)
        v, more = refused(self, v, point, done & ~again & ~self._borne_out(v, point, allowed), allowed, here)
        return v, again | more

    @torch.no_grad()
    def _borne_out(self, v: Tensor, point: Point, allowed: Tensor) -> Tensor:
        """(B,) whose curvature is known, and says that nothing is left to fall; they are not asked, which costs calls.

        The metric of a sample that steps in it was held against an evaluation of the cell.
        """
        if self.metric is None:
            return torch.zeros_like(allowed, dtype=torch.bool)
        assert point.gradient is not None
        fall = 0.5 * (point.gradient * self.metric(point.gradient)).sum(1)
        return ~self.plain[:, 0] & (fall <= hidden(point, self.parts(v)[1], self.scales.sigma, allowed))

    def slower(self, mask: Tensor) -> None:
        """Quarter the input step of these samples, and let them go without the metric, which may be wrong by now."""
        self.plain = self.plain | mask[:, None]
        self.factor = torch.where(mask[:, None], self.factor / 4, self.factor)
        self.shortened = True
