"""The nested baseline: what input optimisation in an equilibrium network costs without the joint iteration.

Every outer step solves z = f(z, x) to tolerance, solves the adjoint mu = J_z^T mu + l_z to tolerance, and moves x once
along J_x^T mu + l_x. It takes the same problem and rules as :func:`jiio.solve`, measures the same scales, and counts
the same calls, so that the two can be laid side by side (projected gradient descent, Adam on a latent code, warm or
cold).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import jiio
from jiio.checks import check_instance, check_integer, fail
from jiio.layout import Tree, check_tree, leaves
from jiio.operators import JointMap, rms
from jiio.problem import held_fixed, initial_state
from jiio.prox import Identity

BLOCKS = ("z", "mu", "x")


@dataclass(frozen=True)
class Visit:
    """An input that the run passed through, and what it had cost by then.

    cell, vjp: calls of the batch. own: (B,) the calls (evaluations plus VJPs) during which this sample itself was
    still being solved. x: tree (B, ...).
    """

    cell: int
    vjp: int
    own: Tensor
    x: Tree

    @property
    def calls(self) -> int:
        """Evaluations plus VJPs."""
        return self.cell + self.vjp


@dataclass(frozen=True)
class NestedTrace:
    """One row per evaluation or VJP; NaN where nothing was measured.

    calls: (T,) evaluations plus VJPs so far. outer: (T,) the outer step. value: (T, B), the objective at the last
    equilibrium that met the tolerance. residual: (T, B, 3) RMS, columns in the order of ``BLOCKS``; mu in units of its
    right-hand side, x in the scaled units of :func:`jiio.solve`.
    """

    calls: Tensor
    outer: Tensor
    value: Tensor
    residual: Tensor


@dataclass(frozen=True)
class NestedRun:
    """The best input that was verified, and the way there.

    x, z: trees at the smallest objective (to the tolerance) whose equilibrium was solved. value: (B,), NaN where none
    ever was.
    converged: (B,) bool, whether x itself met the tolerance before the outer steps ran out.
    """

    x: Tree
    z: Tree
    value: Tensor
    converged: Tensor
    evaluations: jiio.Evaluations
    visits: list[Visit]
    trace: NestedTrace | None = None

    @property
    def calls(self) -> int:
        """Evaluations plus VJPs."""
        return self.evaluations.cell + self.evaluations.vjp


class _Ledger:
    """Counts calls, for the batch and for every sample, and keeps the rows of the trace."""

    def __init__(self, batch: int, like: Tensor, evaluations: jiio.Evaluations, keep: bool) -> None:
        self.evaluations, self.keep = evaluations, keep
        self.own = torch.zeros(batch, dtype=torch.int64)
        self.value = like.new_full((batch,), float("nan"))
        self.outer = 0
        self.rows: list[tuple[int, int, Tensor, Tensor]] = []
        self.running = torch.ones(batch, dtype=torch.bool)

    @property
    def calls(self) -> int:
        return self.evaluations.cell + self.evaluations.vjp

    def visit(self, x: Tree) -> Visit:
        return Visit(self.evaluations.cell, self.evaluations.vjp, self.own.clone(), x)

    def row(self, column: int | None = None, residual: Tensor | None = None, *, calls: int | None = None) -> None:
        """One line of the trace; ``residual`` (B,) of one block."""
        if not self.keep:
            return
        measured = self.value.new_full((len(self.own), 3), float("nan"))
        if column is not None and residual is not None:
            measured[:, column] = residual
        self.rows.append((self.calls if calls is None else calls, self.outer, self.value.clone(), measured))

    def solved(self, solution: jiio.Solution, column: int, kind: str) -> None:
        """An inner solve, one row per call."""
        first, count = self.calls, solution.evaluations.cell
        setattr(self.evaluations, kind, getattr(self.evaluations, kind) + count)
        self.own += torch.where(self.running, solution.steps.cpu(), 0)
        if solution.trace is not None:
            for t in range(count):
                self.row(column, solution.trace.residual[t, :, 0], calls=first + t + 1)

    def single(self, kind: str, column: int | None = None, residual: Tensor | None = None) -> None:
        """One call outside an inner solve."""
        setattr(self.evaluations, kind, getattr(self.evaluations, kind) + 1)
        self.own += self.running
        self.row(column, residual)

    def trace(self) -> NestedTrace | None:
        if not self.keep:
            return None
        calls, outer, value, residual = zip(*self.rows, strict=True)
        return NestedTrace(torch.tensor(calls), torch.tensor(outer), torch.stack(value), torch.stack(residual))


class _Taped:
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


@torch.no_grad()
def nested(
    problem: jiio.Problem,
    x0: Tree,
    z0: Tree | None = None,
    *,
    rule: jiio.AbstractRule = jiio.GradientStep(),  # noqa: B008 (frozen records)
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
    start, at the same price of two evaluations and two VJPs. warm: start both inner solves at the answers of the step
    before, else at z0 and at l_z. solver: of the inner solves. outer: accelerates the iteration of x (and the rule's
    memory) itself; Picard is the classical baseline. A sample whose x has settled stays put. The x of every visit
    satisfies the constraint.

    Raises ArgumentError / ArgumentTypeError for unusable arguments, CellError where the cell or objective breaks its
    contract.
    """
    check_instance("problem", problem, jiio.Problem)
    check_instance("rule", rule, jiio.AbstractRule)
    check_instance("solver", solver, jiio.AbstractSolver)
    check_instance("outer", outer, jiio.AbstractSolver)
    check_instance("tolerance", tolerance, jiio.Tolerance)
    settled = check_instance("outer_tolerance", outer_tolerance or tolerance, jiio.Tolerance)
    check_integer("outer_steps", outer_steps, 1)
    check_integer("max_inner", max_inner, 2)
    if not rule.exact_step and not problem.prox.is_set:
        came = f"{type(rule).__name__} with the prior {type(problem.prox).__name__}"
        fail("rule", "a plain gradient step with a prior", came, "Use GradientStep().")
    like = leaves(check_tree("x0", x0))[0]
    with held_fixed(problem.cell):
        z0 = initial_state(problem.cell, x0, z0, like)
        operator = JointMap(problem, rule, x0, z0, 1.0, differentiable=False)
        ledger = _Ledger(operator.batch, like, operator.evaluations, trace)
        z, mu, x, memory = operator.parts(operator.start(z0, None, x0))
        ledger.own += ledger.calls
        cold = z
        if ledger.calls:
            ledger.row()
        inner = {"solver": solver, "adjoint": jiio.Detached(), "tolerance": tolerance, "max_steps": max_inner}
        inner |= {"on_failure": "ignore", "trace": trace}
        value, lowest = ledger.value, torch.full_like(ledger.value, float("inf"))
        best_x, best_z = x, z
        visits = [ledger.visit(operator.xspec.unpack(x))]
        state = outer.init(_outer(operator, x, memory))
        for k in range(outer_steps + 1):
            ledger.outer = k
            start = operator.zspec.unpack(z if warm else cold)
            found = jiio.equilibrium(problem.cell, operator.xspec.unpack(x), start, **inner)
            ledger.solved(found, 0, "cell")
            z = operator.zspec.pack(found.z)
            taped = _Taped(operator, z, x)
            verified = found.converged & torch.isfinite(taped.value)
            ledger.value = torch.where(verified, taped.value, ledger.value)
            ledger.single("cell", 0, taped.residual)
            # An objective is known to the tolerance of its equilibrium only; among equals the later input is better.
            slack = tolerance.atol + tolerance.rtol * taped.value.abs()
            better = verified & (taped.value <= lowest + slack)
            lowest = torch.where(better, torch.minimum(taped.value, lowest), lowest)
            value = torch.where(better, taped.value, value)
            best_x, best_z = torch.where(better[:, None], x, best_x), torch.where(better[:, None], z, best_z)
            if k == outer_steps:
                break
            mu = _adjoint(taped, mu if warm and k else None, ledger, inner)
            gx = taped.pull(mu, taped.x) + taped.lx
            x_next, memory, state, met = _move(operator, x, gx, memory, outer, state, settled, ledger)
            ledger.running &= ~met
            moving = ledger.running[:, None].to(x.device) & torch.isfinite(x_next).all(1, keepdim=True)
            x = torch.where(moving, x_next, x)
            visits.append(ledger.visit(operator.xspec.unpack(x)))
            if not bool(ledger.running.any()):
                break
    unpacked = operator.xspec.unpack(best_x), operator.zspec.unpack(best_z)
    return NestedRun(*unpacked, value, ~ledger.running, ledger.evaluations, visits, ledger.trace())


