"""What a cell may not do: write to what it is given or gave; what does not matter: keys, threads, modes, exceptions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import jiio
from helpers import gap
from jiio import CellError
from jiio.holding import held_fixed

DOUBLE = torch.float64
W = 0.5 * torch.linalg.qr(torch.randn(6, 6, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))).Q
U = torch.randn(4, 6, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
Z = torch.zeros(4, 6, dtype=DOUBLE)
X = torch.zeros(4, 1, dtype=DOUBLE)
BUFFER = torch.empty(4, 6, dtype=DOUBLE)


def good(z: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(z @ W + U + x)


def writes(z: Tensor, x: Tensor) -> Tensor:
    z.copy_(good(z.clone(), x))
    return z


def adds(z: Tensor, x: Tensor) -> Tensor:
    z += 0.5 * (good(z.clone(), x) - z)
    return z


def clips_a_view(z: Tensor, x: Tensor) -> Tensor:
    z[:, :3].t()[0].clamp_(0.0)
    return good(z, x) + 0.1


def hides_behind_data(z: Tensor, x: Tensor) -> Tensor:
    z.data.relu_()
    return good(z, x) + 0.1


def writes_to_x(z: Tensor, x: Tensor) -> Tensor:
    x.add_(1.0)
    return good(z, x)


def one_buffer(z: Tensor, x: Tensor) -> Tensor:
    return BUFFER.copy_(good(z, x).detach())


def one_buffer_behind_data(z: Tensor, x: Tensor) -> Tensor:
    BUFFER.data.copy_(good(z, x).detach())
    return BUFFER


def forgets_what_autograd_needs(z: Tensor, x: Tensor) -> Tensor:
    h = torch.tanh(z @ W + U + x)
    h.add_(0.1)
    return h * 0.9


CELLS: list[Callable[[Any, Any], Any]] = [
    writes,
    adds,
    clips_a_view,
    hides_behind_data,
    writes_to_x,
    one_buffer,
    one_buffer_behind_data,
]


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize("solver", [jiio.Anderson(), jiio.Picard(), jiio.Broyden()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.__name__)
def test_a_cell_that_works_in_place_is_refused(cell: Any, solver: jiio.AbstractSolver, grad: bool) -> None:
    with torch.set_grad_enabled(grad), pytest.raises(CellError, match="in place"):
        jiio.equilibrium(cell, X.clone(), Z.clone(), solver=solver, on_failure="ignore")


@pytest.mark.parametrize("first", [1, 2, 5])
def test_work_in_place_that_begins_late_is_noticed(first: int) -> None:
    """After the first calls the counters of torch alone tell, which cost nothing."""
    calls = [0]

    def cell(z: Tensor, x: Tensor) -> Tensor:
        calls[0] += 1
        new = torch.tanh(z @ W + U + x)
        return z.copy_(new) if calls[0] >= first else new

    with torch.no_grad(), pytest.raises(CellError, match="in place"):
        jiio.equilibrium(cell, X.clone(), Z.clone(), on_failure="ignore")
    assert calls[0] == first


@pytest.mark.parametrize("cell", [*CELLS, forgets_what_autograd_needs], ids=lambda c: c.__name__)
def test_in_a_joint_solve_too(cell: Any) -> None:
    problem = jiio.Problem(lambda z, x: cell(z, x) + 0 * x, lambda z, x: (z - 0.1).square().sum(1) + x.square().sum(1))
    if cell in (one_buffer, one_buffer_behind_data):
        problem = jiio.Problem(cell, problem.objective)
    with pytest.raises(CellError, match="in place"):
        jiio.solve(problem, X.clone(), Z.clone(), on_failure="ignore", max_steps=20)


def test_in_place_in_inference_mode_in_an_adjoint_and_in_an_objective() -> None:
    with torch.inference_mode(), pytest.raises(CellError, match="in place"):
        jiio.equilibrium(writes, X.clone(), Z.clone())
    with pytest.raises(CellError, match="in place"):
        jiio.solution_at(jiio.Problem(clips_a_view, lambda z, x: z.sum(1)), X.clone(), Z.clone())

    def objective(z: Tensor, x: Tensor) -> Tensor:
        z.relu_()
        return z.sum(1)

    with pytest.raises(CellError, match=r"objective: .* in place"):
        jiio.solve(jiio.Problem(good, objective), X, Z, on_failure="ignore")


def test_what_is_allowed() -> None:
    """To return the state, the input or a constant; to work in place on what is its own."""
    constant = torch.full((1, 6), 0.3, dtype=DOUBLE)

    def own(z: Tensor, x: Tensor) -> Tensor:
        return (z @ W).add_(U).tanh_()

    for cell in (lambda z, x: z, lambda z, x: x.expand(4, 6), lambda z, x: constant.expand(4, 6), own):
        assert bool(jiio.equilibrium(cell, X, Z).converged.all())
    exact = jiio.equilibrium(good, X, Z, tolerance=jiio.Tolerance(1e-10, 1e-10)).z
    assert gap(jiio.equilibrium(own, X, Z, tolerance=jiio.Tolerance(1e-10, 1e-10)).z, exact) < 1e-9


def test_dicts_are_read_by_their_keys() -> None:
    """Whatever order a cell returns them in, and at which call."""
    calls = [0]

    def cell(z: dict[str, Tensor], x: Tensor) -> dict[str, Any]:
        calls[0] += 1
        new = {"a": 0.5 * z["a"], "b": [good(z["b"][0], x)]}
        return new if calls[0] % 2 else dict(reversed(new.items()))

    tight = jiio.Tolerance(1e-9, 1e-9)
    solution = jiio.equilibrium(cell, X, {"a": Z + 1, "b": [Z]}, tolerance=tight)
    assert list(solution.z) == ["a", "b"]
    assert gap(solution.z["b"][0], jiio.equilibrium(good, X, Z, tolerance=tight).z) < 1e-8
    problem = jiio.Problem(cell, lambda z, x: (z["b"][0] - 0.2).square().sum(1) + x.square().sum(1))
    joint = jiio.solve(problem, X, {"a": Z + 1, "b": [Z]}, multiplier={"b": [Z], "a": Z}, tolerance=tight)
    alone = jiio.Problem(good, lambda z, x: (z - 0.2).square().sum(1) + x.square().sum(1))
    assert gap(joint.x, jiio.solve(alone, X, Z, tolerance=tight).x) < 1e-6


class Weighted(nn.Module):
    """A cell with a parametrised weight, which may raise."""

    def __init__(self, fails_at: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = parametrizations.weight_norm(nn.Linear(6, 6)).double()
        self.fails_at, self.calls = fails_at, 0

    @property
    def weight(self) -> Tensor:
        return self.linear.weight  # type: ignore[return-value]

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.fails_at:
            self.eval()
            torch.set_grad_enabled(False)
            raise ZeroDivisionError
        return torch.tanh(0.3 * self.linear(z) + U + x)


@pytest.mark.parametrize("grad", [True, False])
def test_the_mode_of_gradients_is_that_of_the_caller(grad: bool) -> None:
    """Also where no context of the engine's own stands around the call."""
    with torch.set_grad_enabled(grad):
        with held_fixed(good):
            torch.set_grad_enabled(not grad)
        assert torch.is_grad_enabled() == grad


