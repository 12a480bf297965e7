"""``solve`` and ``equilibrium`` against nested oracles, and the promises about batches, scales, feasibility and bookkeeping."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import jiio
from helpers import gap, oracle, reduced, state
from jiio import Status
from problems import CASES, DOUBLE, PUSH, Case, make

CLOSE = jiio.Tolerance(1e-8, 1e-8)


def per_sample(*values: float) -> Tensor:
    return torch.tensor(values, dtype=DOUBLE)


def spread(*shape: int) -> Tensor:
    """Fixed numbers between -1 and 1."""
    return torch.rand(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(7)) * 2 - 1


# name -> prox for a case with samples (3, k)
PROX: dict[str, Callable[[int], jiio.AbstractProx]] = {
    "none": lambda k: jiio.Identity(),
    "box": lambda k: jiio.Box(-0.3, 0.25),
    "box of tensors": lambda k: jiio.Box(-0.2 - 0.3 * spread(3, k).abs(), 0.2 * spread(k).abs()),
    "half space box": lambda k: jiio.Box(0.0, float("inf")),
    "L2 ball": lambda k: jiio.L2Ball(0.5),
    "L2 balls": lambda k: jiio.L2Ball(per_sample(0.3, 0.4, 9.0), center=0.2 * spread(3, k)),
    "Linf ball": lambda k: jiio.LinfBall(0.3),
    "Linf balls": lambda k: jiio.LinfBall(per_sample(0.1, 0.3, 9.0), center=0.2 * spread(k)),
    "L1 ball": lambda k: jiio.L1Ball(0.6),
    "L1 balls": lambda k: jiio.L1Ball(per_sample(0.3, 0.5, 9.0), center=0.2 * spread(3, k)),
    "box and L2 ball": lambda k: jiio.Intersection(jiio.Box(-0.3, 0.3), jiio.L2Ball(0.45)),
    "L1 and L2 ball": lambda k: jiio.Intersection(jiio.L1Ball(0.6), jiio.L2Ball(per_sample(0.3, 0.4, 0.5))),
    "soft threshold": lambda k: jiio.SoftThreshold(0.3),
    "soft thresholds": lambda k: jiio.SoftThreshold(0.5 * spread(3, k).abs()),
    "quadratic prior": lambda k: jiio.QuadraticPrior(0.4),
    "quadratic priors": lambda k: jiio.QuadraticPrior(spread(3, k).abs(), center=spread(k)),
}

# name -> (solver, rule, most steps)
SOLVERS: dict[str, tuple[jiio.AbstractSolver, jiio.AbstractRule, int]] = {
    "Anderson I": (jiio.Anderson(kind="I"), jiio.GradientStep(), 500),
    "Anderson II": (jiio.Anderson(kind="II"), jiio.GradientStep(), 500),
    "Anderson I, small step": (jiio.Anderson(kind="I"), jiio.GradientStep(0.1), 500),
    "Broyden": (jiio.Broyden(), jiio.GradientStep(), 500),
    "momentum": (jiio.Anderson(), jiio.MomentumStep(), 500),
}


@functools.cache
def nested(case: str, prox: str) -> Tensor:
    return oracle(CASES[case], PROX[prox](CASES[case].U.shape[1]))


# -- answers


@pytest.mark.parametrize("name", ["linear", "one number"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_linear_quadratic_problem_equals_one_dense_solve(name: str, solver: str) -> None:
    case = CASES[name]
    method, rule, steps = SOLVERS[solver]
    solution = case.solve(solver=method, rule=rule, max_steps=steps, tolerance=jiio.Tolerance(1e-10, 1e-10))
    z, mu, x = case.kkt()
    assert max(gap(solution.z, z), gap(solution.multiplier, mu), gap(solution.x, x)) < 1e-8
    assert gap(solution.value, case.objective(z, x)) < 1e-8


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("prox", PROX)
def test_solution_equals_the_nested_oracle(prox: str, solver: str) -> None:
    method, rule, steps = SOLVERS[solver]
    for name, case in CASES.items():
        constraint = PROX[prox](case.U.shape[1])
        if not rule.exact_step and not constraint.is_set:
            continue
        if isinstance(constraint, jiio.Intersection) and name in ("one number", "linear") and solver != "Anderson II":
            continue  # slow, and the two others say it
        solution = case.solve(constraint, solver=method, rule=rule, max_steps=steps, tolerance=CLOSE)
        assert gap(solution.x, nested(name, prox)) < 1e-5, name
        assert gap(solution.z, torch.stack([state(case, x) for x in solution.x])) < 1e-5, name
        values = torch.tensor([reduced(case, i, x)[0] for i, x in enumerate(solution.x)], dtype=DOUBLE)
        assert gap(solution.value, values + constraint.bind(solution.x).penalty(solution.x)) < 1e-5, name


@pytest.mark.parametrize("prox", ["box", "L2 ball", "L1 balls", "soft threshold"])
def test_plain_iteration_gets_there_where_it_contracts(prox: str) -> None:
    case = CASES["softplus, smooth loss"]
    for damping in (1.0, {"z": 0.8, "mu": 0.6}):
        solution = case.solve(
            PROX[prox](4), solver=jiio.Picard(damping), rule=jiio.GradientStep(0.05), max_steps=2000, tolerance=CLOSE
        )
        assert gap(solution.x, nested("softplus, smooth loss", prox)) < 1e-5


@pytest.mark.parametrize(
    "solver", [jiio.Picard(), jiio.Anderson(), jiio.Anderson(kind="I"), jiio.Broyden()], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize(
    ("rule", "prox"),
    [
        (jiio.NormalizedStep(), jiio.L2Ball(0.4)),
        (jiio.NormalizedStep(0.05), jiio.L2Ball(per_sample(0.1, 0.3, 0.5))),
        (jiio.NormalizedStep(), jiio.LinfBall(0.2)),
        (jiio.SignStep(), jiio.LinfBall(0.2)),
        (jiio.SignStep(0.05), jiio.Box(-0.2, 0.15)),
        (jiio.AdamStep(), jiio.LinfBall(0.2)),
        (jiio.AdamStep(), jiio.Box(-0.2, 0.15)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_attack_rules_find_the_optimum_on_the_boundary(
    solver: jiio.AbstractSolver, rule: jiio.AbstractRule, prox: jiio.AbstractProx
) -> None:
    solution = PUSH.solve(prox, solver=solver, rule=rule, max_steps=500, tolerance=CLOSE)
    assert gap(solution.x, oracle(PUSH, prox)) < 1e-5
    if isinstance(prox, (jiio.LinfBall, jiio.Box)):  # a vertex: every coordinate on its bound
        assert gap(prox(solution.x + 1.0), prox(solution.x - 1.0)) > 0.3
        assert float(torch.minimum((solution.x + 0.2).abs(), (solution.x - prox(solution.x + 1.0)).abs()).max()) < 1e-12


def test_adam_with_a_decaying_rate_reaches_an_interior_optimum() -> None:
    case = CASES["softplus, smooth loss"]
    for prox in ("none", "box", "Linf ball"):
        rule = jiio.AdamStep(rate=lambda step: 0.05 / (1 + 0.02 * step))
        solution = case.solve(PROX[prox](4), solver=jiio.Picard(), rule=rule, max_steps=1000, tolerance=CLOSE)
        assert gap(solution.x, nested("softplus, smooth loss", prox)) < 1e-5


def test_sign_step_never_converges_inside() -> None:
    solution = CASES["tanh"].solve(rule=jiio.SignStep(), max_steps=200, on_failure="ignore")
    assert not solution.converged.any()


def test_optimality_residual_is_measured_at_the_returned_point() -> None:
    case = CASES["tanh"]
    solution = case.solve(jiio.L2Ball(0.5), tolerance=jiio.Tolerance(1e-7, 1e-7))
    z, mu, x = (t.clone().requires_grad_() for t in (solution.z, solution.multiplier, solution.x))
    image = case.cell(z, x)
    lagrangian = case.objective(z, x).sum() + (mu * (image - z)).sum()
    gz, gx = torch.autograd.grad(lagrangian, (z, x))
    rms = lambda t: t.square().mean(1).sqrt()  # noqa: E731
    sigma, kappa = solution.scaling
    assert solution.blocks == ("z", "mu", "x")
    assert gap(solution.residual[:, 0], rms(image - z)) < 1e-12
    assert gap(solution.residual[:, 1], rms(gz / sigma)) < 1e-12
    moved = jiio.L2Ball(0.5)(x - 0.5 * gx / (sigma * kappa))
    assert gap(solution.residual[:, 2], rms((moved - x) / 0.5 * kappa.sqrt())) < 1e-12
    assert gap(solution.gradient, gx) < 1e-12


@pytest.mark.parametrize(
    "solver", [jiio.Anderson(), jiio.Anderson(kind="I"), jiio.Broyden(), jiio.Picard(), jiio.Picard(0.7)]
)
def test_equilibrium_equals_dense_newton(solver: jiio.AbstractSolver) -> None:
    for case in CASES.values():
        x = spread(3, case.U.shape[1]) * 2
        solution = jiio.equilibrium(
            case.cell, x, case.z0, solver=solver, tolerance=CLOSE, max_steps=1000, on_failure="raise"
        )
        assert gap(solution.z, torch.stack([state(case, row) for row in x])) < 1e-6
        assert solution.multiplier is None and solution.value.isnan().all() and solution.blocks == ("z",)


# -- batches


def mixed(dtype: torch.dtype = DOUBLE) -> Case:
    """32 samples from trivial to hard: targets spread over four orders of magnitude."""
    case = make(8, act="tanh", batch=32, ridge=0.4)
    size = torch.logspace(-3, 1.2, 32, dtype=DOUBLE)[torch.randperm(32, generator=torch.Generator().manual_seed(1))]
    return case.with_(y=case.y * size[:, None]).to(dtype)


@pytest.mark.parametrize(
    "prox", [jiio.Identity(), jiio.L2Ball(0.5), jiio.SoftThreshold(0.05)], ids=lambda p: type(p).__name__
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(DOUBLE, jiio.Tolerance(1e-9, 1e-9)), (torch.float32, jiio.Tolerance(1e-6, 1e-6))]
)
def test_solve_alone_and_in_company(dtype: torch.dtype, tolerance: jiio.Tolerance, prox: jiio.AbstractProx) -> None:
    case = mixed(dtype)
    whole = case.solve(prox, tolerance=tolerance, max_steps=600)
    assert int(whole.steps.max()) > 1.6 * int(whole.steps.min())  # the batch is mixed indeed
    for i in range(32) if dtype == DOUBLE and prox.is_set else range(0, 32, 5):
        alone = case.rows(slice(i, i + 1)).solve(prox, tolerance=tolerance, max_steps=600)
        for name in ("z", "x", "multiplier"):
            inside, outside = getattr(whole, name)[i], getattr(alone, name)[0]
            bound = 1e-6 if dtype == DOUBLE else 1e-4 * max(1.0, float(outside.abs().max()))
            assert float((inside - outside).abs().max()) < bound, (i, name)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_equilibrium_alone_and_in_company(dtype: torch.dtype) -> None:
    case = mixed(dtype)
    x = (torch.randn(32, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(2)) * 3).to(dtype)
    options: dict[str, Any] = {"tolerance": jiio.Tolerance(1e-6, 1e-6), "on_failure": "raise"}
    if dtype == DOUBLE:
        options["tolerance"] = jiio.Tolerance(1e-9, 1e-9)
    whole = jiio.equilibrium(case.cell, x, case.z0, **options)
    for i in range(32):
        alone = jiio.equilibrium(case.cell, x[i : i + 1], case.z0[i : i + 1], **options)
        assert gap(alone.z[0], whole.z[i]) < (1e-6 if dtype == DOUBLE else 1e-4)
        assert abs(int(alone.steps[0]) - int(whole.steps[i])) <= (1 if dtype == DOUBLE else 2)


ADJOINTS = [jiio.Envelope(), jiio.Implicit(), jiio.KKT(), jiio.Phantom(), jiio.Phantom(kind="neumann")]


def with_gradients(
    case: Case, x0: Tensor, adjoint: jiio.AbstractAdjoint, rows: Tensor
) -> tuple[jiio.Solution, list[Tensor]]:
    """A solve, and the parameter gradients of a loss over some of its samples."""
    parameters = [case.W.clone().requires_grad_(), case.U.clone().requires_grad_(), case.b.clone().requires_grad_()]
    taped = case.with_(W=parameters[0], U=parameters[1], b=parameters[2])
    solution = taped.solve(
        jiio.L2Ball(0.5), x0=x0, adjoint=adjoint, tolerance=CLOSE, max_steps=400, on_failure="ignore"
    )
    loss = solution.value[rows].sum()
    if "z" in solution.differentiable:
        loss = loss + solution.z[rows].square().sum()
    return solution, list(torch.autograd.grad(loss, parameters))


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=str)
def test_a_nan_sample_changes_nothing_for_the_others(adjoint: jiio.AbstractAdjoint) -> None:
    case = mixed()
    others = torch.arange(32) != 11
    clean, expected = with_gradients(case, case.x0, adjoint, others)
    spoilt = case.x0
    spoilt[11, 1] = float("nan")
    broken, gradients = with_gradients(case, spoilt, adjoint, others)
    assert broken.status[11] == Status.NONFINITE
    assert bool((broken.status[others] == Status.CONVERGED).all())
    for name in ("z", "x", "multiplier", "value", "steps", "residual"):
        assert torch.equal(getattr(broken, name)[others], getattr(clean, name)[others]), name
    for g, e in zip(gradients, expected, strict=True):
        assert gap(g, e) < 1e-8
    # Even a loss over the whole batch, as anyone would write it, keeps finite gradients for the parameters of the cell.
    _, gradients = with_gradients(case, spoilt, adjoint, torch.ones(32, dtype=torch.bool))
    assert all(bool(g.isfinite().all()) for g in gradients)


def test_a_nan_target_changes_nothing_for_the_others() -> None:
    case = mixed()
    others = torch.arange(32) != 11
    clean, expected = with_gradients(case, case.x0, jiio.Envelope(), others)
    y = case.y.clone()
    y[11, 0] = float("nan")
    broken, gradients = with_gradients(case.with_(y=y), case.x0, jiio.Envelope(), others)
    assert broken.status[11] == Status.NONFINITE and bool(broken.converged[others].all())
    assert torch.equal(broken.x[others], clean.x[others]) and torch.equal(broken.z[others], clean.z[others])
    assert bool(broken.x.isfinite().all())
    for g, e in zip(gradients, expected, strict=True):
        assert gap(g, e) < 1e-8


@pytest.mark.parametrize("adjoint", [jiio.Implicit(), jiio.Phantom(), jiio.Phantom(kind="neumann")], ids=str)
def test_a_nan_sample_in_an_equilibrium(adjoint: jiio.AbstractAdjoint) -> None:
    case = mixed()
    clean = torch.randn(32, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    others = torch.arange(32) != 4
    results = []
    for spoil in (False, True):
        x = clean.clone()
        if spoil:
            x[4] = float("inf")
            x[4, 0] = float("nan")
        x.requires_grad_()
        weight = case.W.clone().requires_grad_()
        solution = jiio.equilibrium(case.with_(W=weight).cell, x, case.z0, adjoint=adjoint, on_failure="ignore")
        gradients = torch.autograd.grad(solution.z[others].square().sum(), (weight, x))
        results.append((solution, gradients))
    (good, expected), (bad, gradients) = results
    assert bad.status[4] == Status.NONFINITE and bool(bad.converged[others].all())
    assert torch.equal(bad.z[others], good.z[others]) and torch.equal(bad.steps[others], good.steps[others])
    assert gap(gradients[0], expected[0]) < 1e-10 and gap(gradients[1][others], expected[1][others]) < 1e-10


def test_permuting_the_batch_permutes_the_answer() -> None:
    case, order = mixed(), torch.randperm(32, generator=torch.Generator().manual_seed(5))
    first = case.solve(jiio.L1Ball(0.6), tolerance=CLOSE)
    second = case.rows(order).solve(jiio.L1Ball(0.6), tolerance=CLOSE)
    assert gap(first.x[order], second.x) < 1e-6 and gap(first.multiplier[order], second.multiplier) < 1e-6


# -- scales


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1e2, 1e4])
@pytest.mark.parametrize("prox", [jiio.Identity(), jiio.L2Ball(0.5)], ids=["free", "ball"])
def test_scale_of_the_objective_does_not_matter(scale: float, prox: jiio.AbstractProx) -> None:
    case = CASES["tanh"]
    plain = case.solve(prox, tolerance=CLOSE)
    problem = jiio.Problem(case.cell, lambda z, x: scale * case.objective(z, x), prox)
    scaled = jiio.solve(problem, case.x0, case.z0, tolerance=CLOSE, on_failure="raise")
    assert gap(scaled.x, plain.x) < 1e-6
    assert gap(scaled.multiplier / scale, plain.multiplier) < 1e-6
    assert bool(((scaled.steps - plain.steps).abs() <= 10).all())


@pytest.mark.parametrize("unit", [1e-3, 1e-1, 1e1, 1e3])
@pytest.mark.parametrize("bounded", [False, True])
def test_units_of_the_input_do_not_matter(unit: float, bounded: bool) -> None:
    case = CASES["tanh"]
    scaled = case.with_(U=case.U / unit, ridge=case.ridge / unit**2)
    plain = case.solve(jiio.Box(-0.3, 0.3) if bounded else None, tolerance=CLOSE)
    other = scaled.solve(jiio.Box(-0.3 * unit, 0.3 * unit) if bounded else None, tolerance=CLOSE)
    assert gap(other.x / unit, plain.x) < 1e-6 and gap(other.z, plain.z) < 1e-6
    assert bool(((other.steps - plain.steps).abs() <= 10).all())


def test_raw_gradient_units_solve_the_same_problem() -> None:
    case = CASES["tanh"]
    expected = nested("tanh", "L2 ball")
    for curvature in (2.0, per_sample(1.0, 2.0, 4.0)):
        rule = jiio.GradientStep(0.5, curvature=curvature)
        assert gap(case.solve(jiio.L2Ball(0.5), rule=rule, tolerance=CLOSE).x, expected) < 1e-5


# -- feasibility

BALLS = {"L1": jiio.L1Ball, "L2": jiio.L2Ball, "Linf": jiio.LinfBall}


def sets(name: str, radius: Tensor, center: Tensor) -> jiio.AbstractProx:
    box = jiio.Box(center - 0.7 * radius[:, None], center + 0.4 * radius[:, None])
    if name == "box":
        return box
    if name.endswith("and box"):
        return jiio.Intersection(BALLS[name.split()[0]](radius, center=center), box)
    return BALLS[name](radius, center=center)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["box", "L1", "L2", "Linf", "L2 and box", "L1 and box"]),
    kind=st.sampled_from(["I", "II"]),
    steps=st.integers(2, 14),
    size=st.floats(1e-3, 1e3),
    seed=st.integers(0, 10**6),
    single=st.booleans(),
)
def test_every_returned_input_satisfies_its_constraint(
    name: str, kind: str, steps: int, size: float, seed: int, single: bool
) -> None:
    """250 batches of 4: a thousand random solves, most of them stopped long before they converge."""
    draw = torch.Generator().manual_seed(seed)
    dtype = torch.float32 if single else DOUBLE
    case = make(seed, act="tanh", batch=4, radius=1.2).to(dtype)
    radius = (torch.rand(4, dtype=DOUBLE, generator=draw) * size).to(dtype)
    center = (torch.randn(4, 4, dtype=DOUBLE, generator=draw) * size).to(dtype)
    start = (torch.randn(4, 4, dtype=DOUBLE, generator=draw) * 3 * size).to(dtype)
    rule = jiio.GradientStep(2.0) if seed % 2 else jiio.NormalizedStep(0.5 * size)
    prox = sets(name, radius, center)
    solution = case.solve(
        prox, x0=start, solver=jiio.Anderson(kind=kind), rule=rule, max_steps=steps, on_failure="ignore"
    )
    rounding = 20 * torch.finfo(dtype).eps * (center.abs().amax(1) + radius)
    assert bool((prox.violation(solution.x) <= rounding).all())
    assert bool(solution.x.isfinite().all())
    # The set itself, not the library's word for it.
    offset = solution.x - center
    norm = {"1": offset.abs().sum(1), "2": offset.norm(dim=1), "f": offset.abs().amax(1)}.get(name.split()[0][-1])
    if norm is not None:
        assert bool((norm <= radius + rounding).all())


# -- bookkeeping


class Counted:
    """A cell that counts its calls."""

    def __init__(self, cell: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.cell, self.calls = cell, 0

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return self.cell(z, x)


@pytest.mark.parametrize("adjoint", [*ADJOINTS, jiio.Unrolled(), jiio.Detached()], ids=str)
@pytest.mark.parametrize("solver", [jiio.Anderson(), jiio.Picard(), jiio.Broyden()], ids=lambda s: type(s).__name__)
def test_every_call_of_the_cell_is_counted(solver: jiio.AbstractSolver, adjoint: jiio.AbstractAdjoint) -> None:
    case = CASES["tanh"].with_(W=CASES["tanh"].W.clone().requires_grad_())
    cell = Counted(case.cell)
    options: dict[str, Any] = {"solver": solver, "adjoint": adjoint, "on_failure": "ignore", "max_steps": 12}
    solution = jiio.solve(jiio.Problem(cell, case.objective), case.x0, case.z0, **options)
    assert solution.evaluations.cell == cell.calls
    assert int(solution.steps.max()) == 12
    if not isinstance(adjoint, (jiio.Envelope, jiio.KKT)):
        cell.calls = 0
        solution = jiio.equilibrium(cell, case.x0, case.z0, **options)
        assert solution.evaluations.cell == cell.calls and solution.evaluations.vjp == 0


def test_a_step_costs_one_evaluation_and_one_vjp() -> None:
    case = CASES["tanh"]
    costs = [
        case.solve(adjoint=jiio.Detached(), max_steps=steps, on_failure="ignore").evaluations for steps in (10, 20)
    ]
    assert costs[1].cell - costs[0].cell == 10 and costs[1].vjp - costs[0].vjp == 10
    assert costs[0].cell == costs[0].vjp == 12  # two more measure the scale
    early = case.solve(adjoint=jiio.Detached(), tolerance=jiio.Tolerance(1e-4, 1e-3), max_steps=500)
    late = case.solve(adjoint=jiio.Detached(), max_steps=500)
    assert early.evaluations.total < late.evaluations.total and gap(early.x, late.x) < 1e-2


def test_trace_is_nan_where_nothing_was_measured() -> None:
    case = mixed()
    solution = case.solve(trace=True, tolerance=CLOSE)
    trace = solution.trace
    assert trace is not None
    taken = int(solution.steps.max())
    assert trace.residual.shape == (taken, 32, 3) and trace.value.shape == (taken, 32)
    before = torch.arange(taken)[:, None] < solution.steps[None]
    assert torch.equal(~trace.value.isnan(), before) and torch.equal(~trace.residual.isnan().any(2), before)
    for i in range(32):
        assert torch.equal(trace.residual[int(solution.steps[i]) - 1, i], solution.residual[i])
    assert trace.x == [] and case.solve(tolerance=CLOSE).trace is None
    solution = jiio.equilibrium(case.cell, case.x0 + 1, case.z0, trace="points")
    assert solution.trace is not None and bool(solution.trace.value.isnan().all())
    assert len(solution.trace.z) == int(solution.steps.max())


def test_traced_inputs_are_feasible() -> None:
    solution = CASES["tanh"].solve(jiio.L2Ball(0.5), trace="points", tolerance=CLOSE)
    assert solution.trace is not None and len(solution.trace.x) == int(solution.steps.max())
    assert max(float(jiio.L2Ball(0.5).violation(x).max()) for x in solution.trace.x) < 1e-14


def test_check_every_only_looks_less_often() -> None:
    case = CASES["tanh"]
    often, seldom = (case.solve(tolerance=jiio.Tolerance(1e-8, 1e-8, n)) for n in (1, 7))
    assert torch.equal(often.x, seldom.x) and torch.equal(often.steps, seldom.steps)
    assert often.evaluations.cell <= seldom.evaluations.cell <= often.evaluations.cell + 7


# -- failures


def gained(gain: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """f(z, x) = gain tanh'ed below and linear beyond: sample i expands by gain_i."""
    return lambda z, x: gain[:, None] * z + x


