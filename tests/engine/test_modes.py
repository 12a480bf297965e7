"""Solves in every mode of torch: forward mode, torch.func, inference mode, autocast, low precision."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward
from torch import Tensor, nn

import jiio
from helpers import gap
from jiio import ArgumentTypeError, UnsupportedError

# torch's own, from the first use of its forward mode.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script.*:FutureWarning", "ignore:.*torch.jit.script.*:DeprecationWarning"
)

DOUBLE = torch.float64
TIGHT = jiio.Tolerance(1e-11, 1e-11)
DRAW = torch.Generator().manual_seed(0)
W = 0.6 * torch.linalg.qr(torch.randn(6, 6, dtype=DOUBLE, generator=DRAW)).Q
U = torch.randn(3, 6, dtype=DOUBLE, generator=DRAW)
X = 0.3 * torch.randn(4, 3, dtype=DOUBLE, generator=DRAW)
Z = torch.zeros(4, 6, dtype=DOUBLE)


def cell(z: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(z @ W.to(z) + x @ U.to(x))


def objective(z: Tensor, x: Tensor) -> Tensor:
    return (z - 0.2).square().sum(1) + 0.1 * x.square().sum(1)


def test_forward_mode_gives_the_tangent() -> None:
    v = torch.randn(X.shape, dtype=DOUBLE, generator=DRAW)
    h = 1e-6
    ends = [jiio.equilibrium(cell, X + s * h * v, Z, tolerance=TIGHT).z for s in (1, -1)]
    for start in (X, X.clone().requires_grad_()):
        with forward.dual_level():
            z = jiio.equilibrium(cell, forward.make_dual(start, v), Z, tolerance=TIGHT).z
            assert gap(forward.unpack_dual(z).tangent, (ends[0] - ends[1]) / (2 * h)) < 1e-7
            still = jiio.equilibrium(cell, X, Z).z
            assert forward.unpack_dual(still).tangent is None


def test_forward_mode_through_parameters() -> None:
    d = torch.randn(W.shape, dtype=DOUBLE, generator=DRAW)

    def at(w: Tensor) -> Tensor:
        return jiio.equilibrium(lambda z, x: torch.tanh(z @ w + x @ U), X, Z, tolerance=TIGHT).z

    h = 1e-6
    with forward.dual_level():
        tangent = forward.unpack_dual(at(forward.make_dual(W, d))).tangent
    assert gap(tangent, (at(W + h * d) - at(W - h * d)) / (2 * h)) < 1e-7


TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor]], Any]] = {
    "vmap": lambda f: torch.func.vmap(lambda x: f(x[None])[0])(X),
    "grad": lambda f: torch.func.grad(lambda x: f(x).sum())(X),
    "jvp": lambda f: torch.func.jvp(f, (X,), (X,)),
    "jacrev": lambda f: torch.func.jacrev(f)(X),
    "jacfwd": lambda f: torch.func.jacfwd(f)(X),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_are_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(UnsupportedError, match=r"torch\.func"):
        TRANSFORMS[name](lambda x: jiio.equilibrium(cell, x, Z[: len(x)]).z)
    with pytest.raises(UnsupportedError, match=r"torch\.func"):
        TRANSFORMS[name](lambda x: jiio.solve(jiio.Problem(cell, objective), x, Z[: len(x)]).x)


def test_tangents_of_a_joint_solve_are_refused() -> None:
    with forward.dual_level(), pytest.raises(UnsupportedError, match="tangent"):
        jiio.solve(jiio.Problem(cell, objective), forward.make_dual(X, X), Z)


def test_functional_call_differentiates_the_parameters_it_is_given() -> None:
    torch.manual_seed(0)
    model = jiio.models.classifier(jiio.models.DenseConfig(8, scaling="spectral"), image=(1, 2, 2), classes=3).double()
    x = torch.rand(3, 1, 2, 2, dtype=DOUBLE)
    given = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    loss = torch.func.functional_call(model, given, (x,)).square().sum()
    grads = torch.autograd.grad(loss, list(given.values()))
    model(x).square().sum().backward()
    assert all(gap(g, p.grad) < 1e-10 for g, p in zip(grads, model.parameters(), strict=True))


def test_tensors_made_in_inference_mode() -> None:
    with torch.inference_mode():
        x, z = X.clone(), Z.clone()
        inside = jiio.equilibrium(cell, x, z, tolerance=TIGHT).z
    assert gap(inside, jiio.equilibrium(cell, X, Z, tolerance=TIGHT).z) == 0
    problem = jiio.Problem(cell, objective)
    assert gap(jiio.solve(problem, x, z).x, jiio.solve(problem, X, Z).x) == 0
    w = W.clone().requires_grad_()
    jiio.equilibrium(lambda z, x: torch.tanh(z @ w + x @ U), x, z).z.sum().backward()
    assert w.grad is not None


def test_numbers_that_cannot_be_computed_with() -> None:
    eighth = torch.float8_e4m3fn
    with pytest.raises(ArgumentTypeError, match="real and imaginary parts as channels"):
        jiio.equilibrium(cell, X + 0j, Z)
    with pytest.raises(ArgumentTypeError, match=r"\.float\(\)"):
        jiio.equilibrium(cell, X.to(eighth), Z.to(eighth))


class Layer(nn.Module):
    """A cell of plain layers: what autocast runs low."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(16, 16), nn.Linear(3, 16)
        nn.init.orthogonal_(self.inner.weight, 0.7)
        self.seen: set[torch.dtype] = set()

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        h = self.inner(z)
        self.seen.add(h.dtype)
        return torch.tanh(h + self.outer(x))


