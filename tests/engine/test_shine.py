"""SHINE: the inverse that a solver has learnt, against closed forms; what it costs, refuses and keeps apart."""

# pyright: reportArgumentType=false, reportCallIssue=false
# Wrong types are the point of the last table.

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

import jiio
from bad_cases import Row, X, Z, cell, plain, problem, refused_in_one_sentence, solve
from helpers import central, gap, relative
from jiio import ArgumentError, ArgumentTypeError, GradientError, SecondDerivativeError
from problems import CASES, DOUBLE, TIGHT, make

ALWAYS = math.inf
EXACT = jiio.Anderson(ridge=1e-15)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


class Linear:
    """z = A_b z + x with a matrix of its own for every sample; the answer to a cotangent is (I - A^T)^-1 g."""

    def __init__(self, batch: int = 4, n: int = 3, radius: float = 0.6) -> None:
        a = draw(0, batch, n, n)
        self.a = radius * a / torch.linalg.matrix_norm(a, 2)[:, None, None]
        self.x, self.g = draw(1, batch, n).requires_grad_(), draw(2, batch, n)
        left = (torch.eye(n, dtype=DOUBLE) - self.a).transpose(1, 2)
        self.exact = torch.linalg.solve(left, self.g[:, :, None])[:, :, 0]

    def cell(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.bmm(self.a, z[:, :, None])[:, :, 0] + x

    def found(self, adjoint: jiio.AbstractAdjoint, solver: jiio.AbstractSolver = EXACT) -> tuple[Tensor, int]:
        """u, and the products with the Jacobian that it took."""
        start = torch.zeros_like(self.x)
        solution = jiio.equilibrium(self.cell, self.x, start, solver=solver, adjoint=adjoint, tolerance=TIGHT)
        (u,) = torch.autograd.grad((solution.z * self.g).sum(), self.x)
        return u, solution.evaluations.adjoint_vjp


SECANTS = [
    EXACT,
    jiio.Anderson(ridge=1e-15, kind="I"),
    jiio.Anderson(ridge=1e-15, mixing=0.5),
    jiio.Anderson(ridge=1e-15, kind="I", mixing=0.7),
    jiio.Anderson(ridge=1e-15, damping=0.6),
]


@pytest.mark.parametrize("solver", SECANTS, ids=str)
def test_secants_that_span_the_space_give_the_exact_gradient_without_a_product(solver: jiio.AbstractSolver) -> None:
    """n differences of a linear map determine it: -S Y^-1 = (I - A)^-1."""
    case = Linear()
    u, products = case.found(jiio.SHINE(fallback=ALWAYS), solver)
    assert products == 0 and gap(u, case.exact) < 1e-9


@pytest.mark.parametrize("solver", [jiio.Broyden(), jiio.Broyden(damping=0.7)], ids=str)
def test_one_secant_is_exact_where_the_state_is_one_number(solver: jiio.AbstractSolver) -> None:
    case = Linear(5, 1)
    u, products = case.found(jiio.SHINE(fallback=ALWAYS), solver)
    assert products == 0 and gap(u, case.exact) < 1e-9


def test_broyden_hands_over_the_dense_matrix_transposed() -> None:
    """Good Broyden, written with whole matrices: B += (s - B y) s^T B / (s^T B y), and u = -B^T g."""
    case = Linear(1, 4)
    v = torch.zeros(4, dtype=DOUBLE)
    b, last = -torch.eye(4, dtype=DOUBLE), None
    for _ in range(5):
        g = case.cell(v[None], case.x.detach())[0] - v
        if last is not None:
            s, y = v - last[0], g - last[1]
            b = b + torch.outer(s - b @ y, s @ b) / (s @ b @ y)
        last, v = (v, g), v - b @ g

    state, at = jiio.Broyden().init(torch.zeros(1, 4, dtype=DOUBLE)), torch.zeros(1, 4, dtype=DOUBLE)
    for _ in range(5):
        at, state = jiio.Broyden().step(at, case.cell(at, case.x.detach()), state)
    estimate = jiio.Broyden().inverse(state)
    assert gap(at[0], v) < 1e-12
    assert gap(estimate.transposed(case.g)[0], -b.T @ case.g[0]) < 1e-12
    assert gap(estimate(case.g)[0], -b @ case.g[0]) < 1e-12


@pytest.mark.parametrize("fallback", [ALWAYS, 1.8, 0.0])
@pytest.mark.parametrize("solver", [jiio.Anderson(1), jiio.Broyden(), jiio.Broyden(damping=0.7)], ids=str)
def test_refinement_ends_at_the_exact_gradient(solver: jiio.AbstractSolver, fallback: float) -> None:
    """Broyden's method ends in 2 n steps on a linear system of n unknowns; every one costs one product."""
    case = Linear()
    distances = []
    for refine in (0, 2, 6):
        u, products = case.found(jiio.SHINE(refine, fallback), solver)
        distances.append(gap(u, case.exact))
        assert products == refine
    assert distances[-1] < 1e-10 and distances[0] > 1e-2 and distances[1] > 1e-8


def test_a_curved_cell_agrees_with_finite_differences() -> None:
    case = make(0, act="tanh", batch=2, n=5, k=2)
    weight, w = case.W.clone().requires_grad_(), draw(3, 2, 5)

    def total(matrix: Tensor, adjoint: jiio.AbstractAdjoint) -> Tensor:
        found = jiio.equilibrium(
            case.with_(W=matrix).cell, case.x0 + 0.3, case.z0, adjoint=adjoint, tolerance=TIGHT, solver=jiio.Broyden()
        )
        return (found.z * w).sum()

    (given,) = torch.autograd.grad(total(weight, jiio.SHINE(refine=14)), weight)
    direction = draw(4, 5, 5)
    slope = central(lambda matrix: total(matrix, jiio.Detached()), case.W, direction)
    assert relative(float((given * direction).sum()), slope) < 1e-7


def test_without_faith_it_is_jacobian_free() -> None:
    case = Linear()
    u, products = case.found(jiio.SHINE(fallback=0.0))
    assert products == 0 and torch.equal(u, case.g)


def test_the_fallback_is_decided_for_each_sample() -> None:
    """z = a z + x: the answer is g / (1 - a), 1.25 and 5 times as long as g; 1.8 lies between."""
    rate = torch.tensor([[0.2], [0.8]], dtype=DOUBLE)
    x = torch.ones(2, 1, dtype=DOUBLE, requires_grad=True)
    found = jiio.equilibrium(lambda z, x: rate * z + x, x, torch.zeros_like(x), adjoint=jiio.SHINE(), solver=EXACT)
    (u,) = torch.autograd.grad(found.z.sum(), x)
    assert gap(u[:, 0], torch.tensor([1.25, 1.0], dtype=DOUBLE)) < 1e-9


@pytest.mark.parametrize("solver", [jiio.Broyden(memory=4), jiio.Anderson(memory=4)], ids=str)
@pytest.mark.parametrize("refine", [0, 3])
def test_slow_mates_change_no_gradient(solver: jiio.AbstractSolver, refine: int) -> None:
    """A sample that has ended stands still for twenty steps; its memory must not fill up with that."""
    rate = torch.tensor([0.1, 1.5], dtype=DOUBLE)
    turn, x, g = draw(0, 5, 5), draw(1, 2, 5), draw(2, 2, 5)
    turn = turn / torch.linalg.matrix_norm(turn, 2)

    def gradient(rows: list[int]) -> tuple[Tensor, int]:
        at = x[rows].clone().requires_grad_()
        cell = lambda z, x: torch.tanh(rate[rows, None] * z @ turn + x)  # noqa: E731
        adjoint = jiio.SHINE(refine, ALWAYS)
        found = jiio.equilibrium(cell, at, torch.zeros_like(at), solver=solver, adjoint=adjoint, tolerance=TIGHT)
        return torch.autograd.grad((found.z * g[rows]).sum(), at)[0], int(found.steps.max())

    (alone, few), (together, many) = gradient([0]), gradient([0, 1])
    assert many > few + 4 and gap(alone[0], together[0]) < 1e-12


def test_a_sample_without_numbers_spoils_nobody() -> None:
    case = Linear()
    expected, _ = case.found(jiio.SHINE(2))
    case.x = case.x.detach().clone()
    case.x[1, 0] = float("nan")
    case.x.requires_grad_()
    start = torch.zeros_like(case.x)
    settings = jiio.SolveSettings(EXACT, jiio.SHINE(2), TIGHT, on_failure="ignore")
    found = jiio.equilibrium(case.cell, case.x, start, **settings.arguments())
    others = torch.tensor([0, 2, 3])
    (u,) = torch.autograd.grad((found.z * case.g)[others].sum(), case.x)
    assert gap(u[others], expected[others]) < 1e-10 and bool((u[1] == 0).all())


def test_an_unfinished_solve_still_shares_what_it_has() -> None:
    case = CASES["tanh"]
    x = draw(0, *case.x0.shape).requires_grad_()
    found = jiio.equilibrium(case.cell, x, case.z0, adjoint=jiio.SHINE(), max_steps=3, on_failure="ignore")
    (u,) = torch.autograd.grad(found.z.sum(), x)
    assert bool(u.isfinite().all()) and float(u.abs().max()) > 0


def test_one_object_serves_many_solves_and_second_derivatives_are_refused() -> None:
    adjoint, case = jiio.SHINE(refine=1), CASES["tanh"]
    x = draw(0, *case.x0.shape).requires_grad_()
    first, second = (jiio.equilibrium(case.cell, scale * x, case.z0, adjoint=adjoint) for scale in (1.0, 2.0))
    (a,) = torch.autograd.grad(first.z.sum(), x)
    (b,) = torch.autograd.grad(second.z.sum(), x, retain_graph=True)
    again = jiio.equilibrium(case.cell, x, case.z0, adjoint=copy.deepcopy(adjoint))
    assert gap(torch.autograd.grad(again.z.sum(), x)[0], a) == 0 and gap(a, b) > 0
    assert adjoint == jiio.SHINE(1) and adjoint.keeper is None
    with pytest.raises(SecondDerivativeError, match="SHINE"):
        torch.autograd.grad(second.z.sum(), x, create_graph=True)


class Plain(jiio.AbstractSolver):
    """Somebody's own solver, which learns nothing."""

    def init(self, v: Tensor) -> None:
        return None

    def step(self, v: Tensor, fv: Tensor, state: None) -> tuple[Tensor, None]:
        return fv, None


SHINE = jiio.SHINE
BAD: dict[str, Row] = {
    "refine negative": (lambda: SHINE(-1), ArgumentError, "SHINE.refine", "at least 0"),
    "refine a half": (lambda: SHINE(0.5), ArgumentTypeError, "SHINE.refine", "whole number"),
    "refine a word": (lambda: SHINE("two"), ArgumentTypeError, "SHINE.refine", "whole number"),
    "refine yes": (lambda: SHINE(True), ArgumentTypeError, "SHINE.refine", "whole number"),
    "refine nothing": (lambda: SHINE(None), ArgumentTypeError, "SHINE.refine", "whole number"),
    "fallback negative": (lambda: SHINE(0, -0.1), ArgumentError, "SHINE.fallback", "at least 0"),
    "fallback NaN": (lambda: SHINE(0, float("nan")), ArgumentError, "SHINE.fallback", "at least 0"),
    "fallback a word": (lambda: SHINE(0, "never"), ArgumentTypeError, "SHINE.fallback", "number"),
    "fallback a tensor": (lambda: SHINE(0, Z), ArgumentTypeError, "SHINE.fallback", "number"),
    "a solver that learns nothing": (
        lambda: plain(adjoint=SHINE(), solver=jiio.Picard()),
        GradientError,
        "solver",
        "Picard",
    ),
    "somebody's solver": (lambda: plain(adjoint=SHINE(), solver=Plain()), GradientError, "solver", "Plain"),
    "a joint solve": (lambda: solve(problem(), adjoint=SHINE()), GradientError, "adjoint", "Envelope"),
    "the class itself": (lambda: plain(adjoint=SHINE), ArgumentTypeError, "adjoint", "not the class"),
    "without a solve": (
        lambda: SHINE().attach_equilibrium(cell, X, plain(adjoint=jiio.Detached())),
        GradientError,
        "adjoint",
        "jiio.equilibrium",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused_is_refused_in_one_sentence(case: str) -> None:
    refused_in_one_sentence(BAD[case])