def test_a_diverging_sample_does_not_hold_up_the_others() -> None:
    gain = per_sample(0.5, 0.2, 3.0, -0.4, float("nan"), 0.5)
    x = torch.ones(6, 3, dtype=DOUBLE)
    solution = jiio.equilibrium(
        gained(gain), x, x * 0 + 0.3, solver=jiio.Picard(), tolerance=CLOSE, max_steps=300, on_failure="ignore"
    )
    names = [Status(s).name for s in solution.status.tolist()]
    assert names == ["CONVERGED", "CONVERGED", "DIVERGED", "CONVERGED", "NONFINITE", "CONVERGED"]
    good = solution.converged
    assert gap(solution.z[good], (x / (1 - gain[:, None]))[good]) < 1e-7
    assert int(solution.steps[2]) > int(solution.steps[4]) == 1
    assert bool(solution.z.isfinite().all())


def test_acceleration_finds_the_fixed_point_of_an_expanding_map() -> None:
    gain = per_sample(3.0, -5.0)
    x = torch.ones(2, 3, dtype=DOUBLE)
    solution = jiio.equilibrium(gained(gain), x, x * 0, tolerance=CLOSE, on_failure="raise")
    assert gap(solution.z, x / (1 - gain[:, None])) < 1e-6


def test_on_failure() -> None:
    case = CASES["tanh"]
    short: dict[str, Any] = {"max_steps": 3, "adjoint": jiio.Detached()}
    with pytest.warns(jiio.ConvergenceWarning, match="3 of 3 samples did not converge"):
        warned = case.solve(on_failure="warn", **short)
    with pytest.raises(jiio.ConvergenceError, match="stopped at max_steps"):
        case.solve(on_failure="raise", **short)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silent = case.solve(on_failure="ignore", **short)
        converged = case.solve(on_failure="warn")
    assert torch.equal(warned.x, silent.x) and bool((silent.status == Status.MAX_STEPS).all())
    assert bool(converged.converged.all()) and "3 CONVERGED" in converged.summary()
    assert all(Status(s).words for s in Status)


