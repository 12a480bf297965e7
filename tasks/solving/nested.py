"""The nested baseline: what input optimisation in an equilibrium network costs without the joint iteration.

Every outer step solves z = f(z, x) to tolerance, solves the adjoint mu = J_z^T mu + l_z to tolerance, and moves x once
along J_x^T mu + l_x. It takes the same problem and rules as :func:`jiio.solve`, measures the same scales, and counts
the same calls, so that the two can be laid side by side (projected gradient descent, Adam on a latent code, warm or
cold). What is counted and kept is in :mod:`.ledger`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import jiio
from jiio.checks import check_instance, check_integer, fail
from jiio.holding import held_fixed
from jiio.layout import Tree, check_tree, leaves
from jiio.metric import smooth
from jiio.operators import JointMap, rms
from jiio.problem import initial_state
from jiio.prox import Identity

from .ledger import Ledger, NestedRun


@torch.no_grad()
def nested(
    problem: jiio.Problem,
    x0: Tree,
    z0: Tree | None = None,
    *,
    rule: jiio.AbstractRule = jiio.GradientStep(),  # noqa: B008 (frozen records)
    metric: jiio.Metric | None = None,
    warm: bool = True,
    outer_steps: int = 100,
    tolerance: jiio.Tolerance = jiio.Tolerance(),  # noqa: B008
    outer_tolerance: jiio.Tolerance | None = None,
    solver: jiio.AbstractSolver = jiio.Anderson(),  # noqa: B008
    outer: jiio.AbstractSolver = jiio.Picard(),  # noqa: B008
    max_inner: int = 200,
    trace: bool = False,
) -> NestedRun:
    """Minimise the objective over the input, one full forward and adjoint solve per step.

    x0, z0, rule, tolerance: as in :func:`jiio.solve`. outer_tolerance: when x has settled, if other than for the inner
    solves; a loose inner tolerance need not end the outer iteration. A rule whose curvature is None measures it at the
    start, at the same price of two evaluations and two VJPs. metric: as there, but for its pace: the state has followed
    when x moves, so that a rate of 1 is a whole Newton step. warm: start both inner solves at the answers of the step
    before, else at z0 and at l_z. solver: of the inner solves. outer: accelerates the iteration of x (and the rule's
    memory) itself; Picard is the classical baseline. A sample whose x has settled stays put. The x of every visit
    satisfies the constraint.

    Raises ArgumentError / ArgumentTypeError for unusable arguments, CellError where the cell or objective breaks its
    contract.
    """
    check_instance("problem", problem, jiio.Problem)
    check_rule(problem, rule)
    if metric is not None:
        check_instance("metric", metric, jiio.Metric).check(problem, rule, x0)
        problem = smooth(problem)
    how = _How(solver, outer, tolerance, outer_tolerance or tolerance, max_inner, outer_steps, warm, trace)

    # Weights and dropout masks may not change while the two solves of a step, and the steps, build on each other.
    like = leaves(check_tree("x0", x0))[0]
    with held_fixed(problem.cell):
        z0 = initial_state(problem.cell, x0, z0, like)
        operator = JointMap(problem, rule, x0, z0, 1.0, False, metric)
        ledger = Ledger(operator.batch, like, operator.evaluations, trace)
        return _descend(operator, operator.start(z0, None, x0), how, ledger)


def check_rule(problem: jiio.Problem, rule: jiio.AbstractRule) -> None:
    """A rule whose fixed points are the optima under the problem's prox."""
    check_instance("rule", rule, jiio.AbstractRule)
    if not rule.exact_step and not problem.prox.is_set:
        came = f"{type(rule).__name__} with the prior {type(problem.prox).__name__}"
        fail("rule", "a plain gradient step with a prior", came, "Use GradientStep().")


@dataclass(frozen=True)
class _How:
    """The arguments of :func:`nested` that are neither problem nor rule. settled: the outer tolerance."""

    solver: jiio.AbstractSolver
    outer: jiio.AbstractSolver
    tolerance: jiio.Tolerance
    settled: jiio.Tolerance
    max_inner: int
    outer_steps: int
    warm: bool
    trace: bool

    def __post_init__(self) -> None:
        check_instance("solver", self.solver, jiio.AbstractSolver)
        check_instance("outer", self.outer, jiio.AbstractSolver)
        check_instance("tolerance", self.tolerance, jiio.Tolerance)
        check_instance("outer_tolerance", self.settled, jiio.Tolerance)
        check_integer("outer_steps", self.outer_steps, 1)
        check_integer("max_inner", self.max_inner, 2)

    def inner(self) -> dict[str, Any]:
        """Of both inner solves: no gradients, and a sample that fails is passed over by the outer iteration."""
        settings = jiio.SolveSettings(self.solver, jiio.Detached(), self.tolerance, self.max_inner, "ignore")
        return settings.arguments() | {"trace": self.trace}


