"""What a metric saves and never costs: the state that goes along, the start, and a fixed set of random problems."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

import jiio
import problems
from helpers import gap
from jiio.operators import JointMap
from jiio.tasks.solving.nested import nested
from problems import CASES, DOUBLE, TIGHT, Case

USUAL = {"tolerance": jiio.Tolerance(1e-6, 1e-4), "max_steps": 300, "on_failure": "ignore"}
CHECK = 1  # evaluation that the linearised start takes


def drawn(seed: int) -> Case:
    """One of the fixed random problems: sizes, contraction, curvature and targets spread, four samples."""
    draw = np.random.default_rng(seed)
    sizes = {name: int(draw.integers(*span)) for name, span in (("n", (6, 25)), ("k", (2, 9)), ("d", (4, 13)))}
    case = problems.make(
        seed,
        batch=4,
        radius=float(draw.uniform(0.2, 0.97)),
        ridge=float(10 ** draw.uniform(-3, 0.3)),
        act=str(draw.choice(["tanh", "softplus", "linear"])),
        loss=str(draw.choice(["square", "log-cosh"])),
        **sizes,
    )
    gains = torch.logspace(-draw.uniform(0, 1.2), draw.uniform(0, 0.5), sizes["k"], dtype=DOUBLE)
    return case.with_(U=case.U * gains, y=case.y * float(10 ** draw.uniform(-1.5, 0.8)))


def both(case: Case) -> tuple[jiio.Solution, jiio.Solution, Tensor]:
    """The plain solve, the one in the metric, and who was solved plainly there (B,)."""
    problem = case.problem()
    near = jiio.Sensitivity.of(problem, case.x0[:1], case.z0[:1]).linearised(problem, case.x0, case.z0)
    plain = case.solve(**USUAL)
    found = case.solve(x0=near.x, z0=near.z, metric=near.metric, **USUAL)
    left = torch.ones(case.batch, 1) if near.metric is None else near.metric.plain.expand(case.batch, 1)
    return plain, found, left[:, 0].bool()


def calls(solution: jiio.Solution, measured: Tensor) -> Tensor:
    """(B,) evaluations and VJPs of each sample's own steps, and of its scales where they were ``measured``."""
    return 2 * solution.steps + 4 * measured


# Where the other end is a better optimum, or nobody arrives, there is nothing to compare.
@pytest.mark.parametrize("seed", [5, 17, 29, 91])
def test_a_metric_costs_no_more_than_its_check(seed: int) -> None:
    """Among them those that took up to twice the calls before the state went along. 17 is the worst of 96."""
    plain, found, left = both(drawn(seed))
    without, within = calls(plain, torch.ones_like(left)), calls(found, left)
    assert bool((found.value <= plain.value + 1e-3 * plain.value.abs()).all())
    assert int((within > without + CHECK).sum()) <= (seed == 17)
    assert int(within.sum()) <= 1.05 * int(without.sum()) + CHECK * len(left)


@pytest.mark.slow
def test_of_96_problems_one_sample_of_one_takes_longer() -> None:
    worse, spent = [], [0, 0]
    for seed in range(96):
        plain, found, left = both(drawn(seed))
        without, within = calls(plain, torch.ones_like(left)), calls(found, left)
        better = found.value < plain.value - 1e-3 * plain.value.abs()  # took longer to another, lower optimum
        if bool(((within > without + CHECK) & ~better).any()):
            worse.append(seed)
        spent = [spent[0] + int(without.sum()), spent[1] + int(within.sum())]
    assert worse == [17] and spent[1] < 0.7 * spent[0]


def test_who_is_solved_plainly_is_solved_as_without_a_metric() -> None:
    plain, found, left = both(drawn(29))
    assert 0 < int(left.sum()) < len(left)
    assert torch.equal(plain.steps[left], found.steps[left]) and gap(plain.x[left], found.x[left]) < 1e-12


