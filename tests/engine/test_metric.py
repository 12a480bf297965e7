"""The metric for the input: closed forms, finite differences, what it is refused for, and that it changes no answer."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import jiio
import problems
from helpers import along, central, gap, inner, multiplier, oracle, slope, weights_like
from problems import CASES, CLOSE, DOUBLE, TIGHT


def mild(name: str) -> problems.Case:
    """Small targets: the cell bends, but not so far that the linearisation would be no use."""
    return CASES[name].with_(y=0.1 * CASES[name].y, b=0.3 * CASES[name].b)


CASE = mild("tanh")


def measured(case: problems.Case) -> jiio.Sensitivity:
    return jiio.Sensitivity.of(case.problem(), case.x0[:1], case.z0[:1])


def near(case: problems.Case, prox: jiio.AbstractProx | None = None) -> jiio.Linearised:
    return measured(case).linearised(case.problem(prox), case.x0, case.z0)


def stepped(case: problems.Case, prox: jiio.AbstractProx | None = None, **options) -> jiio.Solution:
    """A solve from the linearised optimum, in its metric."""
    there = near(case, prox)
    assert there.metric is not None
    return case.solve(prox, x0=there.x, z0=there.z, metric=there.metric, **options)


def reduced_hessian(case: problems.Case) -> Tensor:
    """(k, k) of the linear-quadratic case, from dense matrices alone."""
    n, k = case.U.shape
    response = case.C @ torch.linalg.solve(torch.eye(n, dtype=DOUBLE) - case.W, case.U)
    return response.T @ response + case.ridge * torch.eye(k, dtype=DOUBLE)


def test_of_a_linear_cell_it_is_the_closed_form() -> None:
    case = CASES["linear"]
    n = len(case.W)
    exact = torch.linalg.solve(torch.eye(n, dtype=DOUBLE) - case.W, case.U).T  # (k, n)
    found = measured(case)
    assert gap(found.matrix, exact) < 1e-3 * float(exact.abs().max())

    metric = near(case).metric
    assert metric is not None
    whole = metric.inverse @ reduced_hessian(case)
    assert gap(whole, torch.eye(case.U.shape[1], dtype=DOUBLE).expand_as(whole)) < 5e-3


def test_a_linear_quadratic_problem_is_solved_by_the_start_alone() -> None:
    case = CASES["linear"]
    z, _, x = case.kkt()
    there = near(case)
    assert gap(there.x, x) < 1e-2 * float(x.abs().max()) and gap(there.z, z) < 1e-2 * float(z.abs().max())


def test_columns_agree_with_finite_differences_of_the_equilibrium() -> None:
    found, x = measured(CASE), CASE.x0[:1]

    def equilibrium(at: Tensor) -> Tensor:
        settings = {"adjoint": jiio.Detached(), "tolerance": TIGHT, "max_steps": 300}
        return jiio.equilibrium(CASE.cell, at, CASE.z0[:1], **settings).z  # type: ignore[arg-type]

    for i in range(x.shape[1]):
        unit = torch.zeros_like(x)
        unit[0, i] = 1
        for j in (0, 3):
            exact = central(lambda at, j=j: equilibrium(at)[0, j], x, unit)
            assert float(found.matrix[i, j]) == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("name", ["linear", "tanh", "one number"])
def test_it_ends_where_the_plain_solve_ends(name: str) -> None:
    case = mild(name)
    found = stepped(case)
    assert bool(found.converged.all())
    assert gap(found.x, oracle(case)) < 1e-7


@pytest.mark.parametrize("prox", ["quadratic prior", "quadratic priors"])
def test_with_a_quadratic_prior(prox: str) -> None:
    made = problems.PROX[prox](CASE.U.shape[1])
    plain, found = CASE.solve(made), stepped(CASE, made)
    assert gap(found.x, plain.x) < 1e-8 and gap(found.value, plain.value) < 1e-8
    assert gap(found.x, oracle(CASE, made)) < 1e-6


def badly_scaled() -> problems.Case:
    """The inputs' gains spread over one and a half orders of magnitude, so that the curvature is over three."""
    case = problems.make(9, act="tanh", n=12, k=6, d=12, ridge=0.01, batch=4)
    case = case.with_(y=0.1 * case.y)  # small, so that the cell is nearly linear where it matters
    return case.with_(U=case.U * torch.logspace(-1.2, 0.3, 6, dtype=DOUBLE))