@pytest.mark.parametrize("joint", [False, True])
def test_nothing_is_left_behind_where_a_cell_raises(joint: bool) -> None:
    cell = Weighted(fails_at=4)
    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        if joint:
            jiio.solve(jiio.Problem(cell, lambda z, x: z.square().sum(1)), X, Z)
        else:
            jiio.equilibrium(cell, X, Z)
    assert torch.is_grad_enabled() and cell.training and torch.equal(state, torch.get_rng_state())
    assert parametrize._cache_enabled == 0
    before = cell.weight.detach()
    cell.linear.parametrizations.weight.original0.data.mul_(2.0)  # type: ignore[union-attr]
    assert gap(cell.weight.detach(), 2 * before) < 1e-12


def test_other_threads_see_the_weights_of_now() -> None:
    """While one thread solves, another trains the same module: it must never read what the first one holds."""
    cell, inside, go, seen = Weighted(), threading.Event(), threading.Event(), []

    def waiting(z: Tensor, x: Tensor) -> Tensor:
        inside.set()
        go.wait(10)
        return cell(z, x)

    waiting.module = cell  # type: ignore[attr-defined]
    thread = threading.Thread(target=lambda: seen.append(jiio.equilibrium(waiting, X, Z).z.detach()))
    thread.start()
    assert inside.wait(10)
    old = cell.weight.detach().clone()
    with torch.no_grad():
        cell.linear.parametrizations.weight.original0.mul_(0.5)  # type: ignore[union-attr]
    assert gap(cell.weight.detach(), 0.5 * old) < 1e-12
    solution = jiio.equilibrium(cell, X, Z)
    solution.z.sum().backward()
    go.set()
    thread.join()

    # Each found the equilibrium of the weights that it began with.
    bias = cell.linear.bias
    assert isinstance(bias, Tensor)
    bias = bias.detach()
    for z, w in ((solution.z.detach(), 0.5 * old), (seen[0], old)):
        assert gap(torch.tanh(0.3 * (z @ w.T + bias) + U), z) < 1e-4
    assert "forward" not in cell.linear.parametrizations.weight.__dict__  # type: ignore[index]
