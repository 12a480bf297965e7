"""The damping that is measured: on problems where the right one is known, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from problems import DOUBLE, TIGHT

STATES, INPUTS, BATCH = 5, 3, 2
SOLVED: dict[str, Any] = {"tolerance": TIGHT, "max_steps": 2000, "adjoint": jiio.Detached()}
UNITS = (torch.full((), 2.0, dtype=DOUBLE), torch.full((), 3.0, dtype=DOUBLE))  # sigma kappa = 6


class Linear:
    """z = A z + B x + b with 1/2 |z - t|^2 + 1/2 rho |x|^2: everything is known in closed form."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(3)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=DOUBLE)

        self.A, self.B, self.b = 0.2 * normal(STATES, STATES), normal(STATES, INPUTS), normal(STATES)
        self.t, self.rho = normal(BATCH, STATES), 0.5
        self.G = torch.linalg.inv(torch.eye(STATES, dtype=DOUBLE) - self.A)  # dz/db with x held
        self.S = self.G @ self.B
        self.H = self.S.T @ self.S + self.rho * torch.eye(INPUTS, dtype=DOUBLE)

    def problem(self, stiffness: float = 0.0, middle: Tensor | None = None) -> jiio.Problem:
        """With 1/2 stiffness |x - middle|^2 beside."""

        def objective(z: Tensor, x: Tensor) -> Tensor:
            held = 0.0 if middle is None else 0.5 * stiffness * (x - middle).square().sum(1)
            return 0.5 * (z - self.t).square().sum(1) + 0.5 * self.rho * x.square().sum(1) + held

        return jiio.Problem(lambda z, x: z @ self.A.T + x @ self.B.T + self.b, objective)

    def solved(self, stiffness: float = 0.0, middle: Tensor | None = None, **settings: Any) -> jiio.Solution:
        x0, z0 = torch.zeros(BATCH, INPUTS, dtype=DOUBLE), torch.zeros(BATCH, STATES, dtype=DOUBLE)
        given: dict[str, Any] = SOLVED | {"scaling": UNITS} | settings
        return jiio.solve(self.problem(stiffness, middle), x0, z0, **given)


def moved(levenberg: jiio.Levenberg, stiffness: float) -> dict[float, float]:
    """A step of b, after which solutions move as if x were held with this stiffness."""
    case = Linear()
    old = case.solved()
    levenberg.before(case.problem(), old)
    case.b = case.b + 0.3
    return levenberg.after(case.problem(), case.solved(stiffness, old.x))


@pytest.mark.parametrize("damping", [0.0, 0.7])
@pytest.mark.parametrize("field", ["z", "x"])
def test_a_damped_gradient_in_closed_form(damping: float, field: str) -> None:
    """On a quadratic dx*/db = -(H + delta)^-1 S^T G and dz*/db = G + S dx*/db, delta = 6 times the damping."""
    case = Linear()
    case.b.requires_grad_()
    solution = case.solved(adjoint=jiio.KKT(rtol=1e-13, max_steps=500, damping=damping))
    weights = torch.arange(1.0, 1.0 + getattr(solution, field).shape[1], dtype=DOUBLE)
    (found,) = torch.autograd.grad((getattr(solution, field) * weights).sum(), case.b)

    held = case.H + 6.0 * damping * torch.eye(INPUTS, dtype=DOUBLE)
    slope = -torch.linalg.solve(held, case.S.T @ case.G)
    expected = {"x": slope, "z": case.G + case.S @ slope}[field]
    torch.testing.assert_close(found, BATCH * weights @ expected, rtol=1e-8, atol=1e-8)


def test_where_the_response_is_linear_no_damping_is_right() -> None:
    levenberg = jiio.Levenberg(0.2, low=1e-2, rtol=1e-12, max_steps=500)
    errors = moved(levenberg, 0.0)
    assert levenberg.damping == pytest.approx(0.05) and sorted(errors) == pytest.approx([0.05, 0.2, 0.8])
    moved(levenberg, 0.0)
    errors = moved(levenberg, 0.0)
    assert levenberg.damping == 0.01 and min(errors) == 0.01  # no further than it may


@pytest.mark.parametrize("begin", [0.5, 2.0, 8.0])
def test_where_solutions_are_held_the_damping_says_how_stiffly(begin: float) -> None:
    levenberg = jiio.Levenberg(begin, rtol=1e-12, max_steps=500)
    errors = moved(levenberg, 12.0)  # 2 in units of sigma kappa
    assert levenberg.damping == 2.0 and errors[2.0] < 1e-8 < min(e for d, e in errors.items() if d != 2.0)


