"""Every attack and the whole evaluation on a pretended GPU, with the batches of the CPU that a DataLoader yields."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import Tensor, nn

import attack_models as models
from jiio import attacks
from jiio.attacks import AbstractAttack, Target, ThreatModel

FEW = 2
THREAT = ThreatModel("l2", 0.5)
ATTACKS: dict[str, AbstractAttack] = {
    "PGD": attacks.PGD(steps=FEW),
    "PGD, restarts": attacks.PGD(steps=FEW, restarts=2, objective=attacks.TargetedMargin(), targets=2),
    "APGD": attacks.APGD(steps=4),
    "Square": attacks.Square(queries=4),
    "joint": attacks.JointAttack(steps=4),
    "intermediate": attacks.IntermediateAttack(steps=FEW),
    "simultaneous": attacks.SimultaneousAttack(steps=FEW),
    "ensemble": attacks.AdjointEnsemble(steps=FEW),
}


@functools.cache
def images() -> tuple[Tensor, Tensor]:
    return models.blobs(4, seed=2)


@functools.cache
def model() -> nn.Module:
    torch.manual_seed(0)
    return models.fresh(models.DenseConfig(6, scaling="spectral", gain=0.8)).eval()


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_finds_what_it_finds_on_the_cpu(name: str, gpu: torch.device) -> None:
    x, y = images()
    here = ATTACKS[name](Target(model()), x, y, THREAT)
    there = ATTACKS[name](Target(copy.deepcopy(model()).to(gpu)), x.to(gpu), y.to(gpu), THREAT)
    assert there.x.is_cuda and there.success.is_cuda
    assert torch.allclose(here.x, there.x.cpu(), atol=1e-4) and torch.equal(here.success, there.success.cpu())


@pytest.mark.slow
def test_an_evaluation_takes_the_batches_of_a_loader_to_the_model(gpu: torch.device) -> None:
    x, y = images()
    suite, audit = [attacks.PGD(steps=FEW)], attacks.Audit(samples=2, steps=2, queries=2)
    here = attacks.evaluate(model(), [(x, y)], THREAT, attacks=suite, audit=audit)
    there = attacks.evaluate(copy.deepcopy(model()).to(gpu), [(x, y)], THREAT, attacks=suite, audit=audit)
    assert (there.clean, there.robust, there.samples["status"]) == (here.clean, here.robust, here.samples["status"])
