"""Small classifiers for the tests of attacks: honest ones, and some built to fool an evaluator."""

from __future__ import annotations

import functools
import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jiio
from jiio.attacks import Report
from jiio.models import DenseConfig, EquilibriumModel, MonotoneConfig, classifier

CLASSES, SIDE = 4, 6


def blobs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (count, 1, 6, 6) in [0, 1] with a bright corner, one of four, under noise; and which corner."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (count,), generator=draw)
    x = 0.35 + 0.12 * torch.randn(count, 1, SIDE, SIDE, generator=draw)
    half = SIDE // 2
    for label in range(CLASSES):
        top, left = half * (label // 2), half * (label % 2)
        x[y == label, :, top : top + half, left : left + half] += 0.25
    return x.clamp(0.0, 1.0), y


def fit(model: nn.Module, steps: int = 120, rate: float = 1e-2) -> nn.Module:
    """Train on the blobs, then eval mode."""
    x, y = blobs(256, seed=1)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    optimiser.zero_grad()
    return model.eval()


@functools.cache
def convolutional() -> nn.Module:
    """An ordinary network with every layer that has a mode."""
    torch.manual_seed(0)
    return fit(
        nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(72, CLASSES),
        )
    )


def fresh(cell: DenseConfig | MonotoneConfig) -> EquilibriumModel:
    return classifier(
        cell, image=(1, SIDE, SIDE), classes=CLASSES, tolerance=jiio.Tolerance(1e-5, 1e-4), on_failure="ignore"
    )


@functools.cache
def equilibrium() -> EquilibriumModel:
    """An honest equilibrium model."""
    torch.manual_seed(0)
    return fit(fresh(DenseConfig(16, scaling="spectral", gain=0.8)), steps=60)  # type: ignore[return-value]


@functools.cache
def monotone() -> EquilibriumModel:
    """An equilibrium model with a certificate."""
    torch.manual_seed(0)
    return fit(fresh(MonotoneConfig(16)), steps=60)  # type: ignore[return-value]


def undated(report: Report) -> str:
    """The JSON of a report without the one thing that two runs differ in."""
    return re.sub(r'"date": "[^"]+"', "", report.to_json())


def linear(weight: Tensor, bias: Tensor) -> nn.Module:
    """x -> weight x + bias, of weight (classes, n)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return nn.Sequential(nn.Flatten(), layer).eval()


class Quantised(nn.Module):
    """Fools an evaluator: scores rounded to steps, whose gradient is zero almost everywhere."""

    def __init__(self, model: nn.Module, step: float = 0.5) -> None:
        super().__init__()
        self.model, self.step = model, step

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(self.model(x) / self.step) * self.step


class GradientInTrainModeOnly(nn.Module):
    """Fools an evaluator: its equilibrium is a constant to autograd in eval mode, as in some published packages."""

    def __init__(self, model: EquilibriumModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        z = self.model.solve(x).z
        return self.model.head(z if self.training else z.detach())


def hasty(steps: int = 2) -> EquilibriumModel:
    """Fools an evaluator: stops so early that its prediction is not that of its equilibrium."""
    slow = slow_equilibrium()
    return EquilibriumModel(
        slow.inject, slow.cell, slow.head, solver=jiio.Picard(damping=0.5), max_steps=steps, on_failure="ignore"
    ).eval()


@functools.cache
def slow_equilibrium() -> EquilibriumModel:
    """A cell that contracts slowly, trained at its equilibrium."""
    torch.manual_seed(0)
    return fit(fresh(DenseConfig(16, scaling="spectral", gain=0.97)), steps=100)  # type: ignore[return-value]


class Pair(nn.Module):
    """Breaks the contract: scores and something else."""

    def __init__(self) -> None:
        super().__init__()
        self.model = convolutional()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.model(x)
        return scores, scores.argmax(1)
