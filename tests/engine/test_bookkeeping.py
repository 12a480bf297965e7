"""Feasibility of whatever is returned, counts, traces, statuses and failures."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import jiio
from helpers import (
    gap,
    multiplier,
    nested,
    state,
)
from jiio import Status
from problems import (
    ADJOINTS,
    CASES,
    CLOSE,
    DOUBLE,
    make,
    mixed,
    per_sample,
)

# -- feasibility

BALLS = {"L1": jiio.L1Ball, "L2": jiio.L2Ball, "Linf": jiio.LinfBall}


def sets(name: str, radius: Tensor, center: Tensor) -> jiio.AbstractProx:
    box = jiio.Box(center - 0.7 * radius[:, None], center + 0.4 * radius[:, None])
    if name == "box":
        return box
    if name.endswith("and box"):
        return jiio.Intersection(BALLS[name.split()[0]](radius, center=center), box)
    return BALLS[name](radius, center=center)


@settings(max_examples=250, deadline=None)
@given(
    name=st.sampled_from(["box", "L1", "L2", "Linf", "L2 and box", "L1 and box"]),
    kind=st.sampled_from(["I", "II"]),
    steps=st.integers(2, 10),
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


def test_a_solution_prints_as_one_line() -> None:
    case = mixed()
    solution = case.solve(tolerance=jiio.Tolerance(1e-4, 1e-3), max_steps=20, on_failure="ignore")
    text, done = repr(solution), int(solution.converged.sum())
    assert str(solution) == text and "\n" not in text and len(text) < 200
    assert 0 < done < 32 and f"Solution({done} CONVERGED, {32 - done} MAX_STEPS; worst residual z " in text
    worst = {name: f"{name} {float(solution.residual[:, k].max()):.1e}" for k, name in enumerate(solution.blocks)}
    assert all(word in text for word in worst.values())
    assert text.endswith(f"; {solution.evaluations.cell} evaluations, 22 VJPs, 20 steps)")


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
    assert gap(solution.x, case.x0 + 0.5) == 0.0 and not multiplier(solution).any()


@pytest.mark.parametrize("memory", [1, 2, 60])
def test_extreme_memories_run(memory: int) -> None:
    for solver in (jiio.Anderson(memory=memory), jiio.Anderson(memory=memory, kind="I"), jiio.Broyden(memory=memory)):
        solution = CASES["linear"].solve(solver=solver, max_steps=2000, tolerance=jiio.Tolerance(1e-6, 1e-6))
        assert gap(solution.x, nested("linear", "none")) < 1e-4