def _adjoint(taped: _Taped, start: Tensor | None, ledger: _Ledger, inner: dict) -> Tensor:
    """mu with mu = J_z^T mu + l_z, in units where l_z has RMS 1, so that the absolute tolerance means something."""
    size = rms(taped.lz)[:, None]
    size = torch.where(size > 0, size, torch.ones_like(size))
    unit = taped.lz / size
    guess = unit if start is None else start / size
    found = jiio.equilibrium(lambda u, right: taped.pull(u, taped.z) + right, unit, guess, **inner)
    ledger.solved(found, 1, "vjp")
    return found.z * size


def _outer(operator: JointMap, x: Tensor, memory: tuple[Tensor, ...]) -> Tensor:
    """What the outer solver sees: the scaled input and the memory of the rule (B, n)."""
    return torch.cat([x * operator.scales.root, *memory], dim=1)


def _move(
    operator: JointMap,
    x: Tensor,
    gx: Tensor,
    memory: tuple[Tensor, ...],
    outer: jiio.AbstractSolver,
    state: Any,
    tolerance: jiio.Tolerance,
    ledger: _Ledger,
) -> tuple[Tensor, tuple[Tensor, ...], Any, Tensor]:
    """One step of the input: the new x, the memory, the outer solver's state, and who met the tolerance (B,)."""
    scales = operator.scales
    curvature, root = scales.sigma * scales.kappa, scales.root
    gradient, rule = gx / curvature, operator.rule
    rate = rule.at(ledger.outer)
    moved, next_memory = rule.update(x, gradient, memory, rate)
    moved = operator.prox.apply(moved, rate / curvature)
    unit = rate if rule.exact_step else 1.0
    shift = (operator.prox.apply(x - unit * gradient, unit / curvature) - x) / unit * root
    ledger.single("vjp", 2, rms(shift))
    met = rms(shift) <= tolerance.atol + tolerance.rtol * rms(x * root)
    image = _outer(operator, moved, next_memory)
    if isinstance(outer, jiio.Picard):
        return moved, next_memory, state, met.cpu()
    mixed, state = outer.step(_outer(operator, x, memory), image, state)
    n = x.shape[1]
    following = mixed[:, :n] / root
    if not isinstance(operator.prox, Identity):
        following = operator.prox.project(following)
    # The joint solve's own guard: never along a direction that goes uphill, where acceleration would seek a saddle.
    down = -gx if operator.prox.is_set else moved - x
    plain = (((following - x) * down).sum(1, keepdim=True) < 0) | ~torch.isfinite(mixed).all(1, keepdim=True)
    mixed = torch.where(plain, image, torch.cat([following * root, mixed[:, n:]], dim=1))
    return mixed[:, :n] / root, tuple(mixed[:, n:].split([m.shape[1] for m in memory], dim=1)), state, met.cpu()
