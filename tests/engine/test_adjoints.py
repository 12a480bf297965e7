"""Gradients of every exact adjoint on every kind of cell against finite differences; what they keep and free."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import jiio
from helpers import (
    along,
    gap,
    inner,
    relative,
    slope,
    weights_like,
)
from jiio import models
from jiio.layout import Spec, leaves, map_tree
from problems import (
    CASES,
    DOUBLE,
    IMPLICIT,
    KKT,
    TIGHT,
    make,
)

SMALL = models.MultiscaleConfig(
    (4, 4), expansion=1, groups=2, fusion_groups=2, head_channels=(2, 2), final_channels=4, activation="softplus"
)


@dataclasses.dataclass
class Model:
    """A cell with an injection, both smooth, in double precision, and a shape for x (k numbers per sample)."""

    cell: nn.Module
    inject: nn.Module
    inputs: int

    def bound(self) -> models.BoundCell:
        return models.BoundCell(nn.ModuleList([self.cell, self.inject]), self.cell, self.inject)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [*self.cell.parameters(), *self.inject.parameters()]


def model(name: str) -> Model:
    torch.manual_seed(0)
    if name in ("conv", "multiscale"):
        widths = (4,) if name == "conv" else (4, 4)
        inject = models.DecoderInjection(3, widths, (4, 4))
        cell: nn.Module = models.ConvCell(4, expansion=1, groups=2, activation="silu")
        if name == "multiscale":
            cell = models.MultiscaleCell(SMALL, injected=2)
        return Model(cell.double(), inject.double(), 3)
    cell = {
        "dense": lambda: models.DenseCell(6),
        "dense, weight norm": lambda: models.DenseCell(6, scaling="weight", activation="silu"),
        "dense, spectral": lambda: models.DenseCell(6, scaling="spectral", activation="softplus"),
        "monotone": lambda: models.MonotoneCell(6, m=0.5, activation="softplus"),
    }[name]()
    if name == "dense, spectral":
        with torch.no_grad():  # the clamp starts exactly on its kink; step over it, to where it acts
            next(cell.parameters()).mul_(1.3)
    return Model(cell.double(), models.LinearInjection(3, 6).double(), 3)


CELLS = ["dense", "dense, weight norm", "dense, spectral", "monotone", "conv", "multiscale"]
CONSTRAINTS: dict[str, jiio.AbstractProx] = {
    "free": jiio.Identity(),
    "box": jiio.Box(-0.1, 0.15),
    "L2 ball": jiio.L2Ball(0.2),
}


# -- plain equilibria


def equilibrium_of(m: Model, x: Any, adjoint: jiio.AbstractAdjoint) -> Any:
    solution = jiio.equilibrium(
        m.bound(),
        x,
        adjoint=adjoint,
        tolerance=TIGHT,
        max_steps=800,
        on_failure="raise",
        solver=jiio.Anderson(memory=20),
    )
    return solution.z


@pytest.mark.parametrize("adjoint", [IMPLICIT, jiio.Unrolled()], ids=["Implicit", "Unrolled"])
@pytest.mark.parametrize("name", CELLS)
def test_equilibrium_gradients_equal_finite_differences(name: str, adjoint: jiio.AbstractAdjoint) -> None:
    m = model(name)
    x = weights_like(torch.zeros(2, 3), 1).requires_grad_()
    w = weights_like(equilibrium_of(m, x.detach(), jiio.Detached()))
    everything = [*m.parameters, x]
    expected, direction = along(lambda: (inner(equilibrium_of(m, x.detach(), jiio.Detached()), w),), everything)
    found = slope(inner(equilibrium_of(m, x, adjoint), w), everything, direction)
    assert relative(found, expected) < 1e-6


@pytest.mark.parametrize("adjoint", [IMPLICIT, jiio.Unrolled()], ids=["Implicit", "Unrolled"])
def test_equilibrium_passes_gradcheck(adjoint: jiio.AbstractAdjoint) -> None:
    """Parameters, input, and what the cell merely closes over."""
    case = make(0, act="tanh", batch=2, n=5, k=2)
    x = weights_like(case.x0, 1).requires_grad_()
    shift = weights_like(case.z0, 2).mul(0.1).requires_grad_()

    def z(weight: Tensor, x: Tensor, shift: Tensor) -> Tensor:
        cell = lambda z, x: case.with_(W=weight).cell(z, x) + shift  # noqa: E731
        return jiio.equilibrium(cell, x, case.z0, adjoint=adjoint, tolerance=TIGHT, max_steps=500, on_failure="raise").z

    assert torch.autograd.gradcheck(z, (case.W.clone().requires_grad_(), x, shift), rtol=1e-6)


def test_equilibrium_gradients_agree_and_phantom_converges_to_them() -> None:
    for name in ("dense", "multiscale"):
        m = model(name)
        x = weights_like(torch.zeros(2, 3), 1)
        w = weights_like(equilibrium_of(m, x, jiio.Detached()))

        def gradient(adjoint: jiio.AbstractAdjoint, m: Model = m, x: Tensor = x, w: Any = w) -> Tensor:
            grads = torch.autograd.grad(inner(equilibrium_of(m, x, adjoint), w), m.parameters)
            return torch.cat([g.flatten() for g in grads])

        exact = gradient(IMPLICIT)
        for adjoint in (jiio.Unrolled(), jiio.Phantom(400, 1.0), jiio.Phantom(800, 0.5, kind="neumann")):
            assert gap(gradient(adjoint), exact) < 1e-6 * float(exact.abs().max()), (name, adjoint)
        for steps, damping in ((1, 1.0), (3, 0.5), (5, 0.7)):  # the same polynomial of J at the equilibrium
            unrolled, neumann = (gradient(jiio.Phantom(steps, damping, kind=k)) for k in ("unrolled", "neumann"))
            assert gap(unrolled, neumann) < 1e-8 * float(exact.abs().max())


def test_phantom_cosines_grow_with_the_number_of_steps() -> None:
    case = CASES["tanh"]
    weight = case.W.clone().requires_grad_()
    x = weights_like(case.x0, 1)
    for damping in (1.0, 0.5):
        errors = [
            jiio.adjoint_error(
                case.with_(W=weight).cell,
                x,
                jiio.Phantom(steps, damping),
                case.z0,
                parameters=[weight],
                generator=torch.Generator().manual_seed(0),
            )
            for steps in (1, 5, 25, 60)
        ]
        cosines = [float(e.cosine) for e in errors]
        assert 0.3 < cosines[0] < 0.99 and cosines == sorted(cosines) and cosines[-1] > 0.999999
        assert abs(float(errors[-1].length) - 1) < 1e-4


# -- joint solves


def joint(m: Model, y: Any, prox: jiio.AbstractProx, adjoint: jiio.AbstractAdjoint, x0: Tensor) -> jiio.Solution:
    def objective(z: Any, x: Tensor) -> Tensor:
        fit = sum(((a - b) ** 2).flatten(1).sum(1) for a, b in zip(leaves(z), leaves(y), strict=True))
        return fit / len(leaves(z)) + 0.2 * (x**2).sum(1) + 0.1 * torch.sin(x).sum(1)

    return jiio.solve(
        jiio.Problem(m.bound(), objective, prox),
        x0,
        adjoint=adjoint,
        tolerance=TIGHT,
        max_steps=2500,
        on_failure="raise",
        solver=jiio.Anderson(memory=20),
    )


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("name", CELLS)
def test_kkt_and_envelope_equal_finite_differences(name: str, constraint: str) -> None:
    m, prox = model(name), CONSTRAINTS[constraint]
    start = torch.zeros(2, 3, dtype=DOUBLE)
    y = map_tree(lambda leaf: leaf + 0.5, equilibrium_of(m, weights_like(start, 1), jiio.Detached()))
    first = joint(m, y, prox, jiio.Detached(), start)
    wz, wx, wm = weights_like(first.z), weights_like(first.x, 4), weights_like(first.multiplier, 5)
    touches = {"box": (first.x == -0.1) | (first.x == 0.15), "L2 ball": (first.x.norm(dim=1) - 0.2).abs() < 1e-9}
    assert constraint == "free" or bool(touches[constraint].any())

    def outer(s: jiio.Solution) -> Tensor:
        return inner(s.z, wz) + inner(s.x, wx) + inner(s.multiplier, wm)

    everything: list[Any] = m.parameters
    from_here = lambda adjoint: joint(m, y, prox, adjoint, first.x)  # noqa: E731

    def both() -> tuple[Tensor, Tensor]:
        s = from_here(jiio.Detached())
        return outer(s), s.value.sum()

    expected, value, direction = along(both, everything)
    solution = from_here(KKT)
    assert solution.differentiable == {"z", "x", "multiplier", "value"}
    assert relative(slope(outer(solution), everything, direction, keep=True), expected) < 1e-5
    assert solution.evaluations.adjoint_residual is not None
    assert float(solution.evaluations.adjoint_residual.max()) < 1e-11

    found = {"KKT": slope(solution.value.sum(), everything, direction)}  # outer = inner: one gradient by three routes
    for adjoint in (jiio.Envelope(), IMPLICIT):
        found[str(adjoint)] = slope(from_here(adjoint).value.sum(), everything, direction)
    assert all(relative(f, value) < 1e-5 for f in found.values()), (found, value)


# -- plumbing


@pytest.mark.parametrize(
    "adjoint", [jiio.Envelope(), jiio.Implicit(), jiio.KKT(), jiio.Phantom(), jiio.Unrolled()], ids=str
)
def test_train_and_eval_mode_give_the_same_gradient(adjoint: jiio.AbstractAdjoint) -> None:
    m = model("dense, weight norm")
    y, start = weights_like(torch.zeros(2, 6)), torch.zeros(2, 3, dtype=DOUBLE)
    found = []
    for mode in (True, False):
        m.cell.train(mode)
        solution = joint(m, y, jiio.L2Ball(0.2), adjoint, start)
        found.append(torch.autograd.grad(solution.value.sum(), m.parameters))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(
    "adjoint", [jiio.Envelope(), jiio.Implicit(), jiio.KKT(), jiio.Phantom(), jiio.Unrolled()], ids=str
)
def test_backward_twice_and_summed(adjoint: jiio.AbstractAdjoint) -> None:
    case = CASES["tanh"].with_(b=CASES["tanh"].b.clone().requires_grad_())
    solution = case.solve(adjoint=adjoint)
    total = solution.value.sum()
    first = torch.autograd.grad(total, case.b, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(total, case.b, retain_graph=True)[0], first)
    each = sum(torch.autograd.grad(v, case.b, retain_graph=True)[0] for v in solution.value)
    assert gap(each, first) < 1e-4 * float(first.abs().max())


@pytest.mark.parametrize(
    "adjoint",
    [jiio.Envelope(), jiio.Implicit(), jiio.KKT(), jiio.Phantom(), jiio.Phantom(kind="neumann"), jiio.Unrolled()],
    ids=str,
)
def test_graphs_are_freed(adjoint: jiio.AbstractAdjoint) -> None:
    """No reference cycle keeps the tape of the cell alive, with or without a backward pass."""
    case = CASES["tanh"].with_(b=CASES["tanh"].b.clone().requires_grad_())
    kept: list[weakref.ref] = []

    def cell(z: Tensor, x: Tensor) -> Tensor:
        out = case.cell(z, x)
        kept.append(weakref.ref(out))
        return out

    gc.collect()
    gc.disable()
    try:
        for backward in (False, True):
            kept.clear()
            solution = jiio.solve(jiio.Problem(cell, case.objective), case.x0, case.z0, adjoint=adjoint)
            loss = solution.value.sum()
            if backward:
                loss.backward()
            del solution, loss
            assert not any(ref() is not None for ref in kept)
    finally:
        gc.enable()


def test_what_is_differentiable_is_said() -> None:
    case = CASES["tanh"]
    taped = case.with_(b=case.b.clone().requires_grad_())
    expected: list[tuple[jiio.AbstractAdjoint, set[str]]] = [
        (jiio.Detached(), set()),
        (jiio.Envelope(), {"value"}),
        (jiio.Implicit(), {"z", "value"}),
        (jiio.Phantom(), {"z", "value"}),
        (jiio.KKT(), {"z", "x", "multiplier", "value"}),
        (jiio.Unrolled(), {"z", "x", "multiplier", "value"}),
    ]
    for adjoint, names in expected:
        solution = taped.solve(adjoint=adjoint)
        assert solution.differentiable == names, adjoint
        for field in ("z", "x", "multiplier", "value"):
            assert getattr(solution, field).requires_grad == (field in names), (adjoint, field)
        constant = case.solve(adjoint=adjoint)
        assert not constant.value.requires_grad or isinstance(adjoint, jiio.Unrolled)


def test_value_is_the_same_number_under_every_adjoint() -> None:
    case = CASES["tanh"].with_(b=CASES["tanh"].b.clone().requires_grad_())
    for prox in (jiio.L2Ball(0.5), jiio.SoftThreshold(0.2), jiio.QuadraticPrior(0.3)):
        values = [
            case.solve(prox, adjoint=a).value
            for a in (jiio.Detached(), jiio.Envelope(), IMPLICIT, KKT, jiio.Unrolled())
        ]
        assert all(gap(v, values[0]) < 1e-9 for v in values)


def test_a_tree_of_inputs_gets_gradients() -> None:
    case = CASES["tanh"]
    x = {"a": weights_like(case.x0[:, :1]).requires_grad_(), "b": weights_like(case.x0[:, 1:]).requires_grad_()}
    join = lambda t: torch.cat([t["a"], t["b"]], 1)  # noqa: E731
    tree = jiio.equilibrium(
        lambda z, x: (case.cell(z[0], join(x)),), x, (case.z0,), adjoint=IMPLICIT, tolerance=TIGHT, max_steps=300
    )
    flat = join(x).detach().requires_grad_()
    packed = jiio.equilibrium(case.cell, flat, case.z0, adjoint=IMPLICIT, tolerance=TIGHT, max_steps=300)
    grads = torch.autograd.grad((tree.z[0] ** 3).sum(), (x["a"], x["b"]))
    assert gap(torch.cat(grads, 1), torch.autograd.grad((packed.z**3).sum(), flat)[0]) < 1e-9
    assert Spec.of(tree.z).size == 10


def test_unrolled_reaches_the_start() -> None:
    case = CASES["tanh"]
    x0, z0 = case.x0.clone().requires_grad_(), case.z0.clone().requires_grad_()
    solution = case.solve(x0=x0, z0=z0, adjoint=jiio.Unrolled(), max_steps=4, on_failure="ignore")
    gx, gz = torch.autograd.grad((solution.z**2).sum() + solution.x.sum(), (x0, z0))
    assert float(gx.abs().max()) > 0 and float(gz.abs().max()) > 0
