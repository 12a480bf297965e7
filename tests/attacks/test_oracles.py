"""Closed forms: on a linear classifier the least perturbation is known exactly, and so is the certified radius."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import jiio
from attack_models import blobs, equilibrium, linear, monotone
from jiio.attacks import (
    APGD,
    PGD,
    AbstractAttack,
    JointAttack,
    Margin,
    Square,
    Target,
    TargetedMargin,
    ThreatModel,
    certify,
)
from jiio.models import AbstractCell

N, CLASSES = 12, 4
WIDE = (-50.0, 50.0)
DUAL = {"linf": 1, "l2": 2, "l1": math.inf}


def case() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A linear classifier, points, their labels, and its weight."""
    draw = torch.Generator().manual_seed(4)
    weight = torch.randn(CLASSES, N, generator=draw, dtype=torch.float64)
    model = linear(weight, torch.randn(CLASSES, generator=draw, dtype=torch.float64))
    x = torch.randn(8, N, generator=draw, dtype=torch.float64)
    with torch.no_grad():
        return model, x, model(x).argmax(1), weight


def least(model: nn.Module, x: Tensor, y: Tensor, weight: Tensor, norm: str) -> Tensor:
    """(B,) the exact distance to the nearest other class: gap over the dual norm of the difference of weights."""
    with torch.no_grad():
        scores = model(x)
    gap = scores.gather(1, y[:, None]) - scores
    size = torch.linalg.vector_norm(weight[y][:, None] - weight[None], DUAL[norm], dim=2)
    ratio = gap / size
    return ratio.scatter(1, y[:, None], math.inf).amin(1)


class Constant(AbstractCell):
    """z* = u at once: an equilibrium model that is a linear classifier."""

    contraction, lipschitz = 0.0, 1.0

    def forward(self, z: Tensor, u: Tensor, masks: object = None) -> Tensor:
        return u + 0.0 * z

    def initial_state(self, u: Tensor) -> Tensor:
        return torch.zeros_like(u)


class Same(nn.Identity):
    """u = x."""

    lipschitz = 1.0


def as_equilibrium(weight: Tensor, model: nn.Module) -> jiio.EquilibriumModel:
    layer = model[1]  # type: ignore[index]
    tight = jiio.Tolerance(1e-12, 1e-12)
    return jiio.EquilibriumModel(Same(), Constant(), layer, tolerance=tight).double().eval()


EXACT = [
    pytest.param(PGD(steps=80, objective=TargetedMargin(), targets=3, random_start=False), id="PGD targeted"),
    pytest.param(APGD(steps=80, objective=TargetedMargin(), targets=3, random_start=False), id="APGD targeted"),
    pytest.param(JointAttack(steps=80, objective=TargetedMargin(), targets=3), id="joint targeted"),
]


@pytest.mark.parametrize("attack", EXACT)
@pytest.mark.parametrize("norm", DUAL)
def test_attacks_succeed_just_outside_the_least_distance_and_never_inside(norm: str, attack: AbstractAttack) -> None:
    model, x, y, weight = case()
    distance = least(model, x, y, weight, norm)
    model = as_equilibrium(weight, model) if isinstance(attack, JointAttack) else model
    outside = attack(model, x, y, ThreatModel(norm, 1.03 * distance, WIDE))
    assert bool(outside.success.all())
    inside = attack(model, x, y, ThreatModel(norm, 0.999 * distance, WIDE))
    assert not bool(inside.success.any())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_random_search_comes_near_and_never_inside(norm: str) -> None:
    model, x, y, weight = case()
    distance = least(model, x, y, weight, norm)
    square = Square(queries=500)
    assert int(square(model, x, y, ThreatModel(norm, 1.6 * distance, WIDE)).success.sum()) >= 7
    assert not bool(square(model, x, y, ThreatModel(norm, 0.999 * distance, WIDE)).success.any())


@pytest.mark.parametrize("norm", DUAL)
def test_the_certificate_of_a_linear_classifier(norm: str) -> None:
    """Exact in L2; in the other norms the L2 radius in disguise: a lower bound."""
    model, x, y, weight = case()
    exact = least(model, x, y, weight, norm)
    found = certify(model, x, y, ThreatModel(norm, 1.0, WIDE))
    assert found is not None
    assert bool((found.radius <= exact).all())
    if norm == "l2":
        assert torch.allclose(found.radius, exact, rtol=2e-3)
    both = certify(as_equilibrium(weight, model), x, y, ThreatModel(norm, 1.0, WIDE))
    assert both is not None and torch.allclose(both.radius, found.radius, rtol=1e-6)
    assert torch.equal(found.certified, found.radius >= 1.0)


def test_normalisation_enters_the_certificate() -> None:
    model, x, y, weight = case()
    threat = ThreatModel("l2", 1.0, WIDE)
    target = Target(model, mean=0.3, std=0.5)
    with torch.no_grad():
        y = target.forward(x)[0].argmax(1)
    found = certify(target, x, y, threat)
    assert found is not None
    assert torch.allclose(found.radius, 0.5 * least(model, (x - 0.3) / 0.5, y, weight, "l2"), rtol=2e-3)


CELLS = [
    pytest.param(name, norm, marks=() if (name, norm) in {("monotone", "l2"), ("dense", "linf")} else pytest.mark.slow)
    for name in ("monotone", "dense")
    for norm in DUAL
]


@pytest.mark.parametrize(("name", "norm"), CELLS)
def test_no_attack_succeeds_inside_a_certified_radius(name: str, norm: str) -> None:
    model = monotone() if name == "monotone" else equilibrium()
    x, y = blobs(24, seed=11)
    found = certify(model, x, y, ThreatModel(norm, 1.0))
    assert found is not None and int((found.radius > 0).sum()) > 20
    held = found.radius > 1e-3
    radius = found.radius[held].float()
    for attack in (PGD(steps=15, objective=Margin()), JointAttack(steps=30)):
        assert not bool(attack(model, x[held], y[held], ThreatModel(norm, radius)).success.any())
    # The check has teeth: a few certified radii away nearly all fall.
    fallen = PGD(steps=30, objective=Margin())(model, x[held], y[held], ThreatModel(norm, 40 * radius)).success
    assert float(fallen.float().mean()) > 0.5


def test_the_lipschitz_bound_holds() -> None:
    model, (x, y) = monotone().double(), blobs(20, seed=3)
    x = x.double()
    try:
        found = certify(model, x, y, ThreatModel("l2", 0.1))
        draw = torch.Generator().manual_seed(0)
        step = 0.2 * torch.randn(x.shape, generator=draw, dtype=torch.float64)
        with torch.no_grad():
            a, b = (model.solve(p, tolerance=jiio.Tolerance(1e-10, 1e-10), max_steps=500).z for p in (x, x + step))
    finally:
        model.float()
    assert found is not None
    assert bool(((a - b).norm(dim=1) <= found.lipschitz * step.flatten(1).norm(dim=1)).all())


def test_what_has_no_bound_has_no_certificate() -> None:
    x, y = blobs(2, seed=0)
    loose = jiio.models.classifier(jiio.models.DenseConfig(8, gain=1.5), image=(1, 6, 6), classes=4)
    assert certify(loose, x, y, ThreatModel("l2", 0.1)) is None
    deep = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 4))
    assert certify(deep, x, y, ThreatModel("l2", 0.1)) is None
    wrong = certify(monotone(), x, (y + 1) % 4, ThreatModel("l2", 0.1))
    assert wrong is not None and wrong.radius.tolist() == [0.0, 0.0]