def test_it_is_the_damping_with_which_the_gradient_holds() -> None:
    """The chosen gradient of a loss on x foresees what the loss does in the step; the undamped one does not."""
    case, levenberg = Linear(), jiio.Levenberg(2.0)
    case.b.requires_grad_()
    old = case.solved()
    moved(levenberg, 12.0)

    step = torch.full_like(case.b, 0.3)
    foreseen = {}
    for damping in (0.0, levenberg.damping):
        x = case.solved(adjoint=jiio.KKT(rtol=1e-13, max_steps=500, damping=damping)).x
        foreseen[damping] = float((torch.autograd.grad(x.sum(), case.b)[0] * step).sum())
    with torch.no_grad():
        case.b += step
    change = float((case.solved(12.0, old.x).x - old.x).sum())
    assert foreseen[levenberg.damping] == pytest.approx(change, rel=1e-6) and abs(foreseen[0.0] / change) > 1.5


def test_samples_without_numbers_say_nothing() -> None:
    """A broken sample changes neither the errors of the others nor the choice."""
    case, levenberg = Linear(), jiio.Levenberg(2.0, rtol=1e-12, max_steps=500)
    old = case.solved()
    levenberg.before(case.problem(), old)
    case.b = case.b + 0.3
    new = case.solved(12.0, old.x)
    broken = torch.tensor([0, int(jiio.Status.NONFINITE)]).to(new.status)
    x = torch.stack([new.x[0], torch.full((INPUTS,), torch.nan, dtype=DOUBLE)])
    status = torch.where(broken > 0, broken, new.status)
    assert levenberg.after(case.problem(), dataclasses.replace(new, x=x, status=status))[2.0] < 1e-8


def test_where_nothing_moves_the_damping_stays() -> None:
    case, levenberg = Linear(), jiio.Levenberg(0.3)
    old = case.solved()
    levenberg.before(case.problem(), old)
    assert levenberg.after(case.problem(), old) == {} and levenberg.damping == 0.3


def test_before_comes_first_and_once() -> None:
    case, levenberg = Linear(), jiio.Levenberg()
    solution = case.solved()
    with pytest.raises(jiio.GradientError, match=r"Levenberg\.after: expected a solution from before the step"):
        levenberg.after(case.problem(), solution)
    levenberg.before(case.problem(), solution)
    levenberg.after(case.problem(), solution)
    with pytest.raises(jiio.GradientError, match="Call before"):
        levenberg.after(case.problem(), solution)


def test_other_samples_are_refused() -> None:
    case, levenberg = Linear(), jiio.Levenberg()
    solution = case.solved()
    levenberg.before(case.problem(), solution)
    with pytest.raises(jiio.GradientError, match="the same 2 samples as before, got a batch of 1"):
        levenberg.after(case.problem(), solution.rows([0]))


def test_an_equilibrium_has_nothing_to_hold() -> None:
    case = Linear()
    x0, z0 = torch.zeros(BATCH, INPUTS, dtype=DOUBLE), torch.zeros(BATCH, STATES, dtype=DOUBLE)
    found = jiio.equilibrium(case.problem().cell, x0, z0)
    with pytest.raises(jiio.GradientError, match=r"a solution of jiio\.solve"):
        jiio.Levenberg().before(case.problem(), found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("damping", 0.0),
        ("damping", 1e4),
        ("factor", 1.0),
        ("low", 0.0),
        ("high", 1e-9),
        ("rtol", -1.0),
        ("max_steps", 0),
    ],
)
def test_bad_settings_are_refused(name: str, value: Any) -> None:
    with pytest.raises(jiio.ArgumentError, match=rf"Levenberg\.{name}: expected"):
        jiio.Levenberg(**{name: value})


@pytest.mark.parametrize("call", ["before", "after"])
def test_what_is_no_problem_or_no_solution_is_told(call: str) -> None:
    case, levenberg = Linear(), jiio.Levenberg()
    levenberg.before(case.problem(), case.solved())
    for arguments, word in (((case.problem(), 3), "solution"), ((None, case.solved()), "problem")):
        with pytest.raises(jiio.ArgumentTypeError, match=f"{word}: expected an instance of"):
            getattr(levenberg, call)(*arguments)
        levenberg.before(case.problem(), case.solved())
