"""The solvers alone, without a network: against textbook iterations, dense solves, and hostile histories."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import jiio
from helpers import gap
from problems import DOUBLE

SOLVERS = [
    jiio.Picard(),
    jiio.Anderson(),
    jiio.Anderson(kind="I"),
    jiio.Anderson(memory=3, mixing=0.7),
    jiio.Broyden(),
    jiio.Broyden(memory=3),
]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def linear(seed: int, batch: int, n: int, radius: float = 0.7) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """v -> A v + b, its own A for every sample, and the fixed point."""
    a = draw(seed, batch, n, n)
    a = radius * a / torch.linalg.matrix_norm(a, 2)[:, None, None]
    b = draw(seed + 1, batch, n)
    fixed = torch.linalg.solve(torch.eye(n, dtype=DOUBLE) - a, b.unsqueeze(2))[:, :, 0]
    return lambda v: torch.bmm(a, v.unsqueeze(2))[:, :, 0] + b, fixed


def run(solver: jiio.AbstractSolver, function: Callable[[Tensor], Tensor], v: Tensor, steps: int) -> list[Tensor]:
    state, points = solver.init(v), [v]
    for _ in range(steps):
        v, state = solver.step(v, function(v), state)
        points.append(v)
    return points


@pytest.mark.parametrize("taped", [False, True])
@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_solver_finds_the_fixed_point(solver: jiio.AbstractSolver, taped: bool) -> None:
    function, fixed = linear(0, 4, 8)
    with torch.set_grad_enabled(taped):
        v = run(solver, function, torch.zeros(4, 8, dtype=DOUBLE), 90)[-1]
    assert gap(v, fixed) < 1e-9


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_recording_a_graph_changes_nothing(solver: jiio.AbstractSolver) -> None:
    function, _ = linear(0, 3, 6)
    with torch.no_grad():
        plain = run(solver, function, draw(5, 3, 6), 12)
    taped = run(solver, function, draw(5, 3, 6).requires_grad_(), 12)
    assert all(gap(a, b) < 1e-12 for a, b in zip(plain, taped, strict=True))


@pytest.mark.parametrize("kind", ["I", "II"])
def test_anderson_is_the_textbook_iteration(kind: str) -> None:
    """gamma from a dense least-squares (II) or Galerkin (I) problem over the last m differences."""
    function, _ = linear(3, 1, 6)
    curved = lambda v: torch.tanh(function(v))  # noqa: E731
    m, beta = 3, 0.8
    with torch.no_grad():
        found = run(jiio.Anderson(memory=m, kind=kind, ridge=0.0, mixing=beta), curved, draw(1, 1, 6), 9)
    v = draw(1, 1, 6)[0]
    points, residuals = [], []
    for k in range(10):
        assert gap(found[k][0], v) < 1e-8
        g = curved(v[None])[0] - v
        points.append(v)
        residuals.append(g)
        recent = slice(-m - 1, None)
        if k == 0:
            v = v + beta * g
            continue
        s = torch.stack([q - p for p, q in zip(points[recent], points[recent][1:], strict=False)], 1)  # (n, m)
        y = torch.stack([q - p for p, q in zip(residuals[recent], residuals[recent][1:], strict=False)], 1)
        left = s if kind == "I" else y
        gamma = torch.linalg.solve(left.T @ y, left.T @ g)
        v = v + beta * g - (s + beta * y) @ gamma


def test_anderson_ends_on_a_linear_map_as_gmres_does() -> None:
    function, fixed = linear(7, 5, 6, radius=3.0)  # plain iteration would explode
    with torch.no_grad():
        points = run(jiio.Anderson(memory=12, ridge=0.0), function, torch.zeros(5, 6, dtype=DOUBLE), 8)
    assert gap(points[-1], fixed) < 1e-6 < gap(points[4], fixed)


def test_broyden_is_the_dense_good_update() -> None:
    function, _ = linear(3, 1, 6)
    curved = lambda v: torch.tanh(function(v))  # noqa: E731
    with torch.no_grad():
        found = run(jiio.Broyden(), curved, draw(1, 1, 6), 9)
    v, inverse = draw(1, 1, 6)[0], -torch.eye(6, dtype=DOUBLE)
    g = curved(v[None])[0] - v
    for k in range(9):
        assert gap(found[k][0], v) < 1e-9
        moved = v - inverse @ g
        g_new = curved(moved[None])[0] - moved
        s, y = moved - v, g_new - g
        inverse = inverse + torch.outer(s - inverse @ y, s @ inverse) / (s @ inverse @ y)
        v, g = moved, g_new


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_a_sample_never_hears_of_its_neighbours(solver: jiio.AbstractSolver) -> None:
    function, _ = linear(0, 6, 5)
    start = draw(2, 6, 5) * torch.logspace(-6, 6, 6, dtype=DOUBLE)[:, None]

    def row(i: int) -> Callable[[Tensor], Tensor]:
        return lambda v: function(torch.zeros(6, 5, dtype=DOUBLE).index_copy(0, torch.tensor([i]), v))[i : i + 1]

    with torch.no_grad():
        whole = run(solver, function, start, 10)
        for i in range(6):
            alone = run(solver, row(i), start[i : i + 1], 10)
            for a, b in zip(alone, whole, strict=True):
                assert gap(a[0], b[i]) <= 1e-9 * float(start[i].abs().max() + 1)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_nan_stays_in_its_sample(solver: jiio.AbstractSolver) -> None:
    function, _ = linear(0, 3, 5)
    start = draw(2, 3, 5)

    def spoilt(v: Tensor) -> Tensor:
        return function(v).index_fill(0, torch.tensor([1]), float("nan"))

    with torch.no_grad():
        clean, dirty = run(solver, function, start, 8)[-1], run(solver, spoilt, start, 8)[-1]
    assert gap(clean[[0, 2]], dirty[[0, 2]]) < 1e-12


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_standing_still_is_no_trouble(solver: jiio.AbstractSolver) -> None:
    """A sample that starts at its fixed point gives differences of zero for ever."""
    function, fixed = linear(0, 2, 5)
    start = torch.stack([fixed[0], draw(3, 5)])
    with torch.no_grad():
        points = run(solver, lambda v: torch.where(torch.tensor([[True], [False]]), v, function(v)), start, 70)
    assert all(torch.equal(p[0], fixed[0]) for p in points)
    assert gap(points[-1][1], fixed[1]) < 1e-8
    still = run(solver, lambda v: v, start, 5)
    assert all(torch.equal(p, start) for p in still)


@pytest.mark.parametrize("solver", [s for s in SOLVERS if not isinstance(s, jiio.Picard)], ids=str)
def test_restart_forgets(solver: jiio.AbstractSolver) -> None:
    """After a restart the next step is the plain (mixed) one for the samples concerned; no other sample notices."""
    function, _ = linear(0, 2, 6)
    with torch.no_grad():
        v, state = draw(1, 2, 6), solver.init(draw(1, 2, 6))
        for _ in range(5):
            v, state = solver.step(v, function(v), state)
        usual, _ = solver.step(v, function(v), clone(state))
        fresh, _ = solver.step(v, function(v), solver.restart(clone(state), torch.tensor([True, False])))
    mixing = getattr(solver, "mixing", 1.0)
    assert gap(fresh[0], torch.lerp(v, function(v), mixing)[0]) < 1e-12 < gap(fresh[0], usual[0])
    assert torch.equal(fresh[1], usual[1])


def clone(state):
    return type(state)(*(part.clone() if isinstance(part, Tensor) else part for part in state))


def test_anderson_takes_the_plain_step_where_its_coefficients_explode() -> None:
    """Two residuals that differ by rounding alone have no direction to offer."""
    v = torch.zeros(1, 4, dtype=DOUBLE)
    solver = jiio.Anderson(limit=10.0, ridge=0.0)
    state = solver.init(v)
    with torch.no_grad():
        g = draw(0, 1, 4)
        first, state = solver.step(v, v + g, state)
        following, state = solver.step(first, first + g * (1 + 1e-9), state)
    assert gap(following, first + g) < 1e-6
    assert not state.valid.any()


def test_the_ridge_means_the_same_for_small_differences() -> None:
    """Type I near the end of a solve: the newest row of the small system is far below the ridge of the others."""
    gram = torch.tensor([[[1.0, 1.0], [1e-10, 2e-10]]], dtype=DOUBLE)
    right = torch.tensor([[3.0, 5e-10]], dtype=DOUBLE)
    gamma, failed = jiio.Anderson(memory=2, kind="I")._coefficients(gram, right, torch.ones(1, 2, dtype=torch.bool))
    assert not bool(failed) and gap(gamma, torch.tensor([[1.0, 2.0]], dtype=DOUBLE)) < 1e-6


def test_damping_is_part_of_the_map() -> None:
    cell = lambda z, x: 0.5 * z + x  # noqa: E731
    x = draw(0, 2, 3)
    for damping in (0.5, {"z": 0.5}, {"z": 0.5, "mu": 0.1}):
        solution = jiio.equilibrium(cell, x, 0 * x, solver=jiio.Picard(damping), trace="points", on_failure="ignore")
        assert solution.trace is not None
        assert gap(solution.trace.z[1], 0.5 * x) < 1e-15 and gap(solution.z, 2 * x) < 1e-3


# -- MINRES


def symmetric(seed: int, batch: int, n: int) -> Tensor:
    """Indefinite, with eigenvalues in +-[0.3, 3]."""
    q = torch.linalg.qr(draw(seed, batch, n, n))[0]
    size = 0.3 + 2.7 * torch.rand(batch, n, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    signs = torch.where(torch.arange(n) % 3 == 0, -1.0, 1.0).double()
    return q @ torch.diag_embed(size * signs) @ q.transpose(1, 2)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 20), batch=st.integers(1, 4), size=st.floats(1e-8, 1e8))
def test_minres_equals_the_dense_solve(seed: int, n: int, batch: int, size: float) -> None:
    a, b = symmetric(seed, batch, n), draw(seed + 1, batch, n) * size
    x, residual, products = jiio.minres(
        lambda v: torch.bmm(a, v.unsqueeze(2))[:, :, 0], b, rtol=1e-12, max_steps=8 * n + 8
    )
    exact = torch.linalg.solve(a, b.unsqueeze(2))[:, :, 0]
    assert gap(x, exact) < 1e-8 * size * (1 + float(exact.abs().max()) / size)
    assert bool((residual <= 1e-10).all()) and bool((products <= 8 * n + 8).all())


def test_minres_reports_the_residual_it_has_and_never_raises_it() -> None:
    a, b = symmetric(0, 3, 30), draw(1, 3, 30)
    matvec = lambda v: torch.bmm(a, v.unsqueeze(2))[:, :, 0]  # noqa: E731
    before = torch.full((3,), 1.0, dtype=DOUBLE)
    for steps in range(1, 25):
        x, residual, products = jiio.minres(matvec, b, rtol=1e-14, max_steps=steps)
        true = (b - matvec(x)).norm(dim=1) / b.norm(dim=1)
        assert gap(residual, true) < 1e-9 and bool((residual <= before + 1e-12).all())
        assert products.tolist() == [steps] * 3
        before = residual


def test_minres_samples_stop_for_themselves() -> None:
    easy, hard = torch.eye(12, dtype=DOUBLE) * 2, symmetric(0, 1, 12)[0]
    a, b = torch.stack([easy, hard, hard, hard]), draw(1, 4, 12)
    b[2] = 0.0
    b[3] = float("nan")
    matvec = lambda v: torch.bmm(a, v.unsqueeze(2))[:, :, 0]  # noqa: E731
    x, residual, products = jiio.minres(matvec, b, rtol=1e-10, max_steps=200)
    assert int(products[0]) == 1 < int(products[1]) <= 40 and int(products[2]) == 0
    assert torch.equal(x[2], torch.zeros(12, dtype=DOUBLE)) and float(residual[2]) == 0
    alone, _, _ = jiio.minres(lambda v: v @ hard, b[1:2], rtol=1e-10, max_steps=200)
    assert gap(alone[0], x[1]) < 1e-10 and gap(x[0], b[0] / 2) < 1e-14


def test_minres_solves_consistent_singular_systems() -> None:
    a = symmetric(0, 1, 10)[0]
    q = torch.linalg.qr(draw(4, 10, 10))[0][:, :6]
    singular = q @ a[:6, :6] @ q.T
    b = (singular @ draw(2, 10))[None]
    x, residual, _ = jiio.minres(lambda v: v @ singular, b, rtol=1e-12, max_steps=60)
    assert gap(x @ singular, b) < 1e-9 and float(residual) < 1e-10
    assert gap(x, (torch.linalg.pinv(singular) @ b[0])[None]) < 1e-8  # and of least length
