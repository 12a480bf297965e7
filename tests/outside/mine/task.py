"""A task: the mean of the images is learnt, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from jiio.checks import check_number
from jiio.tasks.frame.config import RunConfig
from jiio.tasks.frame.task import AbstractTask
from jiio.tasks.images.batches import training_batch
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.families import load_images


@dataclass(frozen=True)
class MeanConfig(RunConfig):
    """A training of a mean image.

    Args:
        data: images
        start_at: grey level that the mean begins with
    """

    task: str = "mine.task:Mean"
    data: DataConfig = field(default_factory=DataConfig)
    start_at: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("start_at", self.start_at, 0.0, 1.0)


class MeanImage(nn.Module):
    """One number per pixel."""

    def __init__(self, shape: tuple[int, int, int], level: float) -> None:
        super().__init__()
        self.pixels = nn.Parameter(torch.full(shape, level))


class Mean(AbstractTask):
    """The task ``mine.task:Mean``."""

    Config = MeanConfig

    def __init__(self, config: MeanConfig, *, data_root: Path | None = None) -> None:
        super().__init__(config)
        self.images = load_images(config.data, data_root=data_root)

    def model(self) -> nn.Module:
        data = self.config.data
        return MeanImage((data.channels, data.size, data.size), self.config.start_at)

    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        clean = training_batch(self.images.train, self.config.data, seed=self.config.seed, step=step)
        assert isinstance(model, MeanImage)
        return (clean - model.pixels).square().mean(), {"level": float(model.pixels.detach().mean())}

    def evaluate(self, model: nn.Module) -> list[dict[str, str | float]]:
        assert isinstance(model, MeanImage)
        return [{"images": "test", "squared error": float((self.images.test - model.pixels.detach()).square().mean())}]
