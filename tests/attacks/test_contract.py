"""What holds for every attack, on an equilibrium model and on an ordinary network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import jiio
from attack_models import blobs, convolutional, equilibrium
from jiio.attacks import (
    APGD,
    DLR,
    PGD,
    AbstractAttack,
    AdjointEnsemble,
    CrossEntropy,
    IntermediateAttack,
    JointAttack,
    Margin,
    SimultaneousAttack,
    Square,
    Target,
    TargetedDLR,
    TargetedMargin,
    ThreatModel,
)

X, Y = blobs(10, seed=5)
RADIUS = {"linf": 0.07, "l2": 0.3, "l1": 1.0}
NORMS = ["linf", "l2", "l1"]


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Entry:
    """calm: every draw belongs to the sample or to the whole batch, so that the order of the batch does not matter."""

    attack: AbstractAttack
    norms: tuple[str, ...] = ("linf", "l2", "l1")
    implicit: bool = False
    calm: bool = False


ATTACKS = {
    "PGD": Entry(PGD(steps=6)),
    "PGD, calm": Entry(PGD(steps=6, random_start=False), calm=True),
    "PGD, momentum, margin": Entry(PGD(steps=6, momentum=0.9, objective=Margin(), random_start=False), calm=True),
    "PGD, targeted, restarts": Entry(PGD(steps=4, objective=TargetedDLR(), targets=2, restarts=2)),
    "PGD, as published": Entry(PGD(steps=6, exact=False, best=False)),
    "PGD, warm": Entry(PGD(steps=6, warm=True, random_start=False), implicit=True, calm=True),
    "PGD, phantom": Entry(PGD(steps=6, adjoint=jiio.Phantom(), random_start=False), implicit=True, calm=True),
    "PGD, unrolled": Entry(PGD(steps=4, adjoint=jiio.Unrolled()), implicit=True),
    "APGD": Entry(APGD(steps=12, random_start=False), calm=True),
    "APGD, DLR": Entry(APGD(steps=8, objective=DLR(), restarts=2)),
    "Joint": Entry(JointAttack(steps=25), implicit=True, calm=True),
    "Joint, targeted": Entry(JointAttack(steps=20, objective=TargetedMargin(), targets=2), implicit=True, calm=True),
    "Joint, restarts": Entry(JointAttack(steps=15, restarts=2, random_start=True, check=1), implicit=True),
    "Intermediate": Entry(
        IntermediateAttack(steps=3, states=(0, 1, 4), unrolled=(1, 3), random_start=False), implicit=True, calm=True
    ),
    "Simultaneous": Entry(SimultaneousAttack(steps=8, random_start=False), implicit=True, calm=True),
    "Ensemble": Entry(AdjointEnsemble(steps=4, random_start=False), implicit=True, calm=True),
    "Square": Entry(Square(queries=40), norms=("linf", "l2"), calm=True),
}
# Every norm for the first of a kind, one norm in turn for its variants.
CASES = [
    pytest.param(entry.attack, norm, id=f"{name}-{norm}")
    for i, (name, entry) in enumerate(ATTACKS.items())
    for norm in ((entry.norms[i % len(entry.norms)],) if "," in name else entry.norms)
]
CALM = [
    pytest.param(entry.attack, entry.norms[i % len(entry.norms)], id=f"{name}-{entry.norms[i % len(entry.norms)]}")
    for i, (name, entry) in enumerate(ATTACKS.items())
    if entry.calm
]
PLAIN = [
    pytest.param(entry.attack, entry.norms[i % len(entry.norms)], id=name)
    for i, (name, entry) in enumerate(ATTACKS.items())
    if not entry.implicit
]


@pytest.mark.parametrize(("attack", "norm"), CASES)
def test_the_contract(attack: AbstractAttack, norm: str) -> None:
    """Feasible to rounding, deterministic, never worse than the clean image, honest about success and cost; weights,
    gradients, modes and the global random state stay as they were.
    """
    model, threat = equilibrium(), ThreatModel(norm, RADIUS[norm])
    model.head.train()  # a mode of its own, to be found again
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state, calls = torch.get_rng_state(), []
    hook = model.cell.register_forward_hook(lambda *_: calls.append(1))
    try:
        result = attack(model, X, Y, threat, generator=seeded())
    finally:
        hook.remove()
        training = [part.training for part in (model, model.cell, model.head)]
        model.eval()
    assert training == [False, False, True]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    # feasible, to the last rounding
    assert bool((threat.violation(result.x, X) <= threat.slack(X)).all())
    assert bool((result.x >= 0).all()) and bool((result.x <= 1).all())
    assert bool((result.distance <= threat.radius + threat.slack(X)).all())
    # success is what the model says about the returned images, not what the attack believed
    with torch.no_grad():
        label, clean = model(result.x).argmax(1), model(X).argmax(1)
    assert torch.equal(result.success, label != Y) and torch.equal(result.clean.label, clean)
    assert bool((result.margin >= result.clean_margin).all())
    assert torch.equal(result.x[clean != Y], X[clean != Y])
    # calls are counted, all of them
    assert result.cost["evaluations"] == len(calls)
    again = attack(model, X, Y, threat, generator=seeded())
    assert torch.equal(again.x, result.x)


@pytest.mark.parametrize(("attack", "norm"), CALM)
def test_samples_do_not_meet(attack: AbstractAttack, norm: str) -> None:
    model, threat = equilibrium().double(), ThreatModel(norm, RADIUS[norm])
    try:
        x = X.double()
        order = torch.tensor([4, 2, 9, 0, 1, 3, 8, 7, 6, 5])
        whole = attack(model, x, Y, threat, generator=seeded())
        mixed = attack(model, x[order], Y[order], threat, generator=seeded())
        alone = attack(model, x[3:4], Y[3:4], threat, generator=seeded())
    finally:
        model.float()
    assert torch.equal(whole.success[order], mixed.success)
    assert float((whole.x[order] - mixed.x).abs().max()) < 1e-6
    assert float((whole.x[3:4] - alone.x).abs().max()) < 1e-6


@pytest.mark.parametrize(("attack", "norm"), PLAIN)
def test_ordinary_networks(attack: AbstractAttack, norm: str) -> None:
    model, threat = convolutional(), ThreatModel(norm, RADIUS[norm])
    model.train()
    model[1].eval()  # type: ignore[index]
    statistics = model[1].running_mean.clone()  # type: ignore[index]
    try:
        result = attack(model, X, Y, threat, generator=seeded())
        assert [part.training for part in model.children()] == [True, False, *[True] * 6]
    finally:
        model.eval()
    assert torch.equal(model[1].running_mean, statistics)  # type: ignore[index]
    with torch.no_grad():
        assert torch.equal(result.success, model(result.x).argmax(1) != Y)
    assert bool((threat.violation(result.x, X) <= threat.slack(X)).all())
    assert bool(result.converged.all()) and result.cost["evaluations"] == 0


@pytest.mark.parametrize("norm", NORMS)
def test_attacks_attack(norm: str) -> None:
    """At three times the radius every strong attack breaks nearly everything, so none of them is a dummy."""
    threat = ThreatModel(norm, 3 * RADIUS[norm])
    quick = PGD(steps=10), APGD(steps=10), AdjointEnsemble(steps=5), IntermediateAttack(steps=5)
    for attack in (*quick, JointAttack(steps=30), SimultaneousAttack(steps=30)):
        assert int(attack(equilibrium(), X, Y, threat).success.sum()) >= 9, attack.name


def test_the_joint_attack_costs_less_than_projected_gradient_steps() -> None:
    threat = ThreatModel("l2", 0.4)
    joint = JointAttack(steps=40)(equilibrium(), X, Y, threat)
    nested = PGD(steps=20)(equilibrium(), X, Y, threat)
    calls = [r.cost["evaluations"] + r.cost["vjps"] for r in (joint, nested)]
    assert int(joint.success.sum()) >= int(nested.success.sum())
    assert calls[0] < calls[1]
    # What the joint solve reached is no worse than 100 steps with converged gradients.
    long = PGD(steps=100, random_start=False)(equilibrium(), X, Y, threat)
    right = ~long.success & ~joint.success
    assert bool((joint.margin[right] >= long.margin[right] - 0.05 * long.margin[right].abs()).all())


class Hopeful(AbstractAttack):
    """Returns whatever it was told to, and believes in it."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        return self.function(x)


