"""The nested baseline: the optimum of the joint solve, honest counters, and inputs that stay feasible."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from helpers import gap, oracle
from jiio.tasks.solving.ledger import BLOCKS
from jiio.tasks.solving.nested import nested
from problems import CASES, DOUBLE, PUSH, TIGHT, make

SLOW, QUICK = jiio.GradientStep(rate=0.3), jiio.GradientStep(rate=0.5)
# Plain gradient descent needs as many steps as the problem is badly conditioned; a strong ridge keeps the tests short.
EASY, BENT = make(1, ridge=1.0), make(2, act="tanh", ridge=1.0)
PROXES = {
    "none": jiio.Identity(),
    "box": jiio.Box(-0.3, 0.25),
    "l2": jiio.L2Ball(0.5),
    "l1": jiio.L1Ball(0.6),
    "soft": jiio.SoftThreshold(0.3),
}
SETS = [jiio.L2Ball(0.5), jiio.Intersection(jiio.L2Ball(0.5), jiio.Box(-0.3, 0.3))]
PRICED = [jiio.GradientStep(), jiio.GradientStep(rate=0.05, curvature=1.0)]


class _Counted(torch.autograd.Function):
    """The identity; counts its backward passes."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, counts: dict[str, int]) -> Tensor:
        ctx.counts = counts
        return z.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        ctx.counts["vjp"] += 1
        return grads[0], None


class Counting:
    """A cell that counts its calls and its reverse passes by itself."""

    def __init__(self, case) -> None:
        self.case = case
        self.counts = {"cell": 0, "vjp": 0}

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        self.counts["cell"] += 1
        return _Counted.apply(self.case.cell(z, x), self.counts)  # type: ignore[return-value]


@pytest.mark.parametrize("outer", [jiio.Picard(), jiio.Anderson()], ids=["plain", "accelerated"])
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_the_linear_case_ends_in_the_closed_form(warm: bool, outer: jiio.AbstractSolver) -> None:
    case = EASY
    z, _, x = case.kkt()
    settings = {"tolerance": jiio.Tolerance(1e-8, 1e-8), "outer_steps": 200}
    run = nested(case.problem(), case.x0, case.z0, rule=QUICK, warm=warm, outer=outer, **settings)
    assert gap(run.x, x) < 1e-5 and gap(run.z, z) < 1e-5
    assert bool(run.converged.all())
    assert gap(run.value, case.objective(z, x)) < 1e-8
    assert gap(run.x, case.solve().x) < 1e-5


@pytest.mark.parametrize("name", PROXES)
def test_constrained_optima(name: str) -> None:
    case, prox = CASES["tanh"], PROXES[name]
    settings = {"tolerance": jiio.Tolerance(1e-9, 1e-9), "outer_steps": 300}
    run = nested(case.problem(prox), case.x0, case.z0, rule=SLOW, outer=jiio.Anderson(), **settings)
    assert gap(run.x, oracle(case, prox)) < 1e-5
    assert gap(run.x, case.solve(prox).x) < 1e-5


RULES = {
    "raw": jiio.GradientStep(rate=0.2, curvature=1.0),
    "momentum": jiio.MomentumStep(rate=0.2),
    "adam": jiio.AdamStep(rate=0.05, beta2=0.99),
}


@pytest.mark.parametrize("name", ["raw", "momentum", pytest.param("adam", marks=pytest.mark.slow)])
def test_every_rule_reaches_the_optimum(name: str) -> None:
    settings = {"tolerance": jiio.Tolerance(1e-7, 1e-7), "outer_steps": 300}
    run = nested(BENT.problem(), BENT.x0, BENT.z0, rule=RULES[name], **settings)
    assert gap(run.x, oracle(BENT)) < 1e-5


def test_the_normalised_step_reaches_the_optimum_on_a_ball() -> None:
    prox = jiio.L2Ball(0.5)
    rule = jiio.NormalizedStep(rate=0.1)
    run = nested(PUSH.problem(prox), PUSH.x0, PUSH.z0, rule=rule, outer_steps=60, tolerance=TIGHT)
    assert gap(run.x, oracle(PUSH, prox)) < 1e-5


@pytest.mark.parametrize("outer", [jiio.Picard(), jiio.Anderson()], ids=["plain", "accelerated"])
@pytest.mark.parametrize("prox", SETS, ids=["ball", "ball and box"])
def test_every_visited_input_is_feasible(prox: jiio.AbstractProx, outer: jiio.AbstractSolver) -> None:
    outside = torch.ones(3, 4, dtype=DOUBLE)
    run = nested(PUSH.problem(prox), outside, PUSH.z0, rule=jiio.GradientStep(rate=5.0), outer_steps=12, outer=outer)
    assert len(run.visits) > 2
    for tree in (*(visit.x for visit in run.visits), run.x):
        assert float(prox.violation(tree).max()) < 1e-12