@dataclass(frozen=True, eq=False)
class _Place:
    """Where the outer iteration is. x: (B, n) packed. memory: of the rule. history: of the outer solver."""

    x: Tensor
    memory: tuple[Tensor, ...]
    history: Any

    def keeping(self, x: Tensor, running: Tensor) -> _Place:
        """The same with the input x for the samples that no longer run (B,), or whose step was not finite."""
        moving = running[:, None].to(x.device) & torch.isfinite(self.x).all(1, keepdim=True)
        return replace(self, x=torch.where(moving, self.x, x))


@dataclass(eq=False)
class _Best:
    """The best input so far of every sample, packed x and z.

    value: (B,) its objective. lowest: (B,) the least of all, which value may exceed by the tolerance.
    """

    x: Tensor
    z: Tensor
    value: Tensor
    lowest: Tensor
    tolerance: jiio.Tolerance

    def offer(self, x: Tensor, z: Tensor, value: Tensor, verified: Tensor) -> None:
        """Keep x where it is verified and no worse.

        An objective is known to the tolerance of its equilibrium only; among equals the later input is better.
        """
        slack = self.tolerance.atol + self.tolerance.rtol * value.abs()
        better = verified & (value <= self.lowest + slack)
        self.lowest = torch.where(better, torch.minimum(value, self.lowest), self.lowest)
        self.value = torch.where(better, value, self.value)
        self.x, self.z = torch.where(better[:, None], x, self.x), torch.where(better[:, None], z, self.z)


def _descend(operator: JointMap, v: Tensor, how: _How, ledger: Ledger) -> NestedRun:
    """The outer iteration, from the packed start v."""
    z, mu, x, memory = operator.parts(v)
    ledger.measured()
    cold, at = z, _Place(x, memory, how.outer.init(_outer(operator, x, memory)))
    best = _Best(x, z, ledger.value, torch.full_like(ledger.value, float("inf")), how.tolerance)
    visits = [ledger.visit(operator.xspec.unpack(x))]

    for k in range(how.outer_steps + 1):
        ledger.outer = k
        # Forward: the equilibrium at x, and one taped evaluation there, which verifies it.
        z, taped, verified = _forward(operator, at.x, z if how.warm else cold, how, ledger)
        best.offer(at.x, z, taped.value, verified)
        if k == how.outer_steps:
            break

        # Backward: the multiplier, and with it the gradient of the reduced objective.
        mu = _adjoint(taped, mu if how.warm and k else None, how, ledger)
        following, met = _move(operator, at, taped.pull(mu, taped.x) + taped.lx, how, ledger)
        ledger.running &= ~met
        before, at = at.x, following.keeping(at.x, ledger.running)
        if (along := operator.along(at.x - before)) is not None:
            z = z + along  # a warm start knows where the state will go
        visits.append(ledger.visit(operator.xspec.unpack(at.x)))
        if not bool(ledger.running.any()):
            break

    found = operator.xspec.unpack(best.x), operator.zspec.unpack(best.z)
    return NestedRun(*found, best.value, ~ledger.running, ledger.evaluations, visits, ledger.trace())


def _forward(operator: JointMap, x: Tensor, start: Tensor, how: _How, ledger: Ledger) -> tuple[Tensor, Taped, Tensor]:
    """The packed equilibrium at x, its taped evaluation, and which samples (B,) met the tolerance."""
    cell, xtree = operator.problem.cell, operator.xspec.unpack(x)
    found = jiio.equilibrium(cell, xtree, operator.zspec.unpack(start), **how.inner())
    ledger.solved(found, 0, "cell")
    z = operator.zspec.pack(found.z)
    taped = Taped(operator, z, x)
    verified = found.converged & torch.isfinite(taped.value)
    ledger.value = torch.where(verified, taped.value, ledger.value)
    ledger.single("cell", 0, taped.residual)
    return z, taped, verified