def test_the_start_is_the_bottom_of_an_objective_that_is_no_parabola() -> None:
    """Of a linear cell the linearised problem is the problem, so that Newton's method ends at its optimum."""
    case = CASES["linear"].with_(loss="log-cosh", y=3 * CASES["linear"].y, ridge=0.05)
    problem = case.problem()
    near = jiio.Sensitivity.of(problem, case.x0[:1], case.z0[:1]).linearised(problem, case.x0, case.z0)
    best = case.solve(max_steps=4000, tolerance=TIGHT)
    assert near.calls == 1 and near.metric is not None and not bool(near.metric.plain.any())
    assert gap(near.x, best.x) < 0.05 * float(best.x.abs().max())


def operator_of(case: Case, metric: jiio.Metric) -> JointMap:
    return JointMap(case.problem(), jiio.GradientStep(), case.x0, case.z0, 1.0, False, metric)


def test_the_state_goes_along_with_the_input_and_only_with_those_in_the_metric() -> None:
    case = CASES["linear"]
    problem = case.problem()
    near = jiio.Sensitivity.of(problem, case.x0[:1], case.z0[:1]).linearised(problem, case.x0, case.z0)
    assert near.metric is not None and near.metric.following is not None
    metric = near.metric.only(torch.tensor([[True], [False], [True]]))
    images, residuals = [], []
    for one in (metric, dataclasses.replace(metric, following=None)):
        operator = operator_of(case, one)
        v = operator.start(case.z0, None, case.x0)
        point = operator(v)
        images.append(operator.parts(point.image))
        residuals.append(point.residual)
    along, behind = images
    assert torch.equal(*residuals)  # what is left of the equations is measured without it
    moved = along[2] - operator.parts(v)[2]
    exact = moved @ near.metric.following
    assert float(exact[0].norm()) > 0 and gap((along[0] - behind[0])[[0, 2]], exact[[0, 2]]) < 1e-12
    assert gap(along[0][1], behind[0][1]) == 0 and gap(along[2], behind[2]) == 0


def test_going_along_saves_steps_of_the_joint_and_of_the_nested_solve() -> None:
    case = drawn(28)
    problem = case.problem()
    near = jiio.Sensitivity.of(problem, case.x0[:1], case.z0[:1]).linearised(problem, case.x0, case.z0)
    assert near.metric is not None
    behind = dataclasses.replace(near.metric, following=None)
    steps, spent = [], []
    for metric in (near.metric, behind):
        steps.append(int(case.solve(metric=metric, **USUAL).steps.sum()))
        settings = {"rule": jiio.GradientStep(1.0), "outer_steps": 10, "outer_tolerance": USUAL["tolerance"]}
        run = nested(problem, case.x0, case.z0, metric=metric, **settings)  # type: ignore[arg-type]
        assert bool(run.converged.all())
        spent.append(int(run.visits[-1].own.sum()))
    assert steps[0] < 0.9 * steps[1] and spent[0] < spent[1]


def test_what_is_borne_out_by_the_metric_costs_no_look() -> None:
    """CONVERGED in the metric costs two calls a step; plainly, a claim is held against evaluations of its own."""
    plain, found, left = both(drawn(28))
    assert not bool(left.any()) and found.evaluations.cell <= int(found.steps.max()) + 1
    assert plain.evaluations.cell > int(plain.steps.max()) + 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s[:, :-1], r"metric: expected following \(4, 10\)"),
        (lambda s: s[:-1], r"metric: expected following \(4, 10\)"),
        (lambda s: s.float(), "metric: expected the dtype"),
    ],
    ids=["state", "input", "dtype"],
)
def test_another_sensitivity_is_refused(change, words: str) -> None:
    case = CASES["linear"]
    problem = case.problem()
    metric = jiio.Sensitivity.of(problem, case.x0[:1], case.z0[:1]).linearised(problem, case.x0, case.z0).metric
    assert metric is not None and metric.following is not None
    with pytest.raises(jiio.ArgumentError, match=words):
        case.solve(metric=dataclasses.replace(metric, following=change(metric.following)))
