"""A joint solve with a constraint: the input runs along the border of a ball and a box until nothing is left to gain.

python docs/gallery/constraint.py [FOLDER]
"""

from __future__ import annotations

from pathlib import Path

import torch
from show import folder, pyplot, save

import jiio

torch.manual_seed(3)
W = 0.6 * torch.linalg.qr(torch.randn(8, 8)).Q  # a contraction
U, TARGET = torch.randn(8, 2), torch.randn(8)


def cell(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(z @ W.T + x @ U.T)


def objective(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (z - TARGET).square().sum(1)


def main(where: Path) -> Path:
    reach = jiio.Intersection(jiio.L2Ball(0.9, center=torch.tensor([0.4, -0.3])), jiio.Box(-0.3, 1.0))
    problem = jiio.Problem(cell, objective, reach)
    starts = torch.tensor([[1.0, -0.3], [-0.2, -0.3], [0.4, 0.0]])
    done = jiio.solve(problem, starts, torch.zeros(3, 8), trace="points")
    print(done.summary())

    # The objective that nobody has written down: its value at the equilibrium of every input of a grid.
    side = torch.linspace(-0.8, 1.2, 101)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).reshape(-1, 2)
    states = jiio.equilibrium(cell, grid, torch.zeros(len(grid), 8), adjoint=jiio.Detached()).z
    heights = objective(states, grid).reshape(101, 101)
    inside = (reach.violation(grid) <= 1e-6).reshape(101, 101).float()

    figure, axis = pyplot.subplots(figsize=(4.6, 4.4), layout="constrained")
    axis.contourf(side, side, heights, levels=24, cmap="viridis")
    axis.contour(side, side, inside, levels=[0.5], colors="white", linewidths=1.5)
    for path in torch.stack(done.trace.x).unbind(1):  # (T, 2), the way of each start
        axis.plot(*path.T, "o-", color="white", markersize=3, linewidth=1)
    axis.plot(*done.x.T, "*", color="#ff5533", markersize=13)
    axis.set_title("three starts, one constrained optimum (white: ball and box)", fontsize=9)
    return save(where / "constraint.png", figure)


if __name__ == "__main__":
    main(folder())