def test_a_zero_radius_and_a_zero_gradient_are_no_trouble() -> None:
    case = CASES["tanh"]
    for prox in (jiio.L2Ball(0.0), jiio.L1Ball(0.0), jiio.LinfBall(0.0), jiio.Box(0.0, 0.0)):
        solution = case.solve(prox, adjoint=jiio.KKT(), tolerance=CLOSE)
        assert not solution.x.any()
        assert gap(solution.z, state(case, case.x0[0]).expand(3, -1)) < 1e-6
    flat = jiio.Problem(case.cell, lambda z, x: 0.0 * z.sum(1))
    solution = jiio.solve(flat, case.x0 + 0.5, case.z0, tolerance=CLOSE, on_failure="raise")
    assert gap(solution.x, case.x0 + 0.5) == 0.0 and not solution.multiplier.any()


@pytest.mark.parametrize("memory", [1, 2, 60])
def test_extreme_memories_run(memory: int) -> None:
    for solver in (jiio.Anderson(memory=memory), jiio.Anderson(memory=memory, kind="I"), jiio.Broyden(memory=memory)):
        solution = CASES["linear"].solve(solver=solver, max_steps=2000, tolerance=jiio.Tolerance(1e-6, 1e-6))
        assert gap(solution.x, nested("linear", "none")) < 1e-4


