"""An equilibrium as somebody writes it who knows nothing of jiio, and a function that makes a model of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import jiio


class Tanh(nn.Module):
    """z = tanh(W z / 2 + U x), read by a linear layer."""

    def __init__(self, features: int = 6) -> None:
        super().__init__()
        self.stem, self.inner, self.top = nn.Linear(5, features), nn.Linear(features, features), nn.Linear(features, 3)

    def step(self, z: Tensor, u: Tensor) -> Tensor:
        return step(self.inner, z, u)


def step(inner: nn.Module, z: Tensor, u: Tensor) -> Tensor:
    return torch.tanh(0.5 * inner(z) + u)


class Step(nn.Module):
    """The step as a module without an initial state."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return step(self.inner, z, u)


def build(features: int = 6) -> jiio.EquilibriumModel:
    net = Tanh(features)
    settings = {"tolerance": jiio.Tolerance(1e-6, 0.0), "origin": "own_parts:build"}
    return jiio.EquilibriumModel.of(net.stem, net.step, net.top, **settings)  # type: ignore[arg-type]


def other() -> jiio.EquilibriumModel:
    return build(7)
