"""What a measurement is, to whoever wants the image back: a map, its noise, and what is known of the two.

Nothing here is linear. A restorer asks for properties, not for classes: whether the map is a multiplication
(``diagonal``), how much it stretches (``norm_bound``), where its arguments must stay (``domain``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

import jiio

from .noise import AbstractNoise, Gaussian


class AbstractMap(ABC):
    """A map from images (B, C, H, W) to measurements (B, ...), and the noise on them.

    ``sigma``: typical standard deviation of the noise, in the units of the measurement.
    """

    sigma: float
    level: float | None = None  # of noise, at which a prior serves best, for maps that know it

    @abstractmethod
    def A(self, x: Tensor) -> Tensor:
        """The measurement without noise. x: (B, C, H, W)."""

    @abstractmethod
    def start(self, y: Tensor) -> Tensor:
        """An image (B, C, H, W) to start a restoration from: cheap, and explaining y as far as it goes."""

    @abstractmethod
    def norm_bound(self, image: Tensor, *, rounds: int = 30) -> float:
        """The largest factor by which the map stretches a change of the image, there, or a little more."""

    @property
    def noise(self) -> AbstractNoise:
        """Gaussian, unless a map knows better."""
        return Gaussian(self.sigma)

    @property
    def quadratic(self) -> bool:
        """Whether the disagreement of an image with a measurement is a quadratic function of the image."""
        return False

    @property
    def diagonal(self) -> Tensor | None:
        """d where ``A(x) = d x``, pixel by pixel, in a shape that broadcasts against images; None for other maps."""
        return None

    @property
    def domain(self) -> jiio.AbstractProx:
        """Where images must stay for the map to be defined; everywhere, for most."""
        return jiio.Identity()

    def disagreement(self, x: Tensor, y: Tensor) -> Tensor:
        """How badly the image x explains the measurement, (B,): see :mod:`.noise`."""
        return self.noise.disagreement(self.A(x), y)

    def pull(self, image: Tensor, w: Tensor) -> Tensor:
        """What a change w of the measurement (B, ...) asks of the image, there: the adjoint of the derivative."""
        with torch.enable_grad():
            x = image.detach().requires_grad_()
            return torch.autograd.grad(self.A(x), x, w)[0]

    def of_samples(self, index: Tensor, batch: int) -> AbstractMap | None:
        """The map for the images ``index`` (k,) of ``batch``; None where that is not known."""
        return None

    def measure(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """``A(x)`` with noise from a CPU generator; the values are not clipped."""
        return self.noise.draw(self.A(x), generator)

    def keep(self, y: Tensor, x: Tensor) -> Tensor:
        """x with the pixels that the measurement gives exactly put back; x itself where there are none."""
        return x


class Disagreement:
    """Images -> ``factor`` times how badly they explain the measurement y (B, ...), (B,); as an objective or a part of
    one, which can go on with some of the samples.
    """

    def __init__(self, operator: AbstractMap, y: Tensor, factor: float = 1.0) -> None:
        self.operator, self.y, self.factor = operator, y, factor

    def __call__(self, x: Tensor) -> Tensor:
        return self.factor * self.operator.disagreement(x, self.y)

    def rows(self, index: Tensor) -> Disagreement | None:
        """The samples ``index`` (k,), where the map is known for them."""
        operator = self.operator.of_samples(index, len(self.y))
        return None if operator is None else Disagreement(operator, self.y.index_select(0, index), self.factor)


@dataclass(frozen=True, eq=False)
class WithNoise(AbstractMap):
    """A map under a noise of another kind than its own. sigma: the level of that noise on the measurement at hand."""

    operator: AbstractMap
    kind: AbstractNoise
    sigma: float

    def of_samples(self, index: Tensor, batch: int) -> AbstractMap | None:
        operator = self.operator.of_samples(index, batch)
        return None if operator is None else WithNoise(operator, self.kind, self.sigma)

    @property
    def noise(self) -> AbstractNoise:
        return self.kind

    @property
    def quadratic(self) -> bool:
        return self.operator.quadratic and isinstance(self.kind, Gaussian)

    @property
    def diagonal(self) -> Tensor | None:
        return self.operator.diagonal

    @property
    def domain(self) -> jiio.AbstractProx:
        return self.operator.domain

    def A(self, x: Tensor) -> Tensor:
        return self.operator.A(x)

    def start(self, y: Tensor) -> Tensor:
        return self.operator.start(y)

    def norm_bound(self, image: Tensor, *, rounds: int = 30) -> float:
        return self.operator.norm_bound(image, rounds=rounds)
