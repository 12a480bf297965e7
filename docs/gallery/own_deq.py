"""An equilibrium network of one's own in one call, and what attacks cost that solve it tightly, hastily, or jointly.

python docs/gallery/own_deq.py [FOLDER]
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from show import folder, pyplot, save
from torch import nn

import jiio
from jiio import attacks
from jiio.tasks.classify.data import ClassifyDataConfig, load_labelled


def own() -> jiio.EquilibriumModel:
    """Three parts as one would write them: what goes in, what is iterated, what comes out."""
    return jiio.EquilibriumModel.of(nn.Sequential(nn.Flatten(), nn.Linear(576, 48)), Cell(48), nn.Linear(48, 2))


class Cell(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, z: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.4 * self.inner(z) + u)


def main(where: Path) -> Path:
    torch.manual_seed(0)
    data, model = load_labelled(ClassifyDataConfig()), own()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        done = model.solve(data.train)
        penalty = jiio.jacobian_penalty(model.cell, done.z.detach(), model.inject(data.train).detach()).mean()
        (F.cross_entropy(model.head(done.z), data.train_labels) + penalty).backward()
        optimiser.step()

    # Both attacks with more and more steps: calls of the cell and its VJPs, and the accuracy that they leave.
    threat = attacks.ThreatModel("l2", 0.5)
    figure, axis = pyplot.subplots(figsize=(5.2, 3.4), layout="constrained")
    hasty = attacks.PGD(warm=True, tolerance=3e-2)
    ways = {"PGD": attacks.PGD(), "PGD, warm and hasty solves": hasty, "joint": attacks.JointAttack()}
    for name, attack in ways.items():
        done = [replace(attack, steps=k)(model, data.test, data.test_labels, threat) for k in (2, 4, 8, 16, 32)]
        calls = [result.cost["evaluations"] + result.cost["vjps"] for result in done]
        axis.plot(calls, [1 - float(result.success.float().mean()) for result in done], "o-", label=name)
    axis.set(xscale="log", xlabel="evaluations + VJPs", ylabel="accuracy left", title="L2 radius 0.5, 60 pictures")
    axis.legend(frameon=False)
    return save(where / "own_deq.png", figure)


if __name__ == "__main__":
    main(folder())
