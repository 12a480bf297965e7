"""Configurations and cells of somebody else's, outside jiio, for the tests of models and their files."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jiio.models import AbstractCell, AbstractCellConfig


class Leaky(AbstractCell):
    """f(z, u) = tanh(u + s z) with a learned s for every feature, on vectors or on maps."""

    def __init__(self, features: int, maps: bool) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((features, 1, 1) if maps else (features,), 0.5))

    def forward(self, z: Tensor, u: Tensor, masks: object = None) -> Tensor:
        return torch.tanh(u + self.slope * z)

    def initial_state(self, u: Tensor) -> Tensor:
        return torch.zeros_like(u)


@dataclass(frozen=True)
class LeakyConfig(AbstractCellConfig):
    """Vectors. pair: of whatever, a nested tuple that a file has to give back."""

    features: int = 6
    pair: tuple[tuple[int, float], ...] = ((1, 0.5),)

    @property
    def widths(self) -> int:
        return self.features

    def cell(self, injected: int = 1) -> nn.Module:
        return Leaky(self.features, maps=False)


@dataclass(frozen=True)
class LeakyMapConfig(AbstractCellConfig):
    """One feature map; what stands around it is as the base has it."""

    channels: int = 4
    halvings: int = 1

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.channels,)

    def cell(self, injected: int = 1) -> nn.Module:
        return Leaky(self.channels, maps=True)


@dataclass(frozen=True)
class KindConfig(LeakyConfig):
    """Its word is taken by a class of jiio's: the word is not what counts outside."""

    kind = "dense"


@dataclass(frozen=True)
class ObjectConfig(LeakyConfig):
    """A field that is no plain data."""

    what: object = None


class BareConfig(LeakyConfig):
    """No dataclass of its own: its fields would be lost."""


@dataclass(frozen=True)
class EndlessConfig(LeakyConfig):
    """As many parameters as ``depth`` says."""

    depth: int = 1

    def cell(self, injected: int = 1) -> nn.Module:
        cell = Leaky(self.features, maps=False)
        cell.more = nn.ParameterList(torch.zeros(1) for _ in range(self.depth))
        return cell


NOT_A_CLASS = LeakyConfig()
