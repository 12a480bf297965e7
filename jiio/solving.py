"""``solve`` and ``equilibrium``: validate, build, iterate, attach."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .adjoints import AbstractAdjoint, Envelope, Implicit
from .checks import (
    ArgumentError,
    GradientError,
    check_callable,
    check_finite,
    check_instance,
    fail,
)
from .iterate import Outcome, Recorder, iterate
from .layout import Spec, Tree, check_tree, detach, leaves
from .operators import EquilibriumMap, JointMap, Point, check_scaling
from .problem import Cell, Problem, held_fixed, initial_state
from .rules import AbstractRule, GradientStep
from .settings import check_settings
from .solution import Solution, Tolerance, Trace
from .solvers import AbstractSolver, Anderson

Watch = Callable[[int, Tree, Tree, Tensor], None]


def _check_joint(problem: Problem, rule: AbstractRule) -> None:
    """Problem and rule, and whether the fixed points of the rule are optimal under the problem's prox."""
    check_instance("problem", problem, Problem)
    check_instance("rule", rule, AbstractRule)
    if torch.is_inference_mode_enabled():
        came, remedy = "torch.inference_mode()", "Use torch.no_grad()."
        fail("solve", "a mode in which gradients can be taken", came, remedy, GradientError)
    prox, name = problem.prox, type(rule).__name__

    # A prior has to see the very step that the input takes.
    if not rule.exact_step and not prox.is_set:
        remedy = "Use GradientStep(), or put the prior into the objective."
        fail("rule", f"a plain gradient step with the prior {type(prox).__name__}", name, remedy)

    # Under a scale per coordinate a projection in the plain norm ends somewhere else.
    if rule.diagonal and not prox.separable:
        remedy = "Its fixed points would not be optimal; use GradientStep() or NormalizedStep()."
        came = f"{name} with {type(prox).__name__}"
        fail("rule", "a rule without a per-coordinate scale where the constraint couples coordinates", came, remedy)


def _check_multiplier(multiplier: Tree | None, z0: Tree, like: Tensor) -> None:
    """None, or finite and like z0."""
    if multiplier is None:
        return
    if Spec.of(check_tree("multiplier", multiplier, like.shape[0], like)) != Spec.of(z0):
        fail("multiplier", "the same tree and shapes as z0", multiplier)
    for leaf in leaves(multiplier):
        check_finite("multiplier", leaf)


def _state(cell: Cell, x: Tree, z0: Tree | None, like: Tensor) -> Tree:
    """The state to start from, finite."""
    z0 = initial_state(cell, x, z0, like)
    for leaf in leaves(z0):
        check_finite("z0", leaf)
    return z0


def _check_trace(trace: bool | str) -> None:
    if trace not in (True, False, "points"):
        fail("trace", "True, False or 'points' (which keeps every iterate)", trace)


def _check_one_scale(scaling: Any, rule: AbstractRule) -> None:
    if scaling is not None and rule.curvature is not None:
        fail("scaling", "a rule without a curvature of its own", f"{type(rule).__name__}.curvature", "Leave one out.")


def _traced(recorder: Recorder, split: Callable[[list[Tensor]], tuple[list[Tree], list[Tree]]]) -> Trace | None:
    """What was recorded; ``split``: packed points -> their z and x."""
    if not recorder.keep:
        return None
    z, x = split(recorder.points)
    return Trace(torch.stack(recorder.residuals), torch.stack(recorder.values), x=x, z=z)


