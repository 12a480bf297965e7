"""Problems whose state is an explicit function of the input, z = G(x): the state is eliminated.

What is minimised is l(G(x), x) + prox over x alone, by limited-memory BFGS (Nocedal 1980) sample by sample: every call
of G serves one trial step of every sample, and each has its own memory, step length, status and count. Directions stay
in the tangent space of the active constraints, trials are mapped back by the prox, and are taken where the objective
falls enough (Armijo). The residual is the step of the proximal gradient in the curvature last seen, so it is always in
present units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .layout import Spec, Tree, check_tree, leaves
from .operators import PackedProblem, rms, select
from .problem import Problem
from .prox import AbstractProx
from .solution import Solution, Status, Tolerance, Trace

ENOUGH = 1e-4  # of the decrease that the slope promises
SHORTEST = 20  # quarterings after which no step along the gradient lowers the objective
IDLE = 10  # calls that lower it by next to nothing of what the gradient promises, likewise
FAR = 1e-2  # length of a step, over that of the input, from which on it tells of the curvature and not of a kink
MEMORY = 10


@dataclass
class Ended:
    """Packed x (B, n) where every sample ended, and what was measured there."""

    x: Tensor
    value: Tensor  # (B,)
    gradient: Tensor  # (B, n)
    residual: Tensor  # (B,)
    status: Tensor
    steps: Tensor
    curvature: Tensor  # (B, 1)


class History:
    """The last pairs of step and change of gradient, (B, m, n) each, of every sample."""

    def __init__(self, like: Tensor) -> None:
        self.s, self.y = like.new_zeros(2, len(like), MEMORY, like.shape[1])

    def add(self, s: Tensor, y: Tensor, mask: Tensor) -> None:
        """Take in a pair (B, n) for the samples in ``mask`` where it has positive curvature."""
        good = mask & ((s * y).sum(1) > 1e-10 * s.norm(dim=1) * y.norm(dim=1))
        for name, new in (("s", s), ("y", y)):
            old = getattr(self, name)
            setattr(self, name, select(good, torch.cat([old[:, 1:], new[:, None]], dim=1), old))

    def forget(self, mask: Tensor) -> None:
        """Begin anew for the samples in ``mask``."""
        self.s, self.y = (t.masked_fill(mask[:, None, None], 0.0) for t in (self.s, self.y))

    def applied(self, g: Tensor, curvature: Tensor) -> Tensor:
        """The inverse Hessian times g (B, n): the two loops; empty slots add nothing."""
        products = (self.s * self.y).sum(2)
        rho = torch.where(products > 0, 1 / products.clamp_min(torch.finfo(g.dtype).tiny), torch.zeros_like(products))
        alphas = []
        for i in reversed(range(MEMORY)):
            alpha = rho[:, i, None] * (self.s[:, i] * g).sum(1, keepdim=True)
            g = g - alpha * self.y[:, i]
            alphas.append(alpha)
        d = g / curvature
        for i, alpha in zip(range(MEMORY), reversed(alphas), strict=True):
            beta = rho[:, i, None] * (self.y[:, i] * d).sum(1, keepdim=True)
            d = d + (alpha - beta) * self.s[:, i]
        return d


class Descent:
    """The iteration on packed x (B, n)."""

    def __init__(self, problem: PackedProblem, prox: AbstractProx, x: Tensor, tolerance: Tolerance) -> None:
        self.problem, self.prox, self.tolerance = problem, prox, tolerance
        self.x = prox.project(x)
        self.value, self.gradient = self.measured(self.x)
        batch = len(x)
        self.status = torch.full((batch,), int(Status.RUNNING), dtype=torch.int8, device=x.device)
        self.status[~torch.isfinite(self.value) | ~torch.isfinite(self.gradient).all(1)] = int(Status.NONFINITE)
        self.steps = torch.ones(batch, dtype=torch.int64, device=x.device)
        self.failed, self.idle = torch.zeros_like(self.steps), torch.zeros_like(self.steps)
        self.history = History(x)

        # Before anything is known of the curvature a step is a tenth of the input long, or of one.
        size = rms(self.x).clamp_min(0.1)[:, None]
        steep = rms(self.gradient)[:, None].nan_to_num(0.0, 0.0, 0.0)
        self.curvature = torch.where(steep > 0, 10 * steep / size, torch.ones_like(steep))
        self.unit = self.curvature  # that of the last step long enough: near a kink the others say anything
        self.slope = self.gradient + self._prior(self.x)

    def measured(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is minimised (B,), without the prior, and its gradient (B, n): one call of G and one VJP."""
        value, gradient = self.problem.reduced(x)
        return value + (0.0 if self.prox.is_set else self.prox.penalty(x)), gradient

    def _prior(self, x: Tensor) -> Tensor:
        """The gradient of a prior where it has one (B, n)."""
        if self.prox.is_set:
            return torch.zeros_like(x)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            return torch.autograd.grad(self.prox.penalty(leaf).sum(), leaf)[0]

    @property
    def running(self) -> Tensor:
        return self.status == int(Status.RUNNING)

    def residual(self) -> Tensor:
        """(B,) RMS of the proximal gradient step in the present curvature."""
        return rms(self.prox.apply(self.x - self.gradient / self.unit, 1 / self.unit) - self.x)

    def trial(self) -> tuple[Tensor, Tensor]:
        """The next point to look at (B, n), and whether it is a plain proximal step (B,)."""
        length = 0.25 ** self.failed.to(self.x.dtype)[:, None]
        plain = self.prox.apply(self.x - length * self.gradient / self.curvature, length / self.curvature)

        # Along the constraints that hold; where two such steps failed, the plain one. Under a prior every second step
        # is plain, because only that moves coordinates away from its kinks, and to them.
        active = self.prox.active(self.x, self.gradient)
        way = active.project(self.history.applied(active.project(self.slope), self.curvature))
        uphill = (way * self.slope).sum(1) <= 0
        bent = self.prox.project(self.x - length * way)
        simple = uphill | (self.failed >= 2)
        if not self.prox.is_set:
            simple = simple | (self.steps % 2 == 1)
        return select(simple, plain, bent), simple

    def step(self) -> None:
        """One call of G: try, and take what lowers the objective enough."""
        before = self.running
        x, _ = self.trial()
        value, gradient = self.measured(x)
        slope, moved = gradient + self._prior(x), x - self.x
        promised = (self.slope * moved).sum(1).clamp_max(0.0)
        finite = torch.isfinite(value) & torch.isfinite(gradient).all(1)
        rounding = 4 * torch.finfo(value.dtype).eps * self.value.abs()
        taken = before & finite & (value <= self.value + ENOUGH * promised + rounding) & moved.any(1)

        # What the step tells of the curvature.
        change = slope - self.slope
        bend = (moved * change).sum(1, keepdim=True)
        length = moved.square().sum(1, keepdim=True)
        seen = change.square().sum(1, keepdim=True) / bend.clamp_min(torch.finfo(x.dtype).tiny)
        self.history.add(moved, change, taken)
        known = taken[:, None] & (bend > 1e-10 * length.sqrt() * change.norm(dim=1, keepdim=True))
        known = known & torch.isfinite(seen)
        self.curvature = torch.where(known, seen, self.curvature)
        far = rms(moved) >= FAR * rms(self.x)
        self.unit = torch.where(known & far[:, None], seen, self.unit)

        # The step itself.
        promise = 0.5 * self.unit[:, 0] * self.residual().square() * x.shape[1]  # of a smooth function, in one step
        small = torch.maximum(1e-4 * promise, torch.finfo(value.dtype).eps * self.value.abs())
        self.idle = torch.where(taken & (self.value - value > small), 0, self.idle + before)
        self.slope = select(taken, slope, self.slope)
        self.x, self.gradient = select(taken, x, self.x), select(taken, gradient, self.gradient)
        self.value = torch.where(taken, value, self.value)
        self.failed = torch.where(taken, 0, self.failed + before)
        self.history.forget(self.failed == 3)
        self.steps = self.steps + before

    def judge(self) -> Tensor:
        """Set who has converged, or can go no further; returns the residual (B,)."""
        left = self.residual()
        within = left <= self.tolerance.atol + self.tolerance.rtol * rms(self.x)
        self.status = torch.where(self.running & within, int(Status.CONVERGED), self.status).to(torch.int8)
        stuck = self.running & ((self.failed >= SHORTEST) | (self.idle >= IDLE))
        self.status = torch.where(stuck, int(Status.KINK), self.status).to(torch.int8)
        return left


