"""What networks of every task have in common: a cell and how it is solved, and a plain convolutional one beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import jiio
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.config import whole

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class ReferenceConfig:
    """A plain convolutional network (four 3x3 convolutions, two of them with stride 2) of about the given size.

    parameters: of the whole network; the widths are the ones that come nearest.
    """

    parameters: int = 50_000

    def __post_init__(self) -> None:
        whole("parameters", self.parameters, 1_000, 100_000_000)


class Reference(nn.Module):
    """x (B, C, H, W) -> scores (B, classes). Group norm, so that batch mates never meet."""

    def __init__(self, width: int, channels: int, classes: int) -> None:
        super().__init__()
        sizes = [(channels, width, 1), (width, width, 2), (width, 2 * width, 1), (2 * width, 2 * width, 2)]
        layers: list[nn.Module] = []
        for before, after, stride in sizes:
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.GroupNorm(4, after), nn.ReLU()]
        self.maps, self.linear = nn.Sequential(*layers), nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.maps(x).mean((2, 3)))


def reference(config: ReferenceConfig, channels: int, classes: int) -> Reference:
    """The network whose number of parameters comes nearest to the configuration's."""
    return nearest(config, lambda width: Reference(width, channels, classes))


def nearest(config: ReferenceConfig, make: Callable[[int], Network]) -> Network:
    """What ``make`` makes of the width, a multiple of 4, whose number of parameters comes nearest."""

    def size(width: int) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in make(width).parameters())

    width = 4
    while size(width + 4) <= config.parameters:
        width += 4
    return make(min((width, width + 4), key=lambda w: abs(size(w) - config.parameters)))


@dataclass(frozen=True)
class SolvedConfig:
    """A cell, and how its equilibrium is solved: what networks of every task have in common."""

    cell: Choice = Choice("Dense", {"features": 64})
    solver: Choice = Choice("Anderson")
    adjoint: Choice = Choice("Implicit")
    atol: float = 1e-5
    rtol: float = 1e-3
    max_steps: int = 60

    def __post_init__(self) -> None:
        whole("model.max_steps", self.max_steps, 2, 100_000)
        self.solve_settings()

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of :class:`jiio.EquilibriumModel`."""
        return self.solve_settings().arguments()

    def solve_settings(self) -> jiio.SolveSettings:
        """How the equilibrium is solved; the adjoint's own solve, where it has one, to the same tolerance."""
        tolerance = jiio.Tolerance(atol=self.atol, rtol=self.rtol)
        adjoint = self.adjoint.make("adjoint", "model.adjoint")
        if isinstance(adjoint, jiio.Implicit):
            adjoint = replace(adjoint, tolerance=tolerance)
        solver = self.solver.make("solver", "model.solver")
        return jiio.SolveSettings(solver, adjoint, tolerance, self.max_steps, "ignore")  # the log has the share

    @property
    def implicit(self) -> bool:
        """Whether it is an equilibrium model."""
        return self.cell.name != "Reference"
