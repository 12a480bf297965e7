"""Gradients against finite differences: every adjoint that claims exactness, on every kind of cell, with and without active constraints."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import jiio
from helpers import gap, relative
from jiio import models
from jiio.layout import Spec, leaves, map_tree
from problems import CASES, DOUBLE, PUSH, TIGHT, Case, make

IMPLICIT = jiio.Implicit(tolerance=jiio.Tolerance(1e-12, 1e-12), max_steps=500)
KKT = jiio.KKT(rtol=1e-12, max_steps=3000)
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
            cell.parametrizations.weight.original.mul_(1.3)
    return Model(cell.double(), models.LinearInjection(3, 6).double(), 3)


CELLS = ["dense", "dense, weight norm", "dense, spectral", "monotone", "conv", "multiscale"]
CONSTRAINTS: dict[str, jiio.AbstractProx] = {
    "free": jiio.Identity(),
    "box": jiio.Box(-0.1, 0.15),
    "L2 ball": jiio.L2Ball(0.2),
}


def weights_like(tree: Any, seed: int = 3) -> Any:
    draw = torch.Generator().manual_seed(seed)
    return map_tree(lambda leaf: torch.randn(leaf.shape, dtype=DOUBLE, generator=draw), tree)


def inner(tree: Any, weights: Any) -> Tensor:
    """A loss that is not linear, and its own for every number."""
    pairs = zip(leaves(tree), leaves(weights), strict=True)
    return torch.stack([(torch.sin(a) * b).sum() for a, b in pairs]).sum()


def along(losses: Callable[[], tuple[Tensor, ...]], parameters: list[Any], h: float = 1e-4) -> Any:
    """Fourth-order central differences of scalars along one random direction of all parameters, and that direction."""
    draw = torch.Generator().manual_seed(11)
    direction = [torch.randn(p.shape, dtype=DOUBLE, generator=draw) for p in parameters]
    values = {}
    for step in (-2, -1, 1, 2):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=step * h)
            values[step] = torch.stack([loss.detach() for loss in losses()])
            for p, d in zip(parameters, direction, strict=True):
                p.sub_(d, alpha=step * h)
    return *((8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * h)).tolist(), direction


def slope(loss: Tensor, parameters: list[Any], direction: list[Tensor], keep: bool = False) -> float:
    grads = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=keep)
    return float(sum((g * d).sum() for g, d in zip(grads, direction, strict=True) if g is not None))


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


PROX: dict[str, jiio.AbstractProx] = {
    "none": jiio.Identity(),
    "box": jiio.Box(-0.3, 0.25),
    "L1 ball": jiio.L1Ball(0.6),
    "L2 ball": jiio.L2Ball(0.5),
    "L2 balls": jiio.L2Ball(torch.tensor([0.3, 0.4, 9.0]), center=torch.full((4,), 0.1)),
    "Linf ball": jiio.LinfBall(0.3),
    "box and L2 ball": jiio.Intersection(jiio.Box(-0.25, 0.3), jiio.L2Ball(0.4)),
    "two L2 balls": jiio.Intersection(jiio.L2Ball(0.4), jiio.L2Ball(0.4, center=torch.tensor([0.2, -0.1, 0.1, 0.1]))),
    "soft threshold": jiio.SoftThreshold(0.3),
    "quadratic prior": jiio.QuadraticPrior(0.4, center=torch.full((4,), 0.1)),
}
NAMES = ("W", "U", "C", "y")


def outer(case: Case, solution: jiio.Solution) -> Tensor:
    clean = weights_like(case.y, 9)
    return ((solution.z @ CASES["tanh"].C.T - clean) ** 2).sum() + 0.1 * (solution.x**3).sum()


@pytest.mark.parametrize("prox", PROX)
def test_kkt_under_every_prox(prox: str) -> None:
    """Parameters of the cell and of the objective, and the targets."""
    case = CASES["tanh"]
    start = case.solve(PROX[prox], solver=jiio.Anderson(memory=20)).x
    leaves_ = {n: getattr(case, n).clone().requires_grad_() for n in NAMES}
    parameters, taped = list(leaves_.values()), case.with_(**leaves_)

    def solve(adjoint: jiio.AbstractAdjoint) -> jiio.Solution:
        return taped.solve(PROX[prox], x0=start, adjoint=adjoint, solver=jiio.Anderson(memory=20))

    def both() -> tuple[Tensor, Tensor]:
        s = solve(jiio.Detached())
        return outer(case, s), s.value.sum()

    expected, value, direction = along(both, parameters, 3e-5)
    assert relative(slope(outer(case, solve(KKT)), parameters, direction), expected) < 1e-5
    for adjoint in (jiio.Envelope(), KKT, IMPLICIT):
        assert relative(slope(solve(adjoint).value.sum(), parameters, direction), value) < 1e-5, adjoint


@pytest.mark.parametrize("prox", ["none", "L2 ball", "box", "L1 ball", "box and L2 ball", "soft threshold"])
def test_kkt_equals_unrolled(prox: str) -> None:
    case = CASES["softplus, smooth loss"]
    found = []
    for adjoint in (KKT, jiio.Unrolled()):
        weight, y = case.W.clone().requires_grad_(), case.y.clone().requires_grad_()
        solution = case.with_(W=weight, y=y).solve(PROX[prox], adjoint=adjoint)
        loss = outer(case, solution) + solution.value.square().sum() + solution.multiplier.square().sum()
        found.append(torch.autograd.grad(loss, (weight, y)))
    for kkt, unrolled in zip(*found, strict=True):
        assert gap(kkt, unrolled) < 1e-6 * float(kkt.abs().max())


@pytest.mark.parametrize("prox", ["none", "L2 ball"])
def test_kkt_and_unrolled_pass_gradcheck(prox: str) -> None:
    case = CASES["softplus, smooth loss"].rows(slice(0, 2))
    for adjoint in (KKT, jiio.Unrolled()):

        def fields(bias: Tensor, y: Tensor, adjoint: jiio.AbstractAdjoint = adjoint) -> tuple[Tensor, ...]:
            s = case.with_(b=bias, y=y).solve(PROX[prox], adjoint=adjoint)
            return s.z, s.x, s.multiplier, s.value

        inputs = case.b.clone().requires_grad_(), case.y.clone().requires_grad_()
        assert torch.autograd.gradcheck(fields, inputs, eps=1e-5, atol=1e-6, rtol=1e-5, fast_mode=True)


def test_implicit_is_first_order_and_exact_where_the_input_cannot_move() -> None:
    """At a vertex x* is locally constant, so that holding it fixed is right; inside it is not, and that is documented."""
    results = {}
    for name, case, prox in (("vertex", PUSH, jiio.LinfBall(0.2)), ("inside", CASES["tanh"], jiio.Identity())):
        for adjoint in (IMPLICIT, KKT):
            weight = case.W.clone().requires_grad_()
            solution = case.with_(W=weight).solve(prox, adjoint=adjoint)
            results[name, type(adjoint).__name__] = torch.autograd.grad((solution.z**3).sum(), weight)[0]
    assert gap(results["vertex", "Implicit"], results["vertex", "KKT"]) < 1e-9
    assert gap(results["inside", "Implicit"], results["inside", "KKT"]) > 1e-2


def test_default_adjoints_are_good_in_single_precision() -> None:
    case = CASES["tanh"]
    exact: Tensor | None = None
    for dtype, adjoint in ((DOUBLE, KKT), (torch.float32, jiio.KKT())):
        typed = case.to(dtype)
        weight = typed.W.clone().requires_grad_()
        solution = typed.with_(W=weight).solve(
            jiio.L2Ball(0.5), adjoint=adjoint, tolerance=TIGHT if dtype == DOUBLE else jiio.Tolerance()
        )
        loss = (solution.z**3).sum() + (solution.x**3).sum()
        gradient = torch.autograd.grad(loss, weight)[0].double()
        exact = gradient if exact is None else exact
        assert float((gradient - exact).norm() / exact.norm()) < 5e-3


# -- the matrix K


def hessian(case: Case, s: Tensor) -> Tensor:
    """K = d2L / d(z, mu, x)2 of one sample, dense."""
    n = case.W.shape[0]

    def lagrangian(s: Tensor) -> Tensor:
        z, mu, x = s[None, :n], s[None, n : 2 * n], s[None, 2 * n :]
        return (case.objective(z, x) + (mu * (case.cell(z, x) - z)).sum(1))[0]

    return torch.autograd.functional.hessian(lagrangian, s)


@pytest.mark.parametrize("name", ["linear", "tanh", "softplus, smooth loss", "barely contracting"])
def test_inertia_certifies_the_minimum(name: str) -> None:
    case = CASES[name]
    solution = case.solve()
    n = case.W.shape[0]
    for i in range(case.batch):
        s = torch.cat([solution.z[i], solution.multiplier[i], solution.x[i]])
        values = torch.linalg.eigvalsh(hessian(case.rows(slice(i, i + 1)), s))
        assert int((values < 0).sum()) == n and float(values.abs().min()) > 1e-6


@pytest.mark.parametrize("name", ["linear", "softplus, smooth loss"])
def test_k_maps_the_multiplier_to_the_slope_of_the_objective(name: str) -> None:
    """K (0, mu, 0) = -(dl/dz, 0, 0) where the objective does not see x (and at x* in any case in the other blocks)."""
    case = CASES[name].with_(ridge=0.0)
    # Without the ridge the optimum fits y as well as it can; there are fewer unknowns than targets.
    solution = case.solve(max_steps=5000)
    n = case.W.shape[0]
    for i in range(case.batch):
        one = case.rows(slice(i, i + 1))
        s = torch.cat([solution.z[i], solution.multiplier[i], solution.x[i]])
        v = torch.cat(
            [torch.zeros(n, dtype=DOUBLE), solution.multiplier[i], torch.zeros(case.U.shape[1], dtype=DOUBLE)]
        )
        z = solution.z[i : i + 1].clone().requires_grad_()
        slope_z = torch.autograd.grad(one.objective(z, solution.x[i : i + 1]).sum(), z)[0][0]
        expected = torch.cat([-slope_z, torch.zeros_like(v[n:])])
        assert gap(hessian(one, s) @ v, expected) < 1e-8


@pytest.mark.parametrize("prox", ["none", "L2 ball", "box"])
def test_kkt_equals_the_dense_solve(prox: str) -> None:
    """dLo/dtheta = d/dtheta <w, dL/ds>, K w = -dLo/ds in the tangent space, all of it dense."""
    case = CASES["tanh"]
    bias = case.b.clone().requires_grad_()
    solution = case.with_(b=bias).solve(PROX[prox], adjoint=KKT)
    total = torch.zeros_like(bias)
    n, k = case.W.shape[0], case.U.shape[1]
    for i in range(case.batch):
        one = case.rows(slice(i, i + 1))
        z, mu, x = (t[i].detach() for t in (solution.z, solution.multiplier, solution.x))
        s = torch.cat([z, mu, x])
        matrix = hessian(one, s)
        gradient = solution.gradient[i]
        basis = torch.eye(k, dtype=DOUBLE)
        if prox == "L2 ball":
            assert abs(float(x.norm()) - 0.5) < 1e-9
            force = -float(gradient @ x) / 0.25
            matrix[2 * n :, 2 * n :] += force * torch.eye(k, dtype=DOUBLE)
            basis = torch.linalg.svd(x[None])[2][1:].T
        elif prox == "box":
            basis = basis[:, (x > -0.3) & (x < 0.25)]
        space = torch.block_diag(torch.eye(2 * n, dtype=DOUBLE), basis)
        right = -torch.cat([3 * z**2, torch.zeros_like(mu), 3 * x**2])
        w = space @ torch.linalg.solve(space.T @ matrix @ space, space.T @ right)
        fresh = case.b.clone().requires_grad_()
        sample, leaf = one.with_(b=fresh), s.clone().requires_grad_()
        zs, ms, xs = leaf[None, :n], leaf[None, n : 2 * n], leaf[None, 2 * n :]
        lagrangian = sample.objective(zs, xs).sum() + (ms * (sample.cell(zs, xs) - zs)).sum()
        (stationarity,) = torch.autograd.grad(lagrangian, leaf, create_graph=True)
        total += torch.autograd.grad((stationarity * w).sum(), fresh)[0]
    found = torch.autograd.grad((solution.z**3).sum() + (solution.x**3).sum(), bias)[0]
    assert gap(found, total) < 1e-8


# -- second derivatives: right, or a typed error


def losses(adjoint: jiio.AbstractAdjoint, case: Case, fields: str) -> dict[str, Callable[[Tensor], Tensor]]:
    """Scalar functions of a bias (in the cell) or of a matrix (in the objective alone)."""

    def value(name: str) -> Callable[[Tensor], Tensor]:
        def function(p: Tensor) -> Tensor:
            solution = case.with_(**{name: p}).solve(adjoint=adjoint, max_steps=600)
            return sum((getattr(solution, f) ** 2).sum() for f in fields.split())  # type: ignore[return-value]

        return function

    return {name: value(name) for name in ("b", "C", "y")}


FIELDS = {"Envelope": "value", "Implicit": "z value", "KKT": "z x multiplier value", "Phantom": "z value"}


@pytest.mark.parametrize(
    "adjoint", [jiio.Envelope(), IMPLICIT, KKT, jiio.Phantom(), jiio.Phantom(kind="neumann")], ids=str
)
def test_second_derivatives_of_a_joint_solve_are_refused(adjoint: jiio.AbstractAdjoint) -> None:
    case = CASES["softplus, smooth loss"]
    for field in FIELDS[type(adjoint).__name__].split():
        for name, function in losses(adjoint, case, field).items():
            p = getattr(case, name).clone().requires_grad_()
            loss = function(p)
            if not loss.requires_grad:  # z of a first-order adjoint does not see the objective
                assert name != "b" and field == "z"
                continue
            with pytest.raises(jiio.SecondDerivativeError, match="Unrolled"):
                torch.autograd.grad(loss, p, create_graph=True)
            with pytest.raises(jiio.SecondDerivativeError):
                function(p).backward(create_graph=True)


def test_second_derivatives_are_refused_where_only_the_objective_has_parameters() -> None:
    """The cell is a constant map then, but its equilibrium still moves with the parameters of the objective."""
    case = CASES["softplus, smooth loss"]
    for adjoint in (jiio.Envelope(), IMPLICIT, KKT, jiio.Phantom(), jiio.Phantom(kind="neumann")):
        matrix = case.C.clone().requires_grad_()
        solution = case.with_(C=matrix).solve(adjoint=adjoint)
        with pytest.raises(jiio.SecondDerivativeError):
            torch.autograd.grad(solution.value.sum(), matrix, create_graph=True)
        solution = case.with_(C=matrix).solve(adjoint=adjoint)
        first = torch.autograd.grad(solution.value.sum(), matrix)[0]
        r = solution.z.detach() @ case.C.T - case.y
        assert gap(first, torch.tanh(r).T @ solution.z.detach()) < 1e-9


@pytest.mark.parametrize("adjoint", [jiio.Implicit(), jiio.Phantom(), jiio.Phantom(kind="neumann")], ids=str)
def test_second_derivatives_of_an_equilibrium_are_refused(adjoint: jiio.AbstractAdjoint) -> None:
    case = CASES["tanh"]
    for through in ("b", "x"):
        p = (case.b if through == "b" else weights_like(case.x0)).clone().requires_grad_()

        def loss(p: Tensor, through: str = through) -> Tensor:
            cell = case.with_(b=p).cell if through == "b" else case.cell
            x = case.x0 if through == "b" else p
            return (jiio.equilibrium(cell, x, case.z0, adjoint=adjoint).z ** 2).sum()

        with pytest.raises(jiio.SecondDerivativeError):
            torch.autograd.grad(loss(p), p, create_graph=True)
        with pytest.raises(jiio.SecondDerivativeError):
            torch.autograd.functional.hessian(loss, p.detach())


def test_unrolled_second_derivatives_are_right() -> None:
    case = CASES["softplus, smooth loss"].rows(slice(0, 2))

    def z_of(b: Tensor) -> Tensor:
        cell = case.with_(b=b).cell
        return jiio.equilibrium(
            cell, case.x0 + 0.3, case.z0, adjoint=jiio.Unrolled(), tolerance=TIGHT, max_steps=500, on_failure="raise"
        ).z

    def joint_of(b: Tensor, prox: jiio.AbstractProx) -> Tensor:
        s = case.with_(b=b).solve(prox, adjoint=jiio.Unrolled())
        return (s.z**3).sum() + (s.x**3).sum() + s.value.sum()

    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "equilibrium": lambda b: (z_of(b) ** 3).sum(),
        "free": lambda b: joint_of(b, jiio.Identity()),
        "ball": lambda b: joint_of(b, jiio.L2Ball(0.2)),
        "box and ball": lambda b: joint_of(b, jiio.Intersection(jiio.L2Ball(0.3), jiio.Box(-0.2, 0.2))),
    }
    direction = weights_like(case.b)
    for name, function in functions.items():
        b = case.b.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(b), b, create_graph=True)
        (found,) = torch.autograd.grad((gradient * direction).sum(), b)
        # The first derivative is right (tested above), so its difference quotient is the reference.
        ends = []
        for h in (1e-4, -1e-4):
            at = (case.b + h * direction).requires_grad_()
            ends.append(torch.autograd.grad(function(at), at)[0])
        expected = (ends[0] - ends[1]) / 2e-4
        assert gap(found, expected) < 1e-5 * float(expected.abs().max()), name


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