def test_it_saves_steps_where_the_curvature_is_spread() -> None:
    case = badly_scaled()
    usual = jiio.Tolerance(1e-6, 1e-4)
    plain, found = case.solve(tolerance=usual), stepped(case, tolerance=usual)
    assert bool(plain.converged.all()) and 2 * int(found.steps.max()) < int(plain.steps.max())
    assert bool((found.value <= plain.value + 1e-6).all())


def test_converged_means_what_it_means_without() -> None:
    """The residual of a plain map, at the returned point and in the returned units, is within the tolerance as well."""
    case, usual = badly_scaled(), jiio.Tolerance(1e-6, 1e-3)
    found = stepped(case, tolerance=usual)
    again = jiio.solution_at(
        case.problem(), found.x, found.z, multiplier=multiplier(found), scaling=found.scaling, tolerance=usual
    )
    assert bool(found.converged.all()) and bool(again.converged.all())


def test_a_sample_that_is_too_far_for_the_linearisation_is_solved_plainly() -> None:
    """Targets over four orders of magnitude: near ones are foreseen, far ones saturate; all arrive, in fewer steps."""
    case = problems.mixed()
    there = near(case)
    assert there.metric is not None and there.calls == 1
    plain = there.metric.plain[:, 0]
    assert 0 < int(plain.sum()) < case.batch and gap(there.x[plain], case.x0[plain]) == 0

    usual = {"tolerance": jiio.Tolerance(1e-5, 1e-3), "max_steps": 200}
    alone, found = case.solve(**usual), case.solve(x0=there.x, z0=there.z, metric=there.metric, **usual)
    assert bool(found.converged.all()) and bool((found.value <= alone.value + 1e-2).all())
    assert 1.5 * float(found.steps[~plain].float().median()) < float(alone.steps[~plain].float().median())


def test_a_metric_that_is_wrong_is_let_go_of() -> None:
    case = CASES["linear"]
    metric = near(case).metric
    assert metric is not None
    wrong = dataclasses.replace(metric, inverse=100 * metric.inverse)
    usual = {"tolerance": jiio.Tolerance(1e-6, 1e-4), "max_steps": 400}
    assert gap(case.solve(metric=wrong, **usual).x, case.kkt()[2]) < 1e-2


def test_samples_stay_apart() -> None:
    case = problems.mixed().rows(slice(0, 12))
    sensitivity = measured(case)
    settings = {"tolerance": CLOSE, "max_steps": 400, "adjoint": jiio.Detached(), "on_failure": "ignore"}

    def solved(part: problems.Case) -> jiio.Solution:
        there = sensitivity.linearised(part.problem(), part.x0, part.z0)
        return jiio.solve(part.problem(), there.x, there.z, metric=there.metric, **settings)  # type: ignore[arg-type]

    whole, half = solved(case), solved(case.rows(slice(5, 9)))
    assert gap(whole.x[5:9], half.x) < 1e-9 and torch.equal(whole.steps[5:9], half.steps)


@pytest.mark.parametrize("adjoint", [problems.KKT, problems.IMPLICIT], ids=["KKT", "Implicit"])
def test_gradients_at_the_solution_are_those_of_the_plain_solve(adjoint: jiio.AbstractAdjoint) -> None:
    case = CASE.with_(W=CASE.W.clone().requires_grad_())
    weights, there = weights_like(case.z0), near(CASE)
    start = {"x0": there.x, "z0": there.z, "metric": there.metric}
    grads = []
    for options in ({}, start):
        loss = inner(case.solve(adjoint=adjoint, **options).z, weights)
        grads.append(torch.autograd.grad(loss, case.W)[0])
    assert gap(*grads) < 1e-7 * float(grads[0].abs().max())


