"""What does a metric for the code save while a generator is trained?

    python -m benchmarks.generate.metric_training --output metric_training.json      # about 5 minutes; --fast: 1 minute

The recipe generate-faces (scikit-image's faces, offline), seed by seed: its plain joint solves of 40 steps, the same
with the metric (S measured again every 10 training steps, what that costs counted), and both with fewer joint steps.
Figures: PSNR of held-out faces by a plain fit to convergence; calls (evaluations + VJPs) of a training step; the share
of the training's solves that converged; seconds of the processor.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from benchmarks.trainings import by_steps
from jiio.tasks.frame.load import build, merge, read_yaml
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.generate.generator import EXACT, LatentGenerator
from jiio.tasks.generate.task import Generate, GenerateConfig
from jiio.tasks.images.metrics import psnr

ARMS = {  # label -> how often S is measured, joint steps
    "plain, 40 joint steps (the recipe)": (0, 40),
    "metric, 40 joint steps": (10, 40),
    "metric, 12 joint steps": (10, 12),
    "plain, 12 joint steps": (0, 12),
}


class Told(Generate):
    """The task, with a note of what every step took."""

    def __init__(self, config: GenerateConfig) -> None:
        super().__init__(config)
        self.notes: list[dict[str, float]] = []

    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        loss, figures = super().loss(model, step)
        self.notes.append(figures)
        return loss, figures


def configuration(label: str, seed: int, steps: int) -> GenerateConfig:
    """The recipe with other joint solves."""
    every, joint = ARMS[label]
    options = {"max_steps": joint, "metric_every": every}
    over: dict[str, Any] = {"seed": seed, "steps": steps, "inference": {"name": "Joint", "options": options}}
    path = shipped("--config", "generate-faces", "configs", ".yaml")
    return build(GenerateConfig, merge(read_yaml("--config", path), over))


@torch.no_grad()
def fitted(model: LatentGenerator, images: Tensor) -> float:
    """Mean PSNR of plain fits to convergence, the same for all."""
    problem = model.problem(images, EXACT)
    found = jiio.solve(problem, model.start(images), adjoint=jiio.Detached(), max_steps=400, on_failure="ignore")
    return float(psnr(model.decode(found.z).clamp(0, 1), images).mean())


def one(label: str, seed: int, steps: int) -> Row:
    """One training."""
    task = Told(configuration(label, seed, steps))
    model, seconds = by_steps(task)
    assert isinstance(model, LatentGenerator)

    def mean(*names: str) -> float:
        return sum(note[name] for note in task.notes for name in names) / len(task.notes)

    figures = {"PSNR": fitted(model.eval(), task.images.test), "calls a step": mean("calls", "measuring")}
    return figures | {"converged": mean("converged"), "seconds": seconds}


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Every way to train, seed by seed."""
    found = [
        {"training": label} | rows.each(f"{label}/{seed}", one, label, seed, options.steps)
        for seed in range(options.seeds)
        for label in ARMS
    ]
    show(f"generate-faces, {options.seeds} seed(s): median (range)", over_seeds(found, "training", digits=4))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "steps": 40})
    made.number("--steps", 200, "training steps")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