@torch.no_grad()
def descend(
    problem: PackedProblem,
    prox: AbstractProx,
    x: Tensor,
    tolerance: Tolerance,
    max_steps: int,
    seen: Callable[[int, Tensor, Tensor, Tensor], bool],
) -> Ended:
    """From packed x (B, n). seen: called with step, x, value (B,) and residual (B,); True ends the solve."""
    run = Descent(problem, prox, x, tolerance)
    for step in range(max_steps):
        left = run.judge()
        if seen(step, run.x, run.value, left):
            run.status = run.status.masked_fill(run.running, int(Status.STOPPED))
        if step == max_steps - 1 or not bool(run.running.any()):
            break
        run.step()
    status = run.status.masked_fill(run.running, int(Status.MAX_STEPS))
    return Ended(run.x, run.value, run.gradient, run.residual(), status, run.steps, run.curvature)


Callback = Callable[[int, Tree, Tree, Tensor], object]


class Diary:
    """What the steps showed: to the callback, and for the trace."""

    def __init__(self, problem: PackedProblem, keep: bool, points: bool, callback: Callback | None) -> None:
        self.problem, self.keep, self.points, self.callback = problem, keep, points, callback
        self.residual: list[Tensor] = []
        self.value: list[Tensor] = []
        self.x: list[Tree] = []

    def __call__(self, step: int, x: Tensor, value: Tensor, residual: Tensor) -> bool:
        if self.keep:
            self.residual.append(residual[:, None])
            self.value.append(value)
        tree = self.problem.xspec.unpack(x)
        if self.points:
            self.x.append(tree)
        if self.callback is None:
            return False
        return bool(self.callback(step, self.problem.problem.cell(tree, tree), tree, value))

    @property
    def trace(self) -> Trace | None:
        """None where nothing was to be kept."""
        return Trace(torch.stack(self.residual), torch.stack(self.value), x=self.x) if self.keep else None