def test_the_exact_gradient_with_a_prior_agrees_with_finite_differences() -> None:
    case, prior = CASE.with_(b=CASE.b.clone().requires_grad_()), jiio.QuadraticPrior(0.4)
    there, weights = near(CASE, prior), weights_like(CASE.x0)

    def losses() -> tuple[Tensor]:
        start = {"x0": there.x, "z0": there.z, "metric": there.metric}
        return (inner(case.solve(prior, adjoint=problems.KKT, **start).x, weights),)

    expected, direction = along(losses, [case.b])
    assert slope(losses()[0], [case.b], direction) == pytest.approx(expected, rel=1e-6)


def test_trees_and_float32() -> None:
    case = CASE.to(torch.float32)

    def cell(z: dict[str, Tensor], x: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        new = case.cell(torch.cat([z["a"], z["b"]], 1), torch.cat(x, 1))
        return {"a": new[:, :3], "b": new[:, 3:]}

    def objective(z: dict[str, Tensor], x: tuple[Tensor, Tensor]) -> Tensor:
        return case.objective(torch.cat([z["a"], z["b"]], 1), torch.cat(x, 1))

    problem = jiio.Problem(cell, objective)
    x0 = case.x0[:, :1], case.x0[:, 1:]
    z0 = {"a": case.z0[:, :3], "b": case.z0[:, 3:]}
    first = {name: leaf[:1] for name, leaf in z0.items()}
    there = jiio.Sensitivity.of(problem, (x0[0][:1], x0[1][:1]), first).linearised(problem, x0, z0)
    found = jiio.solve(problem, there.x, there.z, metric=there.metric, adjoint=jiio.Detached())
    assert gap(torch.cat(found.x, 1).double(), oracle(CASE)) < 1e-3 and found.x[0].dtype == torch.float32


def test_a_cell_that_hardly_contracts_is_solved_plainly() -> None:
    """Every eigenvalue on a circle of radius 0.98: the state is what is slow, and no metric for x mends that."""
    case = problems.make(4, act="linear", ridge=2.0, n=40)
    turn = torch.linalg.qr(torch.randn(40, 40, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)))[0]
    case = case.with_(W=0.98 * turn)
    sensitivity, x0, z0 = measured(case), case.x0 + 1.0, case.z0
    there = sensitivity.linearised(case.problem(), x0, z0)
    assert not sensitivity.helps and there.metric is None and there.x is x0 and there.z is z0


def test_a_cell_without_an_equilibrium_is_solved_plainly() -> None:
    case = problems.make(4, act="linear", radius=3.0, n=30)
    assert measured(case).factor == float("inf")


def test_uphill_of_the_linearised_objective_it_does_not_go() -> None:
    """Far out on log cosh the curvature is almost nothing, and a whole Newton step would fly away."""
    case = CASES["linear"].with_(loss="log-cosh", ridge=0.001, y=40 * CASES["linear"].y)
    x0 = case.x0
    there = measured(case).linearised(case.problem(), x0, case.z0)
    assert there.metric is None and there.x is x0


def test_without_curvature_the_metric_is_finite() -> None:
    problem = jiio.Problem(CASE.cell, lambda z, x: 1e-3 * z.sum(1))
    there = measured(CASE).linearised(problem, CASE.x0, CASE.z0)
    assert there.metric is not None and bool(torch.isfinite(there.metric.inverse).all())


def test_a_state_that_does_not_move_with_the_input_is_solved_plainly() -> None:
    """Dead at the sample of the measurement: S = 0, and no unit follows from it."""
    problem = jiio.Problem(lambda z, x: torch.relu(x - 1), lambda z, x: (z - 1).square().sum(1) + x.square().sum(1))
    x, z = torch.full((2, 2), -1.0, dtype=DOUBLE), torch.zeros(2, 2, dtype=DOUBLE)
    there = jiio.Sensitivity.of(problem, x[:1], z[:1]).linearised(problem, x, z)
    found = jiio.solve(problem, there.x, there.z, metric=there.metric)
    assert bool(found.converged.all()) and gap(found.x, torch.zeros_like(x)) < 1e-3


