"""What a configuration names: families of corruptions, each of which draws a linear map for images of a given size.

The random part of a map is a pure function of the generator that it is given. The maps themselves are in :mod:`.base`,
:mod:`.convolution` and :mod:`.compressed`. In all of them ``sigma`` is the standard deviation of the noise on the image
range [0, 1].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jiio.checks import check_choice, check_integer, check_number, fail
from jiio.tasks.frame.files import InputError, read_image

from .base import Denoise, Inpaint, box_mask, random_mask
from .compressed import Compressed, compressed
from .convolution import BOUNDARIES, Convolution, blur, downsample
from .forward import AbstractMap
from .kernels import gaussian_kernel, given_kernel, motion_kernel
from .physics import adopted


class AbstractCorruption(ABC):
    """A family of maps; a configuration names one of the classes below, or one of somebody's own."""

    @abstractmethod
    def draw(self, batch: int, height: int, width: int, *, generator: torch.Generator) -> Any:
        """A map for a batch of images, random where the family is: one of jiio, or whatever :func:`.physics.as_map`
        takes, such as a function of images. Where that says nothing of its noise, ``noise`` or ``sigma`` of this
        object does.
        """

    def map(self, images: Tensor, *, generator: torch.Generator) -> AbstractMap:
        """What is drawn for images (B, C, H, W), as a map of jiio."""
        batch, _, height, width = images.shape
        drawn = self.draw(batch, height, width, generator=generator)
        return adopted(drawn, images, noise=getattr(self, "noise", getattr(self, "sigma", None)))


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
        sigma: of the noise on the pixels that are left.
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
        sigma: of the noise on the pixels that are left.
    """

    missing: float = 0.5
    sigma: float = 0.0

    def __post_init__(self) -> None:
        check_number("missing", self.missing, 0.0, 1.0)
        check_number("sigma", self.sigma, 0.0)

    def draw(self, batch: int, height: int, width: int, *, generator: torch.Generator) -> Inpaint:
        mask = random_mask(batch, height, width, missing=self.missing, generator=generator)
        return Inpaint(mask=mask, sigma=self.sigma)


@dataclass(frozen=True)
class GivenMask(AbstractCorruption):
    """Inpainting of the pixels that a picture marks.

    Args:
        path: of a picture as large as the images; its dark half (below 0.5) is missing, its bright half is kept.
        sigma: of the noise on the pixels that are left.
    """

    path: str
    sigma: float = 0.0

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma, 0.0)
        _read("path", self.path)  # what is wrong with the file is said before anything runs

    def draw(self, batch: int, height: int, width: int, *, generator: torch.Generator) -> Inpaint:
        mask = (_read("path", self.path) >= 0.5).float()
        if mask.shape != (height, width):
            came = f"{self.path} with {mask.shape[0]} x {mask.shape[1]}"
            fail("path", f"a mask as large as the image ({height} x {width})", came, error=InputError)
        return Inpaint(mask=mask[None, None], sigma=self.sigma)


@dataclass(frozen=True, kw_only=True)
class _Blur(AbstractCorruption):
    """What the blurs share: the border and the noise."""

    boundary: str = "circular"
    sigma: float = 0.01

    def __post_init__(self) -> None:
        check_choice("boundary", self.boundary, BOUNDARIES)
        check_number("sigma", self.sigma, 0.0)
        self.kernel()

    @abstractmethod
    def kernel(self) -> Tensor:
        """The kernel (k, l), of sum 1."""

    def draw(self, batch: int, height: int, width: int, *, generator: torch.Generator) -> Convolution:
        return blur(self.kernel(), (height, width), boundary=self.boundary, sigma=self.sigma)


@dataclass(frozen=True, kw_only=True)
class GaussianBlur(_Blur):
    """Blur by a Gaussian.

    Args:
        width: standard deviation of the kernel, pixels.
        boundary: what lies beyond the border: circular, symmetric, replicate, valid.
        sigma: of the noise.
    """

    width: float = 1.6

    def kernel(self) -> Tensor:
        return gaussian_kernel(self.width)


@dataclass(frozen=True, kw_only=True)
class MotionBlur(_Blur):
    """Blur by a straight motion.

    Args:
        length: of the motion, pixels.
        angle: degrees, counter-clockwise from the horizontal.
        boundary: what lies beyond the border: circular, symmetric, replicate, valid.
        sigma: of the noise.
    """

    length: float = 15.0
    angle: float = 30.0

    def kernel(self) -> Tensor:
        return motion_kernel(self.length, self.angle)


@dataclass(frozen=True, kw_only=True)
class GivenKernel(_Blur):
    """Blur by a kernel that a picture shows.

    Args:
        path: of a small picture, its grey values being the weights; they are scaled to sum 1.
        boundary: what lies beyond the border: circular, symmetric, replicate, valid.
        sigma: of the noise.
    """

    path: str

    def kernel(self) -> Tensor:
        return given_kernel(_read("path", self.path))


@dataclass(frozen=True)
class Downsampling(AbstractCorruption):
    """Super-resolution: bicubic downsampling with antialiasing.

    Args:
        factor: 2, 3, 4, up to 8.
        boundary: what lies beyond the border: symmetric (MATLAB's way), replicate, circular, valid.
        sigma: of the noise on the small image.
    """

    factor: int = 2
    boundary: str = "symmetric"
    sigma: float = 0.0

    def __post_init__(self) -> None:
        downsample(self.factor, (64, 64), boundary=self.boundary, sigma=self.sigma)  # checks all three

    def draw(self, batch: int, height: int, width: int, *, generator: torch.Generator) -> Convolution:
        return downsample(self.factor, (height, width), boundary=self.boundary, sigma=self.sigma)


@dataclass(frozen=True)
class CompressedSensing(AbstractCorruption):
    """A random part of the coefficients of the image in a basis in which it is not sparse.

    Args:
        share: of the coefficients that is measured, above 0, at most 1.
        sigma: of the noise on the coefficients, whose scale is that of the pixels.
    """

    share: float = 0.25
    sigma: float = 0.0

    def __post_init__(self) -> None:
        check_number("share", self.share, 0.0, 1.0, open_low=True)
        check_number("sigma", self.sigma, 0.0)

    def draw(self, batch: int, height: int, width: int, *, generator: torch.Generator) -> Compressed:
        return compressed((height, width), self.share, sigma=self.sigma, generator=generator)


def _read(argument: str, path: str) -> Tensor:
    """A small picture as grey values (H, W)."""
    return torch.from_numpy(read_image(argument, Path(path), channels=1)[:, :, 0])