# -- starts


@pytest.mark.parametrize(
    "prox", [jiio.Identity(), jiio.L2Ball(0.5), jiio.SoftThreshold(0.1)], ids=lambda p: type(p).__name__
)
def test_a_warm_start_saves_steps(prox: jiio.AbstractProx) -> None:
    case = CASES["tanh"]
    cold = case.solve(prox, tolerance=CLOSE)
    warm = case.solve(prox, x0=cold.x, z0=cold.z, multiplier=cold.multiplier, tolerance=CLOSE)
    assert int(warm.steps.sum()) < 0.5 * int(cold.steps.sum())
    # The units of the tolerance are measured at the start, so "the same" tolerance differs a little; a wider one is met at once.
    wide = case.solve(prox, x0=cold.x, z0=cold.z, multiplier=cold.multiplier, tolerance=jiio.Tolerance(1e-7, 1e-7))
    assert int(wide.steps.max()) <= 2
    assert gap(warm.x, cold.x) < 1e-6
    near = case.with_(y=case.y + 1e-3)
    again = near.solve(prox, x0=cold.x, z0=cold.z, multiplier=cold.multiplier, tolerance=CLOSE)
    assert int(again.steps.sum()) < int(near.solve(prox, tolerance=CLOSE).steps.sum())


def test_an_infeasible_start_is_projected() -> None:
    case = CASES["tanh"]
    far = case.solve(jiio.L2Ball(0.5), x0=case.x0 + 100.0, tolerance=CLOSE)
    assert gap(far.x, nested("tanh", "L2 ball")) < 1e-5