def test_what_an_attack_returns_is_not_believed() -> None:
    threat = ThreatModel("l2", 0.3)
    far = Hopeful(lambda x: x + 5.0)(equilibrium(), X, Y, threat)
    assert bool((threat.violation(far.x, X) <= threat.slack(X)).all())
    lost = Hopeful(lambda x: torch.where(torch.arange(10).view(-1, 1, 1, 1) == 2, float("nan"), x))
    result = lost(equilibrium(), X, Y, threat)
    assert result.broken.tolist() == [i == 2 for i in range(10)]
    assert torch.equal(result.x, X) and not bool(result.success.any())
    with pytest.raises(jiio.CellError, match=r"Hopeful\.run: expected candidates of shape"):
        Hopeful(lambda x: x[:3])(equilibrium(), X, Y, threat)


class Unsteady(nn.Module):
    """NaN where an image is bright."""

    def forward(self, x: Tensor) -> Tensor:
        scores = convolutional()(x)
        return torch.where(x.flatten(1).amax(1, keepdim=True) > 0.97, float("nan"), scores)


def test_scores_that_are_nan_count_as_wrong() -> None:
    result = Hopeful(lambda x: x + 0.5)(Unsteady(), X, Y, ThreatModel("linf", 0.5))
    bright = result.x.flatten(1).amax(1) > 0.97
    assert bool(bright.any()) and bool((result.margin[bright] == float("inf")).all())


def test_names_tell_attacks_apart() -> None:
    assert PGD().name == "PGD" and PGD(steps=7).name == "PGD(steps=7)"
    assert PGD(objective=Margin()).name == "PGD(objective=Margin())"
    assert JointAttack(objective=CrossEntropy()).name == "JointAttack"


def test_one_sample_and_double_precision() -> None:
    model = equilibrium().double()
    try:
        result = JointAttack(steps=10)(model, X[:1].double(), Y[:1], ThreatModel("l2", 0.3))
    finally:
        model.float()
    assert result.x.dtype == torch.float64 and result.x.shape == (1, 1, 6, 6)


def test_checkpoints_of_apgd_are_those_of_the_paper() -> None:
    assert APGD(steps=100).checkpoints() == [22, 41, 57, 70, 80, 87, 93, 99]


def test_the_summary_reads() -> None:
    text = PGD(steps=2)(equilibrium(), X, Y, ThreatModel("l2", 0.3)).summary()
    assert "of 10 misclassified" in text and "evaluations" in text