def explicit_solution(
    problem: Problem,
    x0: Tree,
    tolerance: Tolerance,
    max_steps: int,
    trace: bool | str,
    callback: Callback | None,
) -> Solution:
    """The record of :func:`descend`, with z = G(x) and its multiplier l_z."""
    like = leaves(x0)[0]
    with torch.no_grad():
        zspec = Spec.of(check_tree("function(x)", problem.cell(x0, x0), like.shape[0], like))
    xspec, prox = Spec.of(x0), problem.prox.bind(x0)
    packed = PackedProblem(problem, zspec, xspec, len(like), False)
    packed.evaluations.cell += 1
    diary = Diary(packed, bool(trace), trace == "points", callback)
    found = descend(packed, prox, xspec.pack(x0), tolerance, max_steps, diary)

    # The state, and the multiplier of z = G(x), which nothing else depends on: l_z itself.
    with torch.no_grad():
        x = xspec.unpack(found.x)
        z = problem.cell(x, x)
    packed.evaluations.cell += 1
    mu = packed.slopes(zspec.pack(z), found.x)[0]
    return Solution(
        z=z,
        x=x,
        multiplier=zspec.unpack(mu),
        value=found.value,
        status=found.status,
        steps=found.steps,
        residual=found.residual[:, None],
        blocks=("x",),
        evaluations=packed.evaluations,
        trace=diary.trace,
        gradient=found.gradient,
    )
