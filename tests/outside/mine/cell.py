"""A cell, and the configuration that a model of jiio makes it from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jiio.checks import check_integer, check_number
from jiio.models import AbstractCell, AbstractCellConfig


class LeakyCell(AbstractCell):
    """f(z, u) = (1 - leak) W z + u through a tanh, with |W| at most a half at the start."""

    def __init__(self, features: int, leak: float) -> None:
        super().__init__()
        self.features, self.leak = features, leak
        self.weight = nn.Parameter(0.5 * torch.eye(features))

    def forward(self, z: Tensor, u: Tensor, masks: Tensor | None = None) -> Tensor:
        return torch.tanh((1.0 - self.leak) * z @ self.weight.T + u)

    def initial_state(self, u: Tensor) -> Tensor:
        return torch.zeros(u.shape[0], self.features, dtype=u.dtype, device=u.device)


@dataclass(frozen=True)
class LeakyConfig(AbstractCellConfig):
    """A cell that forgets.

    Args:
        features: size of the state
        leak: share of the state that is forgotten in a step
    """

    features: int = 16
    leak: float = 0.1

    def __post_init__(self) -> None:
        check_integer("features", self.features, 1)
        check_number("leak", self.leak, 0.0, 1.0)

    @property
    def widths(self) -> int:
        return self.features

    def cell(self, injected: int = 1) -> LeakyCell:
        return LeakyCell(self.features, self.leak)
