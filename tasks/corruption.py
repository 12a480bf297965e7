"""How a clean image becomes a measurement: linear maps ``y = A x + sigma n`` with tested adjoints.

A map acts on images (B, C, H, W) and knows its adjoint, ``<A x, y> = <x, A* y>`` for all x and y. A corruption draws
maps: it is what a configuration names, and its random part is a pure function of the generator that it is given.
A new kind, a blur or a downsampling, is one small class of each sort.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from jiio.checks import check_integer, check_number, fail


class LinearMap(ABC):
    """A linear map on images, and the level of the Gaussian noise that its measurement carries.

    ``sigma`` is the standard deviation of the noise, in units of the image range [0, 1].
    """

    sigma: float

    @abstractmethod
    def A(self, x: Tensor) -> Tensor:
        """The measurement without noise. x: (B, C, H, W)."""

    @abstractmethod
    def A_adjoint(self, y: Tensor) -> Tensor:
        """The adjoint map, from measurements back to images (B, C, H, W)."""

    def measure(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """``A x + sigma n`` with standard normal n from a CPU generator; the values are not clipped to [0, 1]."""
        y = self.A(x)
        if self.sigma == 0.0:
            return y
        return y + self.sigma * torch.randn(y.shape, generator=generator).to(y)


@dataclass(frozen=True)
class Denoise(LinearMap):
    """The identity: the measurement is the image plus noise."""

    sigma: float

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma, 0.0)

    def A(self, x: Tensor) -> Tensor:
        return x

    def A_adjoint(self, y: Tensor) -> Tensor:
        return y


@dataclass(frozen=True, eq=False)
class Inpaint(LinearMap):
    """Multiplication by a mask; the adjoint is the same multiplication.

    Args:
        mask: (B, 1, H, W) or any shape that broadcasts to the images; 1 where a pixel is kept, 0 where it is missing.
        sigma: noise on the kept pixels; a measurement is exactly 0 in the holes.
    """

    mask: Tensor
    sigma: float = 0.0

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma, 0.0)

    def A(self, x: Tensor) -> Tensor:
        return self.mask.to(x) * x

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self.mask.to(y) * y

    def measure(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.A(super().measure(x, generator))

    def keep(self, y: Tensor, x: Tensor) -> Tensor:
        """x with its known pixels as measured; x itself where the measurement carries noise."""
        return x if self.sigma > 0.0 else y + (1 - self.mask.to(x)) * x


def box_mask(batch: int, height: int, width: int, *, side: int, generator: torch.Generator) -> Tensor:
    """Masks (B, 1, H, W) with one missing square of the given side, anywhere inside the image with equal chance."""
    if not 0 < check_integer("side", side, 1) <= min(height, width):
        fail("side", f"a hole no larger than the image ({height} x {width})", side)
    top = torch.randint(height - side + 1, (batch, 1, 1, 1), generator=generator)
    left = torch.randint(width - side + 1, (batch, 1, 1, 1), generator=generator)
    rows = torch.arange(height).view(1, 1, height, 1)
    columns = torch.arange(width).view(1, 1, 1, width)
    hole = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return (~hole).float()


def random_mask(batch: int, height: int, width: int, *, missing: float, generator: torch.Generator) -> Tensor:
    """Masks (B, 1, H, W) in which exactly ``round(missing H W)`` pixels of every image are missing."""
    check_number("missing", missing, 0.0, 1.0)
    order = torch.rand(batch, height * width, generator=generator).argsort(1)
    return (order.argsort(1) >= round(missing * height * width)).float().view(batch, 1, height, width)


class AbstractCorruption(ABC):
    """A family of linear maps; a configuration names one of the classes below."""

    @abstractmethod
    def draw(self, batch: int, height: int, width: int, *, generator: torch.Generator) -> LinearMap:
        """A map for a batch of images, random where the family is."""


@dataclass(frozen=True)
class GaussianNoise(AbstractCorruption):
    """Denoising.

    Args:
        sigma: standard deviation of the noise on the image range [0, 1].
    """

    sigma: float = 0.2

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma, 0.0)

    def draw(self, batch: int, height: int, width: int, *, generator: torch.Generator) -> Denoise:
        return Denoise(sigma=self.sigma)


@dataclass(frozen=True)
class BoxHole(AbstractCorruption):
    """Inpainting of one square hole at a random place.

    Args:
        side: of the hole, pixels.
        sigma: standard deviation of the noise on the pixels that are left.
    """

    side: int = 8
    sigma: float = 0.0

    def __post_init__(self) -> None:
        check_integer("side", self.side, 1)
        check_number("sigma", self.sigma, 0.0)

    def draw(self, batch: int, height: int, width: int, *, generator: torch.Generator) -> Inpaint:
        return Inpaint(mask=box_mask(batch, height, width, side=self.side, generator=generator), sigma=self.sigma)


@dataclass(frozen=True)
class RandomHoles(AbstractCorruption):
    """Inpainting of single pixels that are missing at random.

    Args:
        missing: share of the pixels, from 0 to 1.
        sigma: standard deviation of the noise on the pixels that are left.
    """

    missing: float = 0.5
    sigma: float = 0.0

    def __post_init__(self) -> None:
        check_number("missing", self.missing, 0.0, 1.0)
        check_number("sigma", self.sigma, 0.0)

    def draw(self, batch: int, height: int, width: int, *, generator: torch.Generator) -> Inpaint:
        mask = random_mask(batch, height, width, missing=self.missing, generator=generator)
        return Inpaint(mask=mask, sigma=self.sigma)
