"""Models of somebody who knows nothing of jiio, named on the command line by the tests of ``jiio attack --model``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import jiio


class Net(nn.Module):
    """Looks for the brighter half of a grey image of 6 x 6: left, right."""

    def __init__(self, scale: float = 10.0, colours: int = 1) -> None:
        super().__init__()
        self.colours = colours
        self.layer = nn.Linear(36 * colours, 2)
        with torch.no_grad():
            half = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]).repeat(6 * colours)
            self.layer.weight.copy_(torch.stack([half, 1 - half]) * scale / 36)
            self.layer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


def make(**options: float) -> nn.Module:
    return Net(**options)  # type: ignore[arg-type]


def nothing() -> None:
    """Makes no model."""


def ends() -> nn.Module:
    """As a script does that reads its own command line."""
    raise SystemExit(3)


def broken() -> nn.Module:
    raise RuntimeError("no weights at home")


def equilibrium() -> jiio.EquilibriumModel:
    net = nn.Linear(36, 8)
    head = nn.Linear(8, 2)
    inject, cell = lambda x: net(x.flatten(1)), lambda z, u: torch.tanh(0.5 * z + u)
    return jiio.EquilibriumModel.of(inject, cell, head, origin="own_models:equilibrium")


finished = Net()
number = 3
