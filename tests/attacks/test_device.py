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
    "noise": attacks.NoiseAttack(draws=2),
    "joint": attacks.JointAttack(steps=4),
    "intermediate": attacks.IntermediateAttack(steps=FEW),
    "simultaneous": attacks.SimultaneousAttack(steps=FEW),
    "ensemble": attacks.AdjointEnsemble(steps=FEW),
}
FOREIGN: dict[str, AbstractAttack] = {
    "torchattacks": attacks.TorchAttack("PGD", {"steps": FEW, "random_start": False}),
    "pyautoattack": attacks.AutoAttack(queries=4),
    "foolbox": attacks.FoolboxAttack("LinfPGD", {"steps": FEW, "random_start": False}),
}
ELSEWHERE = {"SurrogateAttack", "TwoStageAttack", "SingleViewAttack", "TorchAttack", "AutoAttack", "FoolboxAttack"}


def test_every_attack_is_tried_on_a_gpu() -> None:
    assert {type(one).__name__ for one in ATTACKS.values()} | ELSEWHERE == set(attacks.ATTACKS)


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


@pytest.mark.slow
@pytest.mark.parametrize("package", FOREIGN)
def test_attacks_of_other_packages_run_where_the_model_is(package: str, gpu: torch.device) -> None:
    pytest.importorskip(package)
    x, y = images()
    found = FOREIGN[package](Target(copy.deepcopy(model()).to(gpu)), x.to(gpu), y.to(gpu), ThreatModel("linf", 0.3))
    assert found.x.is_cuda and bool(((found.x.cpu() - x).abs() <= 0.3 + 1e-5).all())


@pytest.mark.slow
def test_an_attack_found_on_another_model_runs_where_both_are(gpu: torch.device) -> None:
    x, y = images()
    there, other = (copy.deepcopy(model()).to(gpu) for _ in range(2))
    found = attacks.SurrogateAttack(other, attacks.PGD(steps=FEW))(Target(there), x.to(gpu), y.to(gpu), THREAT)
    here = attacks.SurrogateAttack(model(), attacks.PGD(steps=FEW))(Target(model()), x, y, THREAT)
    assert found.x.is_cuda and torch.allclose(found.x.cpu(), here.x, atol=1e-4)


@pytest.mark.slow
def test_attacks_on_several_views_run_where_the_model_is(gpu: torch.device) -> None:
    sizes = (2, 3)
    torch.manual_seed(0)
    fused = attacks.multi_view_classifier(sizes, 3, features=4).eval().to(gpu)
    singles = tuple(attacks.multi_view_classifier((n,), 3, features=4).eval().to(gpu) for n in sizes)
    x, y = torch.rand(3, 5).to(gpu), torch.tensor([0, 1, 2]).to(gpu)
    threat = attacks.MultiViewThreat("l2", 0.4, sizes=sizes)
    pgd = attacks.PGD(steps=FEW)
    for attack in (attacks.TwoStageAttack(singles, pgd), attacks.SingleViewAttack(pgd), attacks.JointAttack(steps=4)):
        found = attack(fused, x, y, threat)
        assert found.x.is_cuda and bool((threat.violation(found.x, x) <= threat.slack(x)).all())


def test_every_pixel_is_attacked_where_the_model_is(gpu: torch.device) -> None:
    class Threshold(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(10.0))

        def forward(self, x: Tensor) -> Tensor:
            value = self.weight * (x[:, 0] - 0.5)
            return torch.stack([-value, value], 1)

    x = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0.5).long()
    suite = [attacks.PixelAttack(attacks.PGD(steps=FEW), attacks.BalancedPixels())]
    here = attacks.evaluate_dense(Threshold(), [(x, y)], "linf", 0.1, suite)
    there = attacks.evaluate_dense(Threshold().to(gpu), [(x, y)], "linf", 0.1, suite)
    assert there.robust.accuracy == here.robust.accuracy and there.clean.iou == here.clean.iou


@pytest.mark.slow
def test_corruptions_are_measured_where_the_model_is(gpu: torch.device) -> None:
    x, y = images()
    families = ["fog", "jpeg_compression"]
    here = attacks.evaluate_corruptions(model(), [(x, y)], families)
    there = attacks.evaluate_corruptions(copy.deepcopy(model()).to(gpu), [(x, y)], families)
    assert there.errors == here.errors and there.clean == here.clean
