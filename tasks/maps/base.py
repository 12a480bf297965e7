"""Linear maps ``y = A x + sigma n`` with exact adjoints: what every map offers, and the two simplest.

A map acts on images (B, C, H, W) and knows its adjoint, ``<A x, y> = <x, A* y>`` for all x and y. Where it acts locally
it can be restricted to a window of the image, so that large pictures are restored in overlapping tiles.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio.checks import check_integer, check_number, fail
from jiio.outputs.shares import drawn
from jiio.persample import share_of

from .forward import AbstractMap
from .least import explained, nearest


def check_images(argument: str, x: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
    """Images (B, C, H, W) of floating numbers, of the given height and width where one is given."""
    shape = "(B, C, H, W)" if size is None else f"(B, C, {size[0]}, {size[1]})"
    if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point() or (size and x.shape[2:] != size):
        fail(argument, f"a floating tensor {shape}", x)
    return x


class LinearMap(AbstractMap):
    """A linear map on images, and the level of the Gaussian noise that its measurement carries.

    ``sigma`` is the standard deviation of the noise, in units of the image range [0, 1].
    """

    @property
    def quadratic(self) -> bool:
        return True

    @abstractmethod
    def A_adjoint(self, y: Tensor) -> Tensor:
        """The adjoint map, from measurements back to images (B, C, H, W)."""

    def pull(self, image: Tensor, w: Tensor) -> Tensor:
        return self.A_adjoint(w)

    def start(self, y: Tensor) -> Tensor:
        """A few steps of least squares, stopped before they fit the noise; maps that know better say so."""
        with torch.no_grad():
            return explained(self, y)

    @torch.no_grad()
    def nearest(self, x: Tensor, y: Tensor, step: Tensor) -> Tensor:
        """The images u (B, C, H, W) of the least 1/2 |u - x|^2 + step/2 |A u - y|^2. step: (B, 1, 1, 1) or ()."""
        d = self.diagonal
        if d is None:
            return nearest(self, x, y, step, about=lambda rest: self.about(rest, step))
        return (x + step * self.A_adjoint(y)) / (1.0 + step * d.to(x).square())

    def about(self, x: Tensor, step: Tensor) -> Tensor:
        """Roughly (I + step A* A)^-1 x, for the search of :meth:`nearest`."""
        return x

    def norm_bound(self, image: Tensor, *, rounds: int = 30) -> float:
        """The largest singular value of the map on images of this one's shape, or a little more.

        By power iteration from a fixed random image, which stays below the true value, and a margin of 5 % on top.
        """
        x = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
        value = 0.0
        for _ in range(rounds):
            x = self.A_adjoint(self.A(x))
            length = float(x.norm())
            if length == 0.0:
                return 0.0
            value, x = length, x / length
        return 1.05 * value**0.5

    def window(self, top: int, left: int, height: int, width: int) -> LinearMap:
        """The map between a window of the image and those measured values that the window alone explains.

        Errors: ArgumentError where the map does not act locally, or nothing is measured inside the window alone.
        """
        words = f"{type(self).__name__}, in which every value depends on the whole image"
        fail("operator", "a map that acts locally", words, "Restore the picture as a whole, without tiles.")

    def seen(self, top: int, left: int, height: int, width: int) -> tuple[int, int, int, int]:
        """The window of the measured image that :meth:`window` of the same four numbers measures."""
        return top, left, height, width

    def window_of(self, y: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
        """The part of the measurement y that belongs to :meth:`window` of the same four numbers."""
        self.window(top, left, height, width)  # says what is wrong where it cannot be
        return crop(y, top, left, height, width)


def check_window(top: int, left: int, height: int, width: int, *, size: tuple[int, int] | None = None) -> None:
    """A window that lies inside an image of the given size."""
    for name, value, low in (("top", top, 0), ("left", left, 0), ("height", height, 1), ("width", width, 1)):
        check_integer(name, value, low)
    if size is not None and (top + height > size[0] or left + width > size[1]):
        came = f"one that ends at row {top + height} and column {left + width}"
        fail("window", f"a window inside the image ({size[0]} x {size[1]})", came)


def crop(x: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """A window of the last two dimensions; one of length 1 stays, because it stands for all."""
    if x.shape[-2] > 1:
        x = x[..., top : top + height, :]
    return x[..., left : left + width] if x.shape[-1] > 1 else x


@dataclass(frozen=True)
class Denoise(LinearMap):
    """The identity: the measurement is the image plus noise."""

    sigma: float

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma, 0.0)

    def of_samples(self, index: Tensor, batch: int) -> LinearMap:
        return self

    @property
    def diagonal(self) -> Tensor:
        return torch.ones(1, 1, 1, 1)

    def A(self, x: Tensor) -> Tensor:
        return x

    def A_adjoint(self, y: Tensor) -> Tensor:
        return y

    def start(self, y: Tensor) -> Tensor:
        return y

    def norm_bound(self, image: Tensor, *, rounds: int = 0) -> float:
        return 1.0

    def window(self, top: int, left: int, height: int, width: int) -> Denoise:
        check_window(top, left, height, width)
        return self


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
        if not isinstance(self.mask, Tensor) or not self.mask.is_floating_point() or self.mask.ndim < 2:
            remedy = "Turn a mask of truth values into one by .float()."
            fail("mask", "a floating tensor (B, 1, H, W)", self.mask, remedy)
        if not bool(((self.mask == 0) | (self.mask == 1)).all()):
            fail("mask", "1 where a pixel is kept and 0 where it is missing", "other values")

    def mask_for(self, x: Tensor) -> Tensor:
        """The mask in the type of the images, checked against their shape."""
        check_images("x", x)
        try:
            fits = torch.broadcast_shapes(self.mask.shape, x.shape) == x.shape
        except RuntimeError:
            fits = False
        if not fits:
            fail("x", f"images that the mask of shape {tuple(self.mask.shape)} fits", x)
        return self.mask.to(x)

    def of_samples(self, index: Tensor, batch: int) -> LinearMap:
        return replace(self, mask=share_of(self.mask, index, batch, 4))

    @property
    def diagonal(self) -> Tensor:
        return self.mask

    def A(self, x: Tensor) -> Tensor:
        return self.mask_for(x) * x

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self.mask_for(y) * y

    def measure(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.A(super().measure(x, generator))

    def start(self, y: Tensor) -> Tensor:
        """The holes filled with local means, from fine to coarse."""
        return fill(y, self.mask_for(y).expand_as(y))

    def keep(self, y: Tensor, x: Tensor) -> Tensor:
        """x with its known pixels as measured; x itself where the measurement carries noise."""
        return x if self.sigma > 0.0 else y + (1 - self.mask_for(x)) * x

    def norm_bound(self, image: Tensor, *, rounds: int = 0) -> float:
        return 1.0

    def window(self, top: int, left: int, height: int, width: int) -> Inpaint:
        rows, columns = self.mask.shape[-2:]
        any_length = 1 << 62  # a mask of length 1 stands for any
        size = (rows if rows > 1 else any_length, columns if columns > 1 else any_length)
        check_window(top, left, height, width, size=size)
        return Inpaint(crop(self.mask, top, left, height, width), self.sigma)


def fill(y: Tensor, mask: Tensor) -> Tensor:
    """y (B, C, H, W) with its holes (where the mask of the same shape is 0) filled from the pixels around them.

    Means over known pixels are taken on grids that get coarser by 2 until nothing is missing, and carried back. Where
    an image has no known pixel at all, it becomes 0.5.
    """
    if bool((mask == 1).all()):
        return y
    if max(y.shape[2:]) == 1:
        return torch.where(mask == 1, y, 0.5)
    share = F.avg_pool2d(mask, 2, ceil_mode=True)
    means = F.avg_pool2d(mask * y, 2, ceil_mode=True) / share.where(share > 0, 1.0)
    coarse = fill(means, (share > 0).to(y))
    return torch.where(mask == 1, y, F.interpolate(coarse, size=y.shape[2:], mode="bilinear", align_corners=False))


def box_mask(batch: int, height: int, width: int, *, side: int, generator: torch.Generator) -> Tensor:
    """Masks (B, 1, H, W) with one missing square of the given side, anywhere inside the image with equal chance."""
    if not 0 < check_integer("side", side, 1) <= min(height, width):
        fail("side", f"a hole no larger than the image ({height} x {width})", side)
    top = drawn(lambda n: torch.randint(height - side + 1, (n, 1, 1, 1), generator=generator), batch)
    left = drawn(lambda n: torch.randint(width - side + 1, (n, 1, 1, 1), generator=generator), batch)
    rows = torch.arange(height).view(1, 1, height, 1)
    columns = torch.arange(width).view(1, 1, 1, width)
    hole = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return (~hole).float()


def random_mask(batch: int, height: int, width: int, *, missing: float, generator: torch.Generator) -> Tensor:
    """Masks (B, 1, H, W) in which exactly ``round(missing H W)`` pixels of every image are missing."""
    check_number("missing", missing, 0.0, 1.0)
    order = drawn(lambda n: torch.rand(n, height * width, generator=generator), batch).argsort(1)
    return (order.argsort(1) >= round(missing * height * width)).float().view(batch, 1, height, width)