@pytest.mark.parametrize("rule", PRICED, ids=["scaled", "raw"])
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_the_counters_equal_the_calls(warm: bool, rule: jiio.AbstractRule) -> None:
    case = CASES["tanh"]
    cell = Counting(case)
    problem = jiio.Problem(cell, case.objective)
    run = nested(problem, case.x0, case.z0, rule=rule, warm=warm, outer_steps=7, trace=True)
    assert run.evaluations.cell == cell.counts["cell"]
    assert run.evaluations.vjp == cell.counts["vjp"]
    assert run.calls == cell.counts["cell"] + cell.counts["vjp"]
    assert run.trace is not None
    assert int(run.trace.calls[-1]) == run.calls
    measured = 4 if rule.curvature is None else 0  # the scales come in one row
    assert torch.equal(run.trace.calls[1 if measured else 0 :], torch.arange(measured + 1, run.calls + 1))
    assert bool((run.visits[-1].own <= run.calls).all()) and bool((run.visits[-1].own > 0).all())


def test_the_trace_is_a_staircase() -> None:
    case = CASES["tanh"]
    run = nested(case.problem(), case.x0, case.z0, rule=SLOW, outer_steps=5, trace=True)
    trace = run.trace
    assert trace is not None
    assert trace.value.shape == (len(trace.calls), case.batch)
    assert trace.residual.shape == (*trace.value.shape, len(BLOCKS))
    measured = ~trace.residual.isnan()
    assert bool((measured.sum(2) <= 1).all()), "one call measures one block"
    assert bool(measured.any(1).any(0).all()), "every block is measured somewhere"
    for k in range(6):
        value = trace.value[trace.outer == k].nan_to_num(-1.0)
        changes = int((value[1:] != value[:-1]).any(1).sum())
        assert changes <= 1, "the objective changes once per outer step: when its equilibrium is found"
    assert bool((trace.value[-1] < trace.value[trace.outer == 0][-1]).all())


def test_warm_starts_save_calls() -> None:
    case = CASES["barely contracting"]
    warm, cold = (nested(case.problem(), case.x0, case.z0, rule=SLOW, warm=w, outer_steps=20) for w in (True, False))
    assert warm.calls < cold.calls


def test_samples_do_not_meet() -> None:
    case = CASES["tanh"]
    settings = {"rule": SLOW, "outer_steps": 10}
    together = nested(case.problem(), case.x0, case.z0, **settings)
    alone = case.rows(slice(1, 2))
    assert gap(together.x[1:2], nested(alone.problem(), alone.x0, alone.z0, **settings).x) < 1e-12


def test_a_settled_sample_stays_put_and_costs_nothing_more() -> None:
    case = CASES["linear"]
    optimum = case.kkt()[2]
    start = torch.stack([optimum[0], case.x0[1], case.x0[2]])
    run = nested(case.problem(), start, case.z0, rule=SLOW, outer_steps=8, tolerance=jiio.Tolerance(1e-7, 1e-7))
    assert torch.equal(run.visits[-1].x[0], run.visits[0].x[0])
    assert int(run.visits[-1].own[0]) == int(run.visits[1].own[0]) < int(run.visits[-1].own[1])


def test_a_loose_inner_tolerance_does_not_end_the_outer_iteration() -> None:
    case = CASES["linear"]
    settings = {"rule": SLOW, "outer_steps": 12, "tolerance": jiio.Tolerance(1e-3, 10.0)}
    assert len(nested(case.problem(), case.x0 + 1.0, case.z0, **settings).visits) == 2
    run = nested(case.problem(), case.x0 + 1.0, case.z0, outer_tolerance=TIGHT, **settings)
    assert len(run.visits) == 13 and not bool(run.converged.any())


def test_bad_arguments() -> None:
    case = CASES["linear"]
    with pytest.raises(jiio.ArgumentTypeError, match="rule"):
        nested(case.problem(), case.x0, case.z0, rule=jiio.GradientStep)  # type: ignore[arg-type]
    with pytest.raises(jiio.ArgumentError, match="outer_steps"):
        nested(case.problem(), case.x0, case.z0, outer_steps=0)
    with pytest.raises(jiio.ArgumentError, match="prior"):
        nested(case.problem(jiio.SoftThreshold(0.1)), case.x0, case.z0, rule=jiio.AdamStep())
