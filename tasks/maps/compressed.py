"""Compressed measurements: a random part of the coefficients in a basis in which no image is sparse."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from jiio.checks import check_number, fail

from .base import LinearMap, check_images


@dataclass(frozen=True, eq=False)
class Compressed(LinearMap):
    """Random signs, an orthonormal cosine transform, and a subset of its coefficients.

    ``A = S C D``: D flips the signs of pixels at random, which spreads every image evenly over all coefficients, C is
    the orthonormal two-dimensional DCT-II, S keeps some coefficients. Its rows are orthonormal, ``A A* = 1``, so that
    the adjoint is the pseudo-inverse (Do, Gan, Nguyen, Tran, "Fast and efficient compressive sensing using structurally
    random matrices", IEEE Trans. Signal Processing 60, 2012). Every channel is measured alike.

    Args:
        signs: (H, W), 1 or -1.
        places: (m,), which of the H W coefficients are kept, each at most once.
        sigma: noise on the coefficients, which have the same scale as the pixels.
    """

    signs: Tensor
    places: Tensor
    sigma: float = 0.0

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma, 0.0)

    def of_samples(self, index: Tensor, batch: int) -> LinearMap:
        return self

    def A(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W). Returns: (B, C, m)."""
        height, width = self.signs.shape
        check_images("x", x, size=(height, width))
        rows, columns = dct_matrix(height, x.dtype, x.device), dct_matrix(width, x.dtype, x.device)
        coefficients = rows @ (self.signs.to(x) * x) @ columns.T
        return coefficients.flatten(2).index_select(2, self.places.to(x.device))

    def A_adjoint(self, y: Tensor) -> Tensor:
        if not isinstance(y, Tensor) or y.ndim != 3 or y.shape[2] != len(self.places):
            fail("y", f"measurements (B, C, {len(self.places)})", y)
        height, width = self.signs.shape
        empty = y.new_zeros(*y.shape[:2], height * width)
        coefficients = empty.index_copy(2, self.places.to(y.device), y).unflatten(2, (height, width))
        rows, columns = dct_matrix(height, y.dtype, y.device), dct_matrix(width, y.dtype, y.device)
        return self.signs.to(y) * (rows.T @ coefficients @ columns)

    def norm_bound(self, image: Tensor, *, rounds: int = 0) -> float:
        return 1.0


def compressed(size: tuple[int, int], share: float, *, sigma: float = 0.0, generator: torch.Generator) -> Compressed:
    """A random :class:`Compressed` map that keeps ``round(share H W)`` coefficients, at least one."""
    check_number("share", share, 0.0, 1.0, open_low=True)
    signs = 2.0 * torch.randint(2, size, generator=generator).double() - 1.0
    kept = max(1, round(share * size[0] * size[1]))
    return Compressed(signs, torch.randperm(size[0] * size[1], generator=generator)[:kept].sort().values, sigma)


@functools.lru_cache(maxsize=8)
def dct_matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal DCT-II (n, n), made in float64."""
    places = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / n * torch.outer(places, places + 0.5)) * math.sqrt(2.0 / n)
    matrix[0] /= math.sqrt(2.0)
    return matrix.to(device, dtype)
