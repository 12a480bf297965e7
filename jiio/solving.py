"""``solve`` and ``equilibrium``: validate, build, iterate, attach."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor

from .adjoints import AbstractAdjoint, Envelope, Implicit
from .admission import (
    Callback,
    check_explicit,
    check_joint,
    check_one_scale,
    check_trace,
    checked_input,
    checked_multiplier,
    starting_state,
)
from .arithmetic import ordinary_tensors
from .calls import GuardedCell, check_transforms, guarded, refuse_tangents
from .checks import (
    ArgumentError,
    check_callable,
    check_instance,
)
from .explicit import explicit_solution
from .holding import held_fixed
from .iterate import Outcome, Recorder
from .layout import Tree, detach, leaves
from .metric import Metric, smooth
from .operators import EquilibriumMap, JointMap, Point, check_scaling
from .problem import Cell, ExplicitCell, Problem
from .rules import AbstractRule, GradientStep
from .settings import SolveSettings, check_settings
from .solution import Solution, Tolerance, Trace
from .solvers import AbstractSolver, Anderson
from .stages import in_stages
from .tangents import Primal, level_is_open, primal, with_tangent


def _traced(recorder: Recorder, split: Callable[[list[Tensor]], tuple[list[Tree], list[Tree]]]) -> Trace | None:
    """What was recorded; ``split``: packed points -> their z and x."""
    if not recorder.keep:
        return None
    z, x = split(recorder.points)
    return Trace(torch.stack(recorder.residuals), torch.stack(recorder.values), x=x, z=z)


def _packed(operator: JointMap, callback: Callback | None) -> Callable[[int, Tensor, Point], bool] | None:
    """``callback``, to be called with packed points."""
    if callback is None:
        return None

    def unpacked(step: int, v: Tensor, point: Point) -> bool:
        z, _, x, _ = operator.parts(v.detach())
        assert point.value is not None
        stop = callback(step, operator.zspec.unpack(z), operator.xspec.unpack(x.detach()), point.value.detach())
        return bool(stop)

    return unpacked


def _recording(taped: bool):
    return contextlib.nullcontext() if taped else torch.no_grad()


def solve(
    problem: Problem,
    x0: Tree,
    z0: Tree | None = None,
    *,
    multiplier: Tree | None = None,
    scaling: tuple[Tensor, Tensor] | None = None,
    metric: Metric | None = None,
    solver: AbstractSolver = Anderson(),  # noqa: B008 (frozen records)
    rule: AbstractRule = GradientStep(),  # noqa: B008
    adjoint: AbstractAdjoint = Envelope(),  # noqa: B008
    tolerance: Tolerance = Tolerance(),  # noqa: B008
    max_steps: int = 200,
    on_failure: str = "warn",
    trace: bool | str = False,
    callback: Callback | None = None,
) -> Solution:
    """Minimise the objective over the input while the equilibrium is being solved (JIIO, Gurumurthy et al. 2021).

    problem: cell, objective and constraint. x0: tree of tensors (B, ...), the start. solver: accelerates the iteration.
    rule: how one step moves x. adjoint: what makes the answer differentiable (Envelope: exact where the outer loss is
    the objective, KKT: for any). tolerance: per sample, in units of the state. on_failure: warn, raise or ignore.

    z0: the state to start from; may be left out where the cell has
    ``initial_state(x)``. multiplier: a warm start for mu, a tree like z0. scaling: the curvature of the objective in
    z and the squared gain in x, each () or (B, 1), as ``Solution.scaling`` has them; where left out, or NaN for some
    samples, two steps measure them. Give those of an earlier solve to one that begins near an answer: there J_x^T mu
    + l_x = 0, so the gain cannot be measured, and steps that follow from it are too long. metric: steps in the metric
    of the problem's curvature in x, as :class:`Sensitivity` finds it; with Identity or QuadraticPrior and GradientStep
    only. It brings scales of its own, and a sample that makes no progress goes on without it. max_steps: evaluations
    after those two. trace: True keeps residuals and objective of every step, "points" also every z and x.
    callback: called once per step with the step (from 0), z and x, trees that it must not change, and what is minimised
    there, (B,); not while the scales are measured. Where it returns True, the solve ends, and the samples that still
    ran are STOPPED.

    One step costs one evaluation of the cell and one VJP. Every sample is its own problem: its status, residuals
    and step count are its own, and it never touches its neighbours. The returned x satisfies the constraint to
    rounding whatever the status.

    Raises ArgumentError / ArgumentTypeError for unusable arguments, CellError where the cell or objective breaks
    its contract, ConvergenceError where ``on_failure="raise"`` and a sample did not converge (the default warns),
    GradientError in ``torch.inference_mode``, UnsupportedError inside transforms of ``torch.func``.
    """
    check_joint(problem, rule)
    check_settings(solver, adjoint, tolerance, max_steps, on_failure)
    check_trace(trace)
    if callback is not None:
        check_callable("callback", callback, "(step, z, x, value) -> None, or True to stop")
    x0, arithmetic = checked_input("x0", x0)
    refuse_tangents("an x0 that carries them", x0)
    like = leaves(x0)[0]
    rule.check(like.shape[0])
    with arithmetic.full(), held_fixed(problem.cell):
        if isinstance(problem.cell, ExplicitCell):
            check_explicit(z0, multiplier, scaling, solver, rule, metric)
            problem = guarded(problem, arithmetic)
            solution = explicit_solution(problem, x0, tolerance, max_steps, trace, callback)
            solution = adjoint.attach(problem, solution) if torch.is_grad_enabled() else solution
            return solution.report(on_failure)
        if metric is not None:
            check_instance("metric", metric, Metric).check(problem, rule, x0)
            problem = smooth(problem)
        z0 = starting_state(problem.cell, x0, z0, arithmetic)
        multiplier = checked_multiplier(multiplier, z0, like)
        check_scaling(scaling, like)
        check_one_scale(scaling, rule)
        problem = guarded(problem, arithmetic)

        # The iteration: recorded by autograd only for an adjoint that differentiates through it.
        taped = adjoint.taped and torch.is_grad_enabled()
        with _recording(taped):
            operator = JointMap(problem, rule, x0, z0, solver.damping, taped, metric)
            v = operator.start(z0, multiplier, x0, scaling)
            recorder = Recorder(bool(trace), trace == "points", _packed(operator, callback))
            placed = solver.on(operator.places)
            around = arithmetic, problem.cell, problem.objective
            outcome = in_stages(operator, placed, v, tolerance, max_steps, recorder, *around)
            z, mu, x, _ = operator.parts(outcome.v)
            # Dividing by sqrt(kappa) can cost the last bit of feasibility; the prox gives it back.
            x = operator.prox.project(x)
        solution = _joint_solution(operator, outcome, recorder, z, mu, x)
        if torch.is_grad_enabled():
            solution = adjoint.inside(metric).attach(problem, solution)
    return solution.report(on_failure, outcome.floored)


def _joint_solution(
    operator: JointMap, outcome: Outcome, recorder: Recorder, z: Tensor, mu: Tensor, x: Tensor
) -> Solution:
    """The record of a joint solve that ended at packed z, mu, x in natural units."""
    return Solution(
        z=operator.zspec.unpack(z),
        x=operator.xspec.unpack(x),
        multiplier=operator.zspec.unpack(mu),
        value=outcome.value,
        status=outcome.status,
        steps=outcome.steps,
        residual=outcome.residual,
        blocks=operator.blocks,
        evaluations=operator.evaluations,
        trace=_traced(recorder, lambda points: _split(operator, points)),
        scaling=operator.scales.pair,
        gradient=outcome.gradient,
    )


def _split(operator: JointMap, points: list[Tensor]) -> tuple[list[Tree], list[Tree]]:
    parts = [operator.parts(v) for v in points]
    return [operator.zspec.unpack(p[0]) for p in parts], [operator.xspec.unpack(p[2]) for p in parts]


def equilibrium(
    cell: Cell,
    x: Tree,
    z0: Tree | None = None,
    *,
    solver: AbstractSolver = Anderson(),  # noqa: B008
    adjoint: AbstractAdjoint = Implicit(),  # noqa: B008
    tolerance: Tolerance = Tolerance(),  # noqa: B008
    max_steps: int = 100,
    on_failure: str = "warn",
    trace: bool | str = False,
) -> Solution:
    """Solve z = cell(z, x) for z (Bai et al. 2019), differentiable with respect to parameters and x.

    cell: (z, x) -> z, a tree like z. x: tree of tensors (B, ...). z0: the state to start from; may be left out where
    the cell has ``initial_state(x)``. solver: accelerates the iteration. adjoint: how gradients flow through z.
    tolerance: per sample, in units of the state. max_steps: evaluations of the cell, at least 2. on_failure: "warn",
    "raise" or "ignore" where a sample did not converge. trace: True keeps the residuals of every step, "points" also
    every z.

    Gradients exist whenever grad mode is on, in train and eval alike. ``value`` is NaN and ``multiplier`` None: there
    is no objective. Raises as :func:`solve` does.
    """
    check_transforms("equilibrium")
    check_callable("cell", cell, "(z, x) -> z")
    check_settings(solver, adjoint, tolerance, max_steps, on_failure)
    check_trace(trace)
    x, arithmetic = checked_input("x", x)
    settings = SolveSettings(solver, adjoint, tolerance, max_steps, on_failure)
    with ordinary_tensors(), arithmetic.full(), held_fixed(cell):
        z0 = starting_state(cell, x, z0, arithmetic)
        if not level_is_open():
            solution, floored = _found(GuardedCell(cell, arithmetic), x, z0, settings, trace)
        else:
            held = GuardedCell(Primal(cell), arithmetic)
            solution, floored = _found(held, primal(x), primal(z0), settings, trace)
            solution = with_tangent(cell, x, solution, settings)
    return solution.report(on_failure, floored)


def _found(cell: GuardedCell, x: Tree, z0: Tree, settings: SolveSettings, trace: bool | str) -> tuple[Solution, Tensor]:
    """The equilibrium as a record, with its gradients; and who converged to the arithmetic alone (B,)."""
    solver, adjoint = settings.solver, settings.adjoint.of(settings.solver)

    # The iteration: recorded by autograd only for an adjoint that differentiates through it.
    taped = adjoint.taped and torch.is_grad_enabled()
    with _recording(taped):
        operator = EquilibriumMap(cell, x if taped else detach(x), z0, solver.damping)
        recorder = Recorder(bool(trace), trace == "points", keeper=adjoint.keeper)
        v, placed = operator.start(z0), solver.on(operator.places)
        how = settings.tolerance, settings.max_steps, recorder, cell.arithmetic
        outcome = in_stages(operator, placed, v, *how, cell)
    solution = _plain_solution(operator, x, outcome, recorder)
    if torch.is_grad_enabled():
        solution = adjoint.attach_equilibrium(cell, x, solution)
    return solution, outcome.floored


def _plain_solution(operator: EquilibriumMap, x: Tree, outcome: Outcome, recorder: Recorder) -> Solution:
    """The record of a plain equilibrium, in trees; there is no objective, and no multiplier."""
    spec = operator.layout.specs[0]
    return Solution(
        z=spec.unpack(outcome.v),
        x=x,
        multiplier=None,
        value=outcome.value,
        status=outcome.status,
        steps=outcome.steps,
        residual=outcome.residual,
        blocks=operator.blocks,
        evaluations=operator.evaluations,
        trace=_traced(recorder, lambda points: ([spec.unpack(p) for p in points], [])),
    )


__all__ = ["ArgumentError", "equilibrium", "solve"]
