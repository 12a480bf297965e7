"""A task that trains in milliseconds, and the command line with it: ``python tests/toy.py train CONFIG ...``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from jiio.outputs.seeds import generator
from jiio.tasks.frame.registry import TABLE
from jiio.tasks.frame.task import AbstractTask
from jiio.tasks.images.batches import training_batch
from jiio.tasks.images.families import load_images
from jiio.tasks.restore.latent import RestoreConfig

YAML = """\
# jiio train toy.yaml
task: toy
output: runs
steps: 40
checkpoint_every: 5
data: {size: 8, batch_size: 4}
corruption: {name: BoxHole, options: {side: 3}}
optimiser: {rate: 1e-2, warmup: 3}
"""

RESTORE = """\
task: restore
steps: 40
checkpoint_every: 5
data: {size: 8, batch_size: 4}
corruption: {name: BoxHole, options: {side: 3}}
model: {cell: {name: Dense, options: {features: 12}}, latent: 4, squash: none}
joint: {max_steps: 20, adjoint: {name: KKT, options: {max_steps: 20}}}
"""


class ToyTask(AbstractTask):
    """Denoise small faces by two layers; with dropout, so that the global random state matters."""

    def __init__(self, config: RestoreConfig, *, data_root: Path | None = None) -> None:
        self.config = config
        self.images = load_images(config.data, data_root=data_root)

    def model(self) -> nn.Module:
        pixels = self.config.data.channels * self.config.data.size**2
        middle = nn.utils.parametrizations.weight_norm(nn.Linear(pixels, 12))
        return nn.Sequential(nn.Flatten(), middle, nn.Tanh(), nn.Dropout(0.2), nn.Linear(12, pixels))

    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        clean = training_batch(self.images.train, self.config.data, seed=self.config.seed, step=step)
        noisy = clean + 0.1 * torch.randn(clean.shape, generator=generator(self.config.seed, "noise", step))
        loss = (model(noisy) - clean.flatten(1)).square().mean()
        return loss, {"brightness": float(clean.mean())}

    def evaluate(self, model: nn.Module) -> list[dict[str, str | float]]:
        with torch.no_grad():
            error = (model(self.images.test) - self.images.test.flatten(1)).square().mean()
        return [{"images": "test", "squared error": float(error), "undefined": float("nan")}]


def register() -> None:
    """Let configurations name the toy."""
    TABLE["task"]["toy"] = "toy:ToyTask"


if __name__ == "__main__":
    from jiio.tasks.cli import main

    torch.set_num_threads(1)
    register()
    sys.exit(main())
