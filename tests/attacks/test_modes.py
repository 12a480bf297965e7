"""Attacks inside torch.inference_mode() and no_grad: the same result as outside, or a sentence."""

from __future__ import annotations

import re

import pytest
import torch

import jiio
from attack_models import blobs, convolutional, equilibrium
from jiio.attacks import (
    APGD,
    PGD,
    AbstractAttack,
    AdjointEnsemble,
    AutoAttack,
    IntermediateAttack,
    JointAttack,
    SimultaneousAttack,
    Square,
    SurrogateAttack,
    Target,
    ThreatModel,
    TorchAttack,
    evaluate,
)

X, Y = blobs(6, seed=5)
MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
OURS = [
    PGD(steps=3),
    APGD(steps=4),
    JointAttack(steps=6),
    IntermediateAttack(steps=2, states=(2,), unrolled=(1,)),
    SimultaneousAttack(steps=3),
    AdjointEnsemble(steps=2),
    Square(queries=5),
    SurrogateAttack(convolutional(), PGD(steps=2)),
]
FOREIGN = {"torchattacks": TorchAttack("PGD", {"steps": 3}), "pyautoattack": AutoAttack(queries=5)}


def radii() -> torch.Tensor:
    """One per sample, made in the mode of the moment, as are the copies of images and labels below."""
    return torch.full((len(X),), 0.08)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("attack", OURS, ids=lambda attack: attack.name.partition("(")[0])
def test_the_mode_of_the_caller_changes_nothing(attack: AbstractAttack, mode: str) -> None:
    outside = attack(equilibrium(), X, Y, ThreatModel("linf", radii()))
    with MODES[mode]():
        inside = attack(equilibrium(), X.clone(), Y.clone(), ThreatModel("linf", radii()))
    assert torch.equal(outside.x, inside.x) and outside.cost == inside.cost
    assert float((outside.x - X).abs().max()) > 0.05  # it did attack


@pytest.mark.parametrize("package", ["torchattacks", pytest.param("pyautoattack", marks=pytest.mark.slow)])
def test_foreign_attacks_in_inference_mode(package: str) -> None:
    pytest.importorskip(package, reason="needs the extra: pip install jiio[attacks]")
    attack, threat = FOREIGN[package], ThreatModel("linf", 0.08)
    outside = attack(convolutional(), X, Y, threat)
    with torch.inference_mode():
        inside = attack(convolutional(), X.clone(), Y.clone(), threat)
    assert torch.equal(outside.x, inside.x)


def test_an_evaluation_in_inference_mode() -> None:
    def measured() -> str:
        draws = torch.Generator().manual_seed(0)
        target = Target(convolutional(), mean=0.1, std=1.2)  # its moments are made in that mode as well
        told = evaluate(target, [(X.clone(), Y.clone())], threat, [PGD(steps=5)], generator=draws, audit=None).to_json()
        return re.sub(r'"date": "[^"]*"', "", told)

    threat = ThreatModel("linf", 0.12)
    outside = measured()
    with torch.inference_mode():
        assert measured() == outside
    assert '"status": [' in outside and "broken" in outside


def test_weights_of_inference_mode_are_a_sentence() -> None:
    with torch.inference_mode():
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 4))
    with pytest.raises(jiio.ArgumentError, match=r"^model: expected weights .* 1\.weight made in inference mode"):
        PGD(steps=1)(model, X, Y, ThreatModel("linf", 0.1))


def test_train_mode_on_request() -> None:
    """For a model that hides its gradient in eval mode; dropout and batch statistics stay still."""

    class Hides(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = convolutional()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = self.model(x)
            return scores if self.training else scores.detach()

    model, threat = Hides().eval(), ThreatModel("linf", 0.3)
    hidden = PGD(steps=3, random_start=False)(model, X, Y, threat)
    assert int(hidden.success.sum()) == 0 and hidden.cost["backward"] == 0
    statistics = convolutional()[1].running_mean.clone()  # type: ignore[index]
    found = PGD(steps=10)(Target(model, train_mode=True), X, Y, threat)
    assert int(found.success.sum()) >= 5 and not model.training and not model.model.training
    assert torch.equal(convolutional()[1].running_mean, statistics)  # type: ignore[index]