def _watcher(operator: JointMap, watch: Watch | None) -> Callable[[int, Tensor, Point], None] | None:
    """``watch``, to be called with packed points."""
    if watch is None:
        return None

    def unpacked(step: int, v: Tensor, point: Point) -> None:
        z, _, x, _ = operator.parts(v.detach())
        assert point.value is not None
        watch(step, operator.zspec.unpack(z), operator.xspec.unpack(x.detach()), point.value.detach())

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
    solver: AbstractSolver = Anderson(),  # noqa: B008 (frozen records)
    rule: AbstractRule = GradientStep(),  # noqa: B008
    adjoint: AbstractAdjoint = Envelope(),  # noqa: B008
    tolerance: Tolerance = Tolerance(),  # noqa: B008
    max_steps: int = 200,
    on_failure: str = "warn",
    trace: bool | str = False,
    watch: Watch | None = None,
) -> Solution:
    """Minimise the objective over the input while the equilibrium is being solved (JIIO, Gurumurthy et al. 2021).

    x0: tree of tensors (B, ...), the start. z0: the state to start from; may be left out where the cell has
    ``initial_state(x)``. multiplier: a warm start for mu, a tree like z0. scaling: the curvature of the objective in
    z and the squared gain in x, each () or (B, 1), as ``Solution.scaling`` has them; where left out, or NaN for some
    samples, two steps measure them. Give those of an earlier solve to one that begins near an answer: there J_x^T mu
    + l_x = 0, so the gain cannot be measured, and steps that follow from it are too long. max_steps: evaluations
    after those two. trace: True keeps residuals and objective of every step, "points" also every z and x. watch:
    called once per step with the step (from 0), z and x, trees that it must not change, and what is minimised there,
    (B,); not while the scales are measured.

    One step costs one evaluation of the cell and one VJP. Every sample is its own problem: its status, residuals
    and step count are its own, and it never touches its neighbours. The returned x satisfies the constraint to
    rounding whatever the status.

    Raises ArgumentError / ArgumentTypeError for unusable arguments, CellError where the cell or objective breaks
    its contract, ConvergenceError where ``on_failure="raise"`` and a sample did not converge (the default warns).
    """
    _check_joint(problem, rule)
    check_settings(solver, adjoint, tolerance, max_steps, on_failure)
    _check_trace(trace)
    if watch is not None:
        check_callable("watch", watch, "(step, z, x, value) -> None")
    like = leaves(check_tree("x0", x0))[0]
    rule.check(like.shape[0])
    with held_fixed(problem.cell):
        z0 = _state(problem.cell, x0, z0, like)
        _check_multiplier(multiplier, z0, like)
        check_scaling(scaling, like)
        _check_one_scale(scaling, rule)

        # The iteration: recorded by autograd only for an adjoint that differentiates through it.
        taped = adjoint.taped and torch.is_grad_enabled()
        with _recording(taped):
            operator = JointMap(problem, rule, x0, z0, solver.damping, taped)
            v = operator.start(z0, multiplier, x0, scaling)
            recorder = Recorder(bool(trace), trace == "points", _watcher(operator, watch))
            outcome = iterate(operator, solver, v, tolerance, max_steps, recorder)
            z, mu, x, _ = operator.parts(outcome.v)
            # Dividing by sqrt(kappa) can cost the last bit of feasibility; the prox gives it back.
            x = operator.prox.project(x)
        solution = _joint_solution(operator, outcome, recorder, z, mu, x)
        if torch.is_grad_enabled():
            solution = adjoint.attach(problem, solution)
    return solution.report(on_failure)


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

    x: tree of tensors (B, ...). z0: the state to start from; may be left out where the cell has
    ``initial_state(x)``. Gradients exist whenever grad mode is on, in train and eval alike. ``value`` is NaN and
    ``multiplier`` None: there is no objective. Raises as :func:`solve` does.
    """
    check_callable("cell", cell, "(z, x) -> z")
    check_settings(solver, adjoint, tolerance, max_steps, on_failure)
    _check_trace(trace)
    like = leaves(check_tree("x", x))[0]
    with held_fixed(cell):
        z0 = _state(cell, x, z0, like)

        # The iteration: recorded by autograd only for an adjoint that differentiates through it.
        taped = adjoint.taped and torch.is_grad_enabled()
        with _recording(taped):
            operator = EquilibriumMap(cell, x if taped else detach(x), z0, solver.damping)
            recorder = Recorder(bool(trace), trace == "points")
            outcome = iterate(operator, solver, operator.start(z0), tolerance, max_steps, recorder)
        solution = _plain_solution(operator, x, outcome, recorder)
        if torch.is_grad_enabled():
            solution = adjoint.attach_equilibrium(cell, x, solution)
    return solution.report(on_failure)


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
