"""A corruption, a defence and a logger."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from jiio.tasks.classify.defences import AbstractDefence, Attacked, Batch
from jiio.tasks.frame.logs import AbstractLogger
from jiio.tasks.maps.base import Inpaint
from jiio.tasks.maps.corruption import AbstractCorruption


@dataclass(frozen=True)
class Stripes(AbstractCorruption):
    """Every n-th row is missing.

    Args:
        every: n
        sigma: of the noise on the rows that are left
    """

    every: int = 3
    sigma: float = 0.0

    def draw(self, batch: int, height: int, width: int, *, generator: torch.Generator) -> Inpaint:
        first = int(torch.randint(self.every, (), generator=generator))
        mask = torch.ones(batch, 1, height, width)
        mask[:, :, first :: self.every] = 0.0
        return Inpaint(mask=mask, sigma=self.sigma)


@dataclass(frozen=True)
class Noisy(AbstractDefence):
    """Training on noisy images.

    Args:
        sigma: of the noise
    """

    sigma: float = 0.1

    def images(self, batch: Batch) -> Attacked:
        return Attacked((batch.x + self.sigma * torch.randn_like(batch.x)).clamp(0.0, 1.0))


class LastLine(AbstractLogger):
    """``last.json``: the figures of the newest step."""

    def __init__(self, name: str = "last.json") -> None:
        self.name = name

    def start(self, folder: Path, step: int) -> None:
        self.path = folder / self.name

    def log(self, step: int, figures: dict[str, float]) -> None:
        self.path.write_text(json.dumps({"step": step, **figures}))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
