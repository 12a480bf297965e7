"""What a fit of a picture gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from jiio.tasks.images.metrics import psnr

from .fit import Fit


@dataclass(frozen=True, eq=False)
class Fitted:
    """A picture and its fit, at the size at which it was fitted.

    image, result: (C, H, W) in [0, 1]. fits: of every tile and channel, (N,) figures each. places: for every tile its
    row and column of pixels. surprise: (N,).
    """

    image: Tensor
    result: Tensor
    fit: Fit
    places: list[tuple[int, int]]
    surprise: Tensor
    side: int

    @property
    def quality(self) -> float:
        """PSNR in dB."""
        return float(psnr(self.result[None], self.image[None]))
