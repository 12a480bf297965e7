"""A restorer without trained weights: images are smooth. Its solve is a real joint solve, so its account is real."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import jiio
import toy
from jiio.tasks.maps.base import LinearMap
from jiio.tasks.restore.base import AbstractRestorer, Restoration


def slopes(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 2C, H, W), differences to the pixel below and to the right."""
    down = torch.nn.functional.pad(x.diff(dim=2), (0, 0, 0, 1))
    right = torch.nn.functional.pad(x.diff(dim=3), (0, 1, 0, 0))
    return torch.cat([down, right], 1)


class SmoothRestorer(AbstractRestorer):
    """min_x |A x - y|^2 + weight |grad x|^2, where the slopes of x are the state z* of a small equilibrium cell.

    It is not pointwise; what a pixel learns from others fades within a few pixels.
    """

    def __init__(self, channels: int, *, weight: float = 0.5) -> None:
        super().__init__()
        self.channels, self.weight = channels, weight
        self.damping = torch.nn.Parameter(torch.tensor(0.5))  # something that has a device

    def restore(self, y: Tensor, operator: LinearMap, **settings: Any) -> Restoration:
        start = operator.start(y)
        weight = self.weight * max(operator.sigma / 0.08, 0.1)

        def objective(z: Tensor, x: Tensor) -> Tensor:
            data = (operator.A(x) - y).square().flatten(1).sum(1)
            return data + weight * z.square().flatten(1).sum(1)

        problem = jiio.Problem(lambda z, x: self.damping * z + (1 - self.damping) * slopes(x), objective)
        settings = {"tolerance": jiio.Tolerance(1e-6, 1e-4), "max_steps": 200} | settings
        solution = jiio.solve(problem, start, slopes(start), **settings)
        return Restoration.of(solution.x, solution)


class ToyRestoring(toy.ToyTask):
    """A training whose weights restore."""

    @classmethod
    def restorer(cls, checkpoint) -> AbstractRestorer:
        return SmoothRestorer(1)
