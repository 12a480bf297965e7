"""A corruption, a defence and a logger."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from jiio.tasks.classify.defences import AbstractDefence, Attacked, Batch
from jiio.tasks.frame.logs import AbstractLogger
from jiio.tasks.maps.base import Inpaint
from jiio.tasks.maps.corruption import AbstractCorruption
from jiio.tasks.maps.noise import Poisson


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
class RowBlur(AbstractCorruption):
    """Every row is smeared to the right: a function of images, and nobody wrote its adjoint.

    Args:
        sigma: of the noise
    """

    sigma: float = 0.05

    def draw(self, batch: int, height: int, width: int, *, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        return lambda x: (x + x.roll(1, 3) + x.roll(2, 3)) / 3


@dataclass(frozen=True)
class Film(AbstractCorruption):
    """A curve of darkening, not linear, and grain that grows with the light.

    Args:
        gamma: of the curve
    """

    gamma: float = 0.5
    noise = Poisson(1 / 200)

    def draw(self, batch: int, height: int, width: int, *, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        return lambda x: x.clamp_min(1e-3) ** self.gamma


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
