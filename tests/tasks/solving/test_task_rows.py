"""The problems of every task can be taken apart: some of the samples give what they give in company."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from helpers import gap
from jiio import attacks
from jiio.models import (
    DenseConfig,
    ImagePrior,
    ImagePriorConfig,
    TransformerConfig,
    TransformerModel,
    classifier,
    decoder,
)
from jiio.outputs.seeds import generator
from jiio.tasks.language.adversaries import JointAdversary
from jiio.tasks.maps.base import Denoise, Inpaint, LinearMap, random_mask
from jiio.tasks.maps.compressed import compressed
from jiio.tasks.maps.convolution import blur
from jiio.tasks.maps.forward import AbstractMap
from jiio.tasks.meta.learner import FewShotLearner, LearnerConfig
from jiio.tasks.restore.imagespace import USUAL, ImageRestorer
from jiio.tasks.solving.latent import LatentRestorer
from rows_contract import check_rows

IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def holes() -> Inpaint:
    return Inpaint(random_mask(4, 8, 8, missing=0.5, generator=generator(0, "mask")), 0.1)


MAPS: dict[str, Callable[[], LinearMap]] = {
    "holes": holes,
    "one hole": lambda: Inpaint(torch.ones(1, 1, 8, 8)),
    "noise": lambda: Denoise(0.1),
    "blur": lambda: blur(torch.ones(3, 3) / 9, (8, 8)),
    "compressed": lambda: compressed((8, 8), 0.5, generator=generator(0, "signs")),
}


def latent(operator: AbstractMap) -> tuple[jiio.Problem, Any]:
    model = LatentRestorer(decoder(DenseConfig(6), image=(1, 8, 8), latent=3), torch.rand(1, 8, 8), prior=0.1)
    return model.problem(operator.A(IMAGES), operator), torch.randn(4, 3)


def image(operator: LinearMap, *, channels: int = 1, split: bool = False) -> tuple[jiio.Problem, Any]:
    restorer = ImageRestorer(ImagePrior(ImagePriorConfig(features=4, wide=4, depth=1)))
    x = torch.rand(4, channels, 8, 8)
    if split:
        return restorer.split(operator.A(x), operator, level=0.1, strength=USUAL, norm=1.0)[0], x
    return restorer.problem(operator.A(x), operator, level=0.1, strength=USUAL), x


def adapted() -> tuple[jiio.Problem, Any]:
    model = FewShotLearner(LearnerConfig(channels=(4,), features=6, task=3), channels=1, size=8)
    with torch.no_grad():
        support = model.images(torch.rand(4, 4, 1, 8, 8))
    return model.problem(support, 2), torch.randn(4, 3)


def attacked() -> tuple[jiio.Problem, Any]:
    model = classifier(DenseConfig(6), image=(1, 8, 8), classes=3).eval().requires_grad_(False)
    target = attacks.Target(model, mean=0.4, std=0.2)
    objective = Scored(torch.tensor([0, 1, 2, 0]))
    return target.problem(objective, attacks.ThreatModel("l2", 0.5).prox(IMAGES)), IMAGES


class Scored:
    """The score of a label (B,)."""

    def __init__(self, y: Tensor) -> None:
        self.y = y

    def __call__(self, logits: Tensor) -> Tensor:
        return logits.gather(1, self.y[:, None])[:, 0]

    def rows(self, index: Tensor) -> Scored:
        return Scored(self.y[index])


def embedded() -> tuple[jiio.Problem, Any]:
    body = TransformerModel(TransformerConfig(11, 8, 2, 12, memory=2)).eval()
    start, memory = torch.randn(4, 3, 8), body.states(torch.randn(4, 2, 8))[1]
    return JointAdversary().problem(body, start, memory, torch.randint(11, (4, 3))), start


PROBLEMS: dict[str, Callable[[], tuple[jiio.Problem, Any]]] = {
    **{f"decoder, {name}": lambda make=make: latent(make()) for name, make in MAPS.items()},
    **{f"image, {name}": lambda make=make: image(make()) for name, make in MAPS.items()},
    "image, split": lambda: image(holes(), split=True),
    "channels": lambda: image(holes(), channels=2),
    "few shots": adapted,
    "attack": attacked,
    "embeddings": embedded,
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_restricting_then_evaluating_is_evaluating_then_restricting(name: str) -> None:
    torch.manual_seed(0)
    check_rows(*PROBLEMS[name](), near=1e-5, value_near=1e-4)


def test_a_joint_attack_hears_of_all_samples_when_few_are_left() -> None:
    """Balls from tiny to large: most samples end early, and the strongest points are those of the whole batch."""
    torch.manual_seed(0)
    model = classifier(DenseConfig(12), image=(1, 8, 8), classes=3).eval().requires_grad_(False)
    x, y = torch.rand(16, 1, 8, 8), torch.arange(16) % 3
    batches: list[int] = []
    model.cell.register_forward_hook(lambda module, arguments, out: batches.append(len(out)))
    attack = attacks.JointAttack(steps=60, objective=attacks.Margin(), check=1, tolerance=jiio.Tolerance(1e-4, 1e-3))
    threat, found = attacks.ThreatModel("l2", torch.logspace(-2, 0.5, 16)), []
    for cell in (model.cell, Still(model.cell)):
        model.cell = cell
        batches.clear()
        found.append((attack.run(attacks.Target(model), x, y, threat, torch.Generator()), sum(batches)))
    (rest, cheap), (whole, dear) = found
    assert cheap < 0.9 * dear and gap(rest, whole) < 1e-4


class Still(torch.nn.Module):
    """A cell that does not say that samples never meet."""

    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return self.cell(z, u)

    def initial_state(self, u: Tensor) -> Tensor:
        return self.cell.initial_state(u)