def test_arguments_are_left_as_they_were() -> None:
    case = CASES["tanh"]
    x0, z0, mu = (torch.randn_like(t) for t in (case.x0, case.z0, case.z0))
    copies = [t.clone() for t in (x0, z0, mu)]
    case.solve(jiio.Box(-0.1, 0.1), x0=x0, z0=z0, multiplier=mu, max_steps=5, on_failure="ignore")
    jiio.equilibrium(case.cell, x0, z0, max_steps=5, on_failure="ignore")
    assert all(torch.equal(a, b) for a, b in zip((x0, z0, mu), copies, strict=True))


# -- trees


def test_trees_of_tensors_give_the_packed_answer() -> None:
    case = CASES["tanh"]
    rows = case.batch

    def split(z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return z[:, :4].reshape(rows, 2, 2), {"rest": z[:, 4:]}

    def join(z: Any) -> Tensor:
        return torch.cat([z[0].reshape(rows, 4), z[1]["rest"]], 1)

    def read(x: Any) -> Tensor:
        return torch.cat([x["a"].reshape(rows, 1), x["b"][0]], 1)

    def write(x: Tensor) -> dict[str, Any]:
        return {"a": x[:, :1].reshape(rows, 1, 1), "b": [x[:, 1:]]}

    problem = jiio.Problem(
        lambda z, x: split(case.cell(join(z), read(x))), lambda z, x: case.objective(join(z), read(x)), jiio.L2Ball(0.5)
    )
    weight = {"adjoint": jiio.Detached(), "tolerance": CLOSE, "on_failure": "raise"}
    solution = jiio.solve(problem, write(case.x0), split(case.z0), **weight)
    packed = case.solve(jiio.L2Ball(0.5), **weight)
    assert isinstance(solution.z, tuple) and set(solution.x) == {"a", "b"} and isinstance(solution.x["b"], list)
    assert torch.equal(join(solution.z), packed.z) and torch.equal(read(solution.x), packed.x)
    assert torch.equal(join(solution.multiplier), packed.multiplier)
    assert float(jiio.L2Ball(0.5).violation(solution.x).max()) < 1e-14
    plain = jiio.equilibrium(problem.cell, solution.x, split(case.z0), tolerance=CLOSE)
    assert gap(join(plain.z), packed.z) < 1e-6


def test_a_prox_takes_trees_too() -> None:
    case = CASES["tanh"]
    center = {"a": torch.full((1,), 0.1, dtype=DOUBLE), "b": spread(3, 3)}
    problem = jiio.Problem(
        lambda z, x: case.cell(z, torch.cat([x["a"], x["b"]], 1)),
        lambda z, x: case.objective(z, torch.cat([x["a"], x["b"]], 1)),
        jiio.L2Ball(per_sample(0.2, 0.3, 0.4), center=center),
    )
    start = {"a": case.x0[:, :1], "b": case.x0[:, 1:]}
    solution = jiio.solve(problem, start, case.z0, tolerance=CLOSE, on_failure="raise")
    flat = torch.cat([center["a"].expand(3, 1), center["b"]], 1)
    expected = oracle(case, jiio.L2Ball(per_sample(0.2, 0.3, 0.4), center=flat))
    assert gap(torch.cat([solution.x["a"], solution.x["b"]], 1), expected) < 1e-5


def test_initial_state_may_come_from_the_cell() -> None:
    case = CASES["tanh"]

    class Cell:
        def __call__(self, z: Tensor, x: Tensor) -> Tensor:
            return case.cell(z, x)

        def initial_state(self, x: Tensor) -> Tensor:
            return x.new_zeros(x.shape[0], 10)

    solution = jiio.solve(jiio.Problem(Cell(), case.objective), case.x0, tolerance=CLOSE)
    assert gap(solution.x, nested("tanh", "none")) < 1e-5
    assert gap(jiio.equilibrium(Cell(), solution.x, tolerance=CLOSE).z, solution.z) < 1e-6


def test_solves_run_without_grad_mode() -> None:
    case = CASES["tanh"]
    expected = nested("tanh", "L2 ball")
    with torch.no_grad():
        solution = case.solve(jiio.L2Ball(0.5), tolerance=CLOSE)
        assert not solution.differentiable and not solution.value.requires_grad
        assert gap(solution.x, expected) < 1e-5
        assert not jiio.equilibrium(case.cell, case.x0, case.z0).z.requires_grad
    with torch.inference_mode():
        assert gap(jiio.equilibrium(case.cell, solution.x, case.z0, tolerance=CLOSE).z, solution.z) < 1e-6
        with pytest.raises(jiio.GradientError, match=r"torch\.no_grad"):
            case.solve()