def _adjoint(taped: Taped, start: Tensor | None, how: _How, ledger: Ledger) -> Tensor:
    """mu with mu = J_z^T mu + l_z, in units where l_z has RMS 1, so that the absolute tolerance means something."""
    size = rms(taped.lz)[:, None]
    size = torch.where(size > 0, size, torch.ones_like(size))
    unit = taped.lz / size
    guess = unit if start is None else start / size
    found = jiio.equilibrium(lambda u, right: taped.pull(u, taped.z) + right, unit, guess, **how.inner())
    ledger.solved(found, 1, "vjp")
    return found.z * size


def _outer(operator: JointMap, x: Tensor, memory: tuple[Tensor, ...]) -> Tensor:
    """What the outer solver sees: the scaled input and the memory of the rule (B, n)."""
    return torch.cat([x * operator.scales.root, *memory], dim=1)


def _move(operator: JointMap, at: _Place, gx: Tensor, how: _How, ledger: Ledger) -> tuple[_Place, Tensor]:
    """One step of the input along the gradient gx (B, n), and who met the tolerance (B,)."""
    scales = operator.scales
    curvature, root = scales.sigma * scales.kappa, scales.root
    plainly, rule = gx / curvature, operator.rule
    gradient = plainly if operator.metric is None else operator.metric(gx)
    rate = rule.at(ledger.outer)
    moved, memory = rule.update(at.x, gradient, at.memory, rate)
    plain = replace(at, x=operator.prox.apply(moved, rate / curvature), memory=memory)

    # Optimal is where a plain gradient step would stay, whatever the rule: its length, in the units of z.
    unit = rate if rule.exact_step else 1.0
    shift = (operator.prox.apply(at.x - unit * gradient, unit / curvature) - at.x) / unit * root
    far = rms(shift) if operator.metric is None else torch.maximum(rms(shift), rms(plainly * root))
    ledger.single("vjp", 2, far)
    met = far <= how.settled.atol + how.settled.rtol * rms(at.x * root)
    following = plain if isinstance(how.outer, jiio.Picard) else _mixed(operator, at, plain, gx, how.outer)
    return following, met.cpu()


def _mixed(operator: JointMap, at: _Place, plain: _Place, gx: Tensor, outer: jiio.AbstractSolver) -> _Place:
    """What the outer solver makes of the plain step, feasible and never uphill."""
    image, root, n = _outer(operator, plain.x, plain.memory), operator.scales.root, at.x.shape[1]
    mixed, history = outer.step(_outer(operator, at.x, at.memory), image, at.history)
    following = mixed[:, :n] / root
    if not isinstance(operator.prox, Identity):
        following = operator.prox.project(following)

    # The joint solve's own guard: never along a direction that goes uphill, where acceleration would seek a saddle.
    down = -gx if operator.prox.is_set else plain.x - at.x
    uphill = (((following - at.x) * down).sum(1, keepdim=True) < 0) | ~torch.isfinite(mixed).all(1, keepdim=True)
    mixed = torch.where(uphill, image, torch.cat([following * root, mixed[:, n:]], dim=1))
    memory = tuple(mixed[:, n:].split([m.shape[1] for m in at.memory], dim=1))
    return _Place(mixed[:, :n] / root, memory, history)


class Taped:
    """One taped evaluation at (z, x): the objective, and as many VJPs as one asks for."""

    def __init__(self, operator: JointMap, z: Tensor, x: Tensor) -> None:
        problem, zspec, xspec = operator.problem, operator.zspec, operator.xspec
        with torch.enable_grad():
            self.z, self.x = z.detach().requires_grad_(), x.detach().requires_grad_()
            ztree, xtree = zspec.unpack(self.z), xspec.unpack(self.x)
            self.image = zspec.pack(problem.cell(ztree, xtree))
            value = problem.value(ztree, xtree, operator.batch)
            grads: tuple[Tensor | None, ...] = (None, None)
            if value.requires_grad:
                grads = torch.autograd.grad(value.sum(), [self.z, self.x], allow_unused=True)
        self.residual = rms(self.image.detach() - z)
        self.value = value.detach() if operator.prox.is_set else value.detach() + operator.prox.penalty(x)
        self.lz, self.lx = (torch.zeros_like(t) if g is None else g for g, t in zip(grads, (z, x), strict=True))

    def pull(self, mu: Tensor, to: Tensor) -> Tensor:
        """J^T mu with respect to one of the leaves."""
        if not self.image.requires_grad:
            return torch.zeros_like(to)
        with torch.enable_grad():
            pulled = torch.autograd.grad(self.image, to, mu, retain_graph=True, allow_unused=True)[0]
        return torch.zeros_like(to) if pulled is None else pulled