def test_layers_that_vmap_cannot_take_give_the_same_curvature() -> None:
    class Square(torch.autograd.Function):
        """Its second derivative is a closed book to vmap."""

        @staticmethod
        def forward(ctx, t: Tensor) -> Tensor:
            ctx.save_for_backward(t)
            return t * t

        @staticmethod
        def backward(ctx, grad: Tensor) -> Tensor:
            (t,) = ctx.saved_tensors
            return 2 * t * grad

    case = CASES["linear"].with_(C=torch.eye(10, dtype=DOUBLE), y=torch.zeros(3, 10, dtype=DOUBLE))
    own = jiio.Problem(case.cell, lambda z, x: 0.5 * Square.apply(z).sum(1) + 0.5 * case.ridge * (x * x).sum(1))
    one, other = near(case).metric, measured(case).linearised(own, case.x0, case.z0).metric
    assert one is not None and other is not None and gap(one.inverse, other.inverse) < 1e-10


@pytest.mark.parametrize(
    ("prox", "options", "words"),
    [
        (jiio.Box(-1.0, 1.0), {}, "metric: expected a problem with Identity or QuadraticPrior, got Box"),
        (jiio.SoftThreshold(0.1), {}, "metric: expected a problem with Identity or QuadraticPrior"),
        (None, {"rule": jiio.AdamStep()}, "metric: expected GradientStep"),
        (None, {"rule": jiio.GradientStep(curvature=1.0)}, "metric: expected GradientStep"),
    ],
)
def test_what_it_is_refused_for(prox: jiio.AbstractProx | None, options: dict, words: str) -> None:
    metric = near(CASE).metric
    with pytest.raises(jiio.ArgumentError, match=words):
        CASE.solve(prox, metric=metric, **options)


def test_bad_arguments_are_refused_in_a_sentence() -> None:
    problem, sensitivity, metric = CASE.problem(), measured(CASE), near(CASE).metric
    assert metric is not None
    with pytest.raises(jiio.ArgumentError, match="x: expected one sample"):
        jiio.Sensitivity.of(problem, CASE.x0, CASE.z0)
    with pytest.raises(jiio.ArgumentError, match="x: expected at most 512 numbers"):
        jiio.Sensitivity.of(problem, torch.zeros(1, 513, dtype=DOUBLE), CASE.z0[:1])
    with pytest.raises(jiio.ArgumentError, match="x0: expected 4 numbers"):
        sensitivity.linearised(problem, torch.zeros(3, 5, dtype=DOUBLE), CASE.z0)
    with pytest.raises(jiio.ArgumentError, match=r"metric: expected a matrix \(3, 4, 4\)"):
        CASE.solve(metric=dataclasses.replace(metric, inverse=metric.inverse[:2]))
    with pytest.raises(jiio.ArgumentError, match="metric: expected the dtype"):
        CASE.solve(metric=dataclasses.replace(metric, inverse=metric.inverse.float()))
    with pytest.raises(jiio.ArgumentTypeError, match="metric: expected an instance of Metric"):
        CASE.solve(metric=metric.inverse)
    with pytest.raises(jiio.ArgumentError, match="metric: expected a problem with Identity"):
        sensitivity.linearised(CASE.problem(jiio.L2Ball(1.0)), CASE.x0, CASE.z0)


def test_what_it_cost_is_counted() -> None:
    calls, problem = [], CASE.problem()
    counted = dataclasses.replace(problem, cell=lambda z, x: (calls.append(len(z)), CASE.cell(z, x))[1])
    found = jiio.Sensitivity.of(counted, CASE.x0[:1], CASE.z0[:1])
    assert found.evaluations.cell == len(calls) and calls[-1] == CASE.x0.shape[1] and calls[0] == 1
    before = len(calls)
    there = found.linearised(counted, CASE.x0, CASE.z0)
    assert len(calls) == before + 1 == before + there.calls and found.evaluations.adjoint_hvp < 20
