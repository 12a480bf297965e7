"""Configurations of every kind of cell, and a cell without a base class, for the tests of the models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jiio import models

SMALL = models.MultiscaleConfig(
    (8, 8), expansion=1, groups=2, fusion_groups=2, head_channels=(2, 2), final_channels=8, activation="softplus"
)
CONFIGS: dict[str, Any] = {
    "dense": models.DenseConfig(12, scaling="weight"),
    "monotone": models.MonotoneConfig(12),
    "conv": models.ConvConfig(8, groups=2, head_channels=(2,), final_channels=8),
    "multiscale": SMALL,
}


class Plain(nn.Module):
    """A cell of the user's own, without a base class."""

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return 0.5 * torch.tanh(z) + u

    def initial_state(self, u: Tensor) -> Tensor:
        return torch.zeros_like(u)