def test_autocast_is_for_the_cell_alone() -> None:
    """Steps and gradients near those of single precision; state and residual in it; no advice about a z0."""
    layer, x, z = Layer(), torch.randn(4, 3, generator=DRAW), torch.zeros(4, 16)
    exact = jiio.equilibrium(layer, x, z)
    grads = torch.autograd.grad(exact.z.square().sum(), list(layer.parameters()))
    with torch.autocast("cpu", torch.bfloat16):
        low = jiio.equilibrium(layer, x, z, on_failure="ignore")
        raised = jiio.equilibrium(layer, x.bfloat16(), z.bfloat16(), on_failure="ignore")
        joint = jiio.solve(jiio.Problem(layer, objective), x, z, on_failure="ignore")
    assert layer.seen == {torch.float32, torch.bfloat16}
    assert low.z.dtype == low.residual.dtype == raised.z.dtype == joint.x.dtype == joint.value.dtype == torch.float32
    assert bool(low.converged.all()) and low.evaluations.cell <= exact.evaluations.cell + 12

    found = torch.autograd.grad(low.z.square().sum(), list(layer.parameters()))
    for one, other in zip(found, grads, strict=True):
        assert float((one - other).norm() / other.norm()) < 0.03

    # What the joint solve found is worth as much, measured in single precision.
    plain = jiio.solve(jiio.Problem(layer, objective), x, z, max_steps=400)
    there = objective(jiio.equilibrium(layer, joint.x, z).z, joint.x)
    assert bool(joint.converged.any()) and bool((there <= 1.02 * plain.value)[joint.converged].all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_tolerance_below_the_arithmetic_is_said_once_and_costs_nothing(dtype: torch.dtype) -> None:
    never = jiio.Tolerance(1e-30, 1e-30)
    with pytest.warns(jiio.PrecisionWarning, match="arithmetic") as told:
        solution = jiio.equilibrium(cell, X.to(dtype), Z.to(dtype), tolerance=never, max_steps=200)
    assert len(told) == 1 and bool(solution.converged.all())
    assert int(solution.steps.max()) < 60

    # What is called converged is so, recomputed in double precision, to a few spacings of the type.
    z, x = solution.z.double(), X.to(dtype).double()
    left = (torch.tanh(z @ W.to(dtype).double() + x @ U.to(dtype).double()) - z).square().mean(1).sqrt()
    assert float((left / z.square().mean(1).sqrt()).max()) < 10 * torch.finfo(dtype).eps


def test_a_tolerance_that_can_be_met_is_met() -> None:
    """The floor never loosens what the numbers can do."""
    solution = jiio.equilibrium(cell, X.float(), Z.float(), tolerance=jiio.Tolerance(0.0, 5e-7))
    assert float((solution.residual[:, 0] / solution.z.square().mean(1).sqrt()).max()) <= 5e-7


@pytest.mark.slow
def test_a_whole_solve_may_be_compiled() -> None:
    """Graphs break inside, and the result is the same; warnings of the compiler's own are its own."""
    model = jiio.models.classifier(jiio.models.DenseConfig(6), image=(1, 2, 2), classes=3).eval()
    x = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(model, backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert gap(compiled(x), model(x)) < 1e-4
