"""Problems of all models can be taken apart: some of the samples give what they give in company."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import jiio
from helpers import gap
from jiio import models
from jiio.layout import leaves
from jiio.models import CrossModalModel, EquilibriumModel, ImagePrior, ImagePriorConfig, Memory, TrellisModel
from jiio.models.sequences.trellis import TrellisConfig
from jiio.persample import rows_of
from model_cases import CONFIGS
from rows_contract import INDEX, check_rows

DOUBLE = torch.float64


def length(prediction: Any, x: Any, weight: Tensor) -> Tensor:
    """An objective with data of each sample."""
    return weight * torch.stack([leaf.square().flatten(1).sum(1) for leaf in leaves((prediction, x))]).sum(0)


def objective() -> jiio.PerSample:
    return jiio.PerSample(length, torch.linspace(1, 2, 4, dtype=DOUBLE))


def decoder(name: str) -> tuple[jiio.Problem, Any]:
    model = models.decoder(CONFIGS[name], image=(1, 8, 8), latent=5).double()
    return model.problem(objective()), torch.randn(4, 5, dtype=DOUBLE)


def classifier(name: str) -> tuple[jiio.Problem, Any]:
    model = models.classifier(CONFIGS[name], image=(1, 8, 8), classes=3).double()
    return model.problem(objective(), jiio.L2Ball(1.0)), torch.randn(4, 1, 8, 8, dtype=DOUBLE)


def dropped() -> tuple[jiio.Problem, Any]:
    model = models.classifier(replace(CONFIGS["conv"], dropout=0.4), image=(1, 8, 8), classes=3).double().train()
    return model.problem(objective()), torch.randn(4, 1, 8, 8, dtype=DOUBLE)


def sequence(kind: type, config: Any) -> tuple[jiio.Problem, Any]:
    model = kind(config).double().eval()
    x = torch.randn(4, 3, config.width, dtype=DOUBLE)
    _, memory = model.states(torch.randn(4, 3, config.width, dtype=DOUBLE), None)
    assert isinstance(memory, Memory)
    return model.at(memory).problem(objective()), x


def crossmodal() -> tuple[jiio.Problem, Any]:
    model = CrossModalModel((2, 3), 2, width=8, heads=2, inner=12).double().eval()
    x = (torch.randn(4, 3, 2, dtype=DOUBLE), torch.randn(4, 2, 3, dtype=DOUBLE))
    there = (torch.rand(4, 3) < 0.6, torch.ones(4, 2, dtype=torch.bool))
    there[0][:, 0] = True
    return model.at(there).problem(objective()), x


def prior() -> tuple[jiio.Problem, Any]:
    model = ImagePrior(ImagePriorConfig(features=4, wide=4, depth=1)).double()
    fidelity = Fidelity(torch.rand(4, 1, 8, 8, dtype=DOUBLE))
    levels = torch.linspace(0.05, 0.2, 4, dtype=DOUBLE)
    return model.problem(fidelity, level=levels, prox=jiio.Box(0, 1)), torch.rand(4, 1, 8, 8, dtype=DOUBLE)


class Fidelity:
    """Half the squared distance to y (B, ...)."""

    def __init__(self, y: Tensor) -> None:
        self.y = y

    def __call__(self, x: Tensor) -> Tensor:
        return 0.5 * (x - self.y).square().flatten(1).sum(1)

    def rows(self, index: Tensor) -> Fidelity:
        return Fidelity(self.y[index])


PROBLEMS: dict[str, Callable[[], tuple[jiio.Problem, Any]]] = {
    **{f"decoder, {name}": lambda name=name: decoder(name) for name in CONFIGS},
    **{f"classifier, {name}": lambda name=name: classifier(name) for name in CONFIGS},
    "dropout": dropped,
    "transformer": lambda: sequence(models.TransformerModel, models.TransformerConfig(11, 8, 2, 12, memory=4)),
    "trellis": lambda: sequence(TrellisModel, TrellisConfig(11, 6, 5, memory=1)),
    "streams": crossmodal,
    "image prior": prior,
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_restricting_then_evaluating_is_evaluating_then_restricting(name: str) -> None:
    torch.manual_seed(0)
    check_rows(*PROBLEMS[name](), near=1e-12, value_near=1e-12)


def test_a_forward_pass_pays_for_who_still_runs() -> None:
    torch.manual_seed(0)
    model = models.classifier(CONFIGS["dense"], image=(1, 8, 8), classes=3).double().eval()
    x = torch.randn(16, 1, 8, 8, dtype=DOUBLE) * torch.logspace(-2, 1, 16, dtype=DOUBLE)[:, None, None, None]
    batches: list[int] = []
    model.cell.register_forward_hook(lambda module, arguments, out: batches.append(len(out)))
    found = model.solve(x, adjoint=jiio.Detached(), tolerance=jiio.Tolerance(1e-10, 1e-10))
    assert batches[0] == 16 and batches[-1] < 8 and sorted(batches, reverse=True) == batches
    for i in (0, 8, 15):
        assert gap(model.solve(x[i : i + 1], tolerance=jiio.Tolerance(1e-10, 1e-10)).z[0], found.z[i]) < 1e-8


class Coupled(models.AbstractCell):
    """A cell in which the samples hear of each other, and which says so."""

    def forward(self, z: Tensor, u: Tensor, masks: Any = None) -> Tensor:
        return 0.3 * torch.tanh(z - z.mean(0)) + u

    def initial_state(self, u: Tensor) -> Tensor:
        return torch.zeros_like(u)

    def rows(self, index: Tensor) -> None:
        return None


class Loud(nn.Module):
    """An injection of somebody else's."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


def test_what_couples_samples_stays_whole() -> None:
    dense = models.DenseCell(3)
    assert rows_of(EquilibriumModel(nn.Identity(), dense, nn.Linear(3, 2)).problem(objective()).cell, INDEX) is not None
    for inject, cell, head in (
        (nn.Identity(), Coupled(), nn.Identity()),
        (Loud(), dense, nn.Identity()),
        (nn.Identity(), dense, nn.Sequential(nn.Linear(3, 2), nn.Flatten(0))),
    ):
        problem = EquilibriumModel(inject, cell, head).problem(objective())
        assert problem.rows(INDEX, torch.zeros(4, 3)) is None
    closed = EquilibriumModel(nn.Identity(), dense, nn.Identity()).problem(lambda p, x: p.sum(1))
    assert closed.rows(INDEX, torch.zeros(4, 3)) is None


def test_functions_as_parts_offer_what_they_offer() -> None:
    u = torch.randn(4, 3, dtype=DOUBLE)
    cell = jiio.PerSample(lambda z, x, u: torch.tanh(z * 0.5 + x + u), u)
    model = EquilibriumModel.of(nn.Identity(), cell, nn.Identity())
    part = model.problem(objective()).rows(INDEX, u)
    assert part is not None
    z = torch.randn(3, 3, dtype=DOUBLE)
    assert gap(part.cell(z, u[INDEX]), torch.tanh(z * 0.5 + 2 * u[INDEX])) < 1e-12
    assert (
        EquilibriumModel.of(nn.Identity(), lambda z, x: z + x, nn.Identity()).problem(objective()).rows(INDEX, u)
        is None
    )
