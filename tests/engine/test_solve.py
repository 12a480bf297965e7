"""``solve`` and ``equilibrium`` against nested oracles, for every solver, rule and prox; starts and trees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from helpers import (
    gap,
    multiplier,
    nested,
    oracle,
    reduced,
    state,
)
from problems import (
    CASES,
    CLOSE,
    DOUBLE,
    PROX,
    PUSH,
    make,
    per_sample,
    spread,
)

# name -> (solver, rule, most steps)
SOLVERS: dict[str, tuple[jiio.AbstractSolver, jiio.AbstractRule, int]] = {
    "Anderson I": (jiio.Anderson(kind="I"), jiio.GradientStep(), 500),
    "Anderson II": (jiio.Anderson(kind="II"), jiio.GradientStep(), 500),
    "Broyden": (jiio.Broyden(), jiio.GradientStep(), 500),
    "momentum": (jiio.Anderson(), jiio.MomentumStep(), 500),
}


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
        if name in ("linear", "one number") and solver != "Anderson II":
            continue  # where one dense solve says it already
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


@pytest.mark.parametrize("name", ["linear", "softplus, smooth loss"])
@pytest.mark.parametrize("prox", ["box", "Linf ball"])
def test_adam_finds_an_optimum_in_a_box(name: str, prox: str) -> None:
    """Some coordinates at their bounds, some between."""
    case = CASES[name]
    solution = case.solve(PROX[prox](4), rule=jiio.AdamStep(0.02), max_steps=600, tolerance=CLOSE)
    assert gap(solution.x, nested(name, prox)) < 1e-5


@pytest.mark.parametrize(
    ("solver", "prox"), [(jiio.Picard(), "box"), (jiio.Anderson(kind="I"), "none")], ids=["Picard", "Anderson I"]
)
@pytest.mark.parametrize(
    "rule",
    [
        jiio.GradientStep(3.0),
        jiio.MomentumStep(momentum=0.9),
        jiio.NormalizedStep(),
        jiio.SignStep(0.05),
        jiio.AdamStep(),
        jiio.AdamStep(rate=lambda step: 0.05 / (1 + 0.02 * step)),
    ],
    ids=lambda r: type(r).__name__,
)
def test_converged_is_never_said_of_a_point_that_is_not(
    rule: jiio.AbstractRule, solver: jiio.AbstractSolver, prox: str
) -> None:
    """Rules and rates that wander, oscillate, or are slowed down until they stand still somewhere."""
    solution = CASES["tanh"].solve(
        PROX[prox](4), rule=rule, solver=solver, max_steps=600, tolerance=CLOSE, on_failure="ignore"
    )
    apart = (solution.x - nested("tanh", prox)).abs().amax(1)
    assert float(torch.where(solution.converged, apart, torch.zeros_like(apart)).max()) < 1e-5


@pytest.mark.parametrize("name", ["tanh", "softplus, smooth loss"])
def test_sign_step_ends_inside_only_by_shorter_steps(name: str) -> None:
    """It has no fixed point there: at full length it oscillates; the loop shortens it until the gradient is small."""
    case, rule = CASES[name], jiio.SignStep(0.05)
    early = case.solve(rule=rule, solver=jiio.Picard(), max_steps=40, tolerance=CLOSE, on_failure="ignore")
    assert not early.converged.any()
    late = case.solve(rule=rule, solver=jiio.Picard(), max_steps=800, tolerance=CLOSE)
    assert gap(late.x, nested(name, "none")) < 1e-5


def test_optimality_residual_is_measured_at_the_returned_point() -> None:
    case = CASES["tanh"]
    solution = case.solve(jiio.L2Ball(0.5), tolerance=jiio.Tolerance(1e-7, 1e-7))
    assert solution.multiplier is not None and solution.scaling is not None and solution.gradient is not None
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


def test_special_cells_and_objectives() -> None:
    case = CASES["tanh"]
    target = spread(3, 4)
    seen = jiio.Problem(case.cell, lambda z, x: (x - target).square().sum(1))  # the state does not matter
    assert gap(jiio.solve(seen, case.x0, case.z0, tolerance=CLOSE).x, target) < 1e-6
    forward = case.with_(W=0 * case.W)  # an ordinary network: one layer
    assert gap(forward.solve(tolerance=CLOSE).x, oracle(forward)) < 1e-5
    deaf = case.with_(U=0 * case.U)  # the input reaches the objective alone
    assert float(deaf.solve(x0=target, tolerance=CLOSE).x.abs().max()) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs(dtype: torch.dtype) -> None:
    case = CASES["softplus, smooth loss"].to(dtype)
    weight = case.W.clone().requires_grad_()
    solution = case.with_(W=weight).solve(
        jiio.L2Ball(0.5),
        adjoint=jiio.KKT(1e-1),
        tolerance=jiio.Tolerance(1e-2, 2e-2),
        on_failure="ignore",
        max_steps=60,
    )
    assert solution.x.dtype == dtype
    assert gap(solution.x.double(), nested("softplus, smooth loss", "L2 ball")) < 0.1
    assert bool(torch.autograd.grad((solution.z**2).sum(), weight)[0].isfinite().all())


# -- starts


@pytest.mark.parametrize(
    "prox", [jiio.Identity(), jiio.L2Ball(0.5), jiio.SoftThreshold(0.1)], ids=lambda p: type(p).__name__
)
def test_a_warm_start_saves_steps(prox: jiio.AbstractProx) -> None:
    case = CASES["tanh"]
    cold = case.solve(prox, tolerance=CLOSE)
    warm = case.solve(prox, x0=cold.x, z0=cold.z, multiplier=cold.multiplier, tolerance=CLOSE)
    assert int(warm.steps.sum()) < 0.5 * int(cold.steps.sum())
    # The units of the tolerance are measured at the start, so it is not quite the same one; a wider one is met at once.
    wide = case.solve(prox, x0=cold.x, z0=cold.z, multiplier=cold.multiplier, tolerance=jiio.Tolerance(1e-7, 1e-7))
    assert int(wide.steps.max()) <= 2
    assert gap(warm.x, cold.x) < 1e-6
    near = case.with_(y=case.y + 1e-3)
    again = near.solve(prox, x0=cold.x, z0=cold.z, multiplier=cold.multiplier, tolerance=CLOSE)
    assert int(again.steps.sum()) < int(near.solve(prox, tolerance=CLOSE).steps.sum())


@pytest.mark.parametrize(
    "prox", [jiio.Identity(), jiio.L2Ball(0.5), jiio.SoftThreshold(0.1)], ids=lambda p: type(p).__name__
)
def test_scales_of_an_earlier_solve_are_taken_as_they_are(prox: jiio.AbstractProx) -> None:
    case = CASES["tanh"]
    cold = case.solve(prox, tolerance=CLOSE)
    start = {"x0": cold.x, "z0": cold.z, "multiplier": cold.multiplier, "tolerance": CLOSE}
    again = case.solve(prox, scaling=cold.scaling, **start)
    assert bool(again.converged.all()) and int(again.steps.max()) <= 2
    assert again.evaluations.vjp == int(again.steps.max()) and gap(again.x, cold.x) < 1e-6  # nothing is measured
    assert cold.scaling is not None and again.scaling is not None
    assert torch.equal(again.scaling[0], cold.scaling[0]) and torch.equal(again.scaling[1], cold.scaling[1])


def test_a_solve_goes_on_from_its_own_answer_when_it_is_told_the_scales() -> None:
    """Left alone it measures its gain where J_x^T mu + l_x vanishes, and its steps are far too long."""
    case = make(1, ridge=1e-6, batch=8)
    cold = case.solve(tolerance=CLOSE, max_steps=3000)
    assert bool(cold.converged.all()) and cold.scaling is not None
    start = {"x0": cold.x, "z0": cold.z, "multiplier": cold.multiplier, "tolerance": jiio.Tolerance(1e-5, 1e-4)}
    lost = case.solve(on_failure="ignore", **start)
    assert lost.scaling is not None and bool((lost.scaling[1] < 0.01 * cold.scaling[1]).any())
    assert not bool(lost.converged.all())
    again = case.solve(scaling=cold.scaling, **start)
    assert bool(again.converged.all()) and int(again.steps.max()) == 2 and gap(again.x, cold.x) < 1e-6


def test_given_scales_change_no_gradient() -> None:
    """They precondition the adjoint solve of the exact gradient as well."""
    weight = CASES["tanh"].W.clone().requires_grad_()
    found = []
    for scaling in (None, (torch.tensor(3.0), torch.tensor(0.7))):
        how = {"tolerance": jiio.Tolerance(1e-10, 1e-10), "adjoint": jiio.KKT(1e-10, 1000)}
        solution = CASES["tanh"].with_(W=weight).solve(scaling=scaling, **how)
        found.append(torch.autograd.grad(solution.z.square().sum() + solution.x.sum(), weight)[0])
    assert gap(found[0], found[1]) < 1e-6 and float(found[0].abs().max()) > 1e-3


@pytest.mark.parametrize("prox", [jiio.Identity(), jiio.SoftThreshold(0.1)], ids=lambda p: type(p).__name__)
def test_given_scales_change_the_way_and_not_the_answer(prox: jiio.AbstractProx) -> None:
    case = CASES["tanh"]
    measured = case.solve(prox, tolerance=CLOSE)
    given = case.solve(prox, tolerance=CLOSE, scaling=(torch.tensor(7.0), torch.full((len(case.x0), 1), 2.0)))
    assert bool(given.converged.all())
    assert gap(given.x, measured.x) < 1e-6 and gap(given.multiplier, measured.multiplier) < 1e-6


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
    assert torch.equal(join(solution.multiplier), multiplier(packed))
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


def test_unknown_scales_are_measured_and_known_ones_kept() -> None:
    """NaN stands for a sample that measures its own; its batch mates keep what they were given."""
    case = CASES["tanh"]
    own, nan = case.solve(tolerance=CLOSE), float("nan")
    batch = len(own.steps)
    assert own.scaling is not None
    given = torch.tensor([[3.0], [nan]]).repeat(batch, 1)[:batch].to(own.scaling[0])
    mixed = case.solve(tolerance=CLOSE, scaling=(given, given.clone()))
    assert mixed.scaling is not None
    for found, measured in zip(mixed.scaling, own.scaling, strict=True):
        assert bool((found[::2] == 3.0).all()) and torch.allclose(found[1::2], measured[1::2])
    assert gap(mixed.x, own.x) < 1e-6 and bool(mixed.converged.all())
