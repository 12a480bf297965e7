"""What gives reason to doubt a restoration: a guess that does not explain the picture, or nothing done at all.

What a right map leaves over is noise: no pixel of it is like the next one. A wrong one leaves edges.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jiio.tasks.images.pictures import Picture
from jiio.tasks.maps.base import LinearMap, fill

from ..blind.find import doubt_by_spectrum
from ..imagespace import USUAL
from .damage import AbstractDamage, Blurred
from .rounded import by_the_file
from .several import Several

GREY = 255.0
ALIKE = 0.12  # covariance of neighbours in what a right map leaves over, in units of the noise's variance, at most
FACTOR, DIFFERENCE = 2.0, 5.0  # between a level that was given and the estimate: both are needed for a doubt
CLEAN = 1.0  # grey levels; who names a level where hardly any noise is to be seen knows more than the picture tells
SMALLEST = 4096  # pixels, below which the estimate is none to go by
FULL = 0.9  # share of pixels that must be known, before holes that were filled may speak for a blur
ROUNDED = 0.3  # grey levels, of whole numbers
UNCHANGED = 0.5  # grey levels, root mean square
LARGEST = 16_000_000  # pixels of the image, beyond which the residual would cost too much memory


@torch.no_grad()
def structure_left(operator: LinearMap, image: Tensor, y: Tensor, sigma: float) -> float:
    """The covariance of neighbours in A x - y over the variance that the restorer was told of; 0 for white noise.

    image: (B, C, H, W) and y, on the CPU.
    """
    left = operator.A(image) - y
    down, right = left[..., 1:, :] * left[..., :-1, :], left[..., 1:] * left[..., :-1]
    return max(float(down.mean()), float(right.mean())) / max(sigma, USUAL.sigma) ** 2


def doubt_the_map(operator: LinearMap, image: Tensor, y: Tensor, sigma: float, words: str) -> str | None:
    """A sentence where the damage that was named cannot be what happened to the picture."""
    if image.shape[2] * image.shape[3] > LARGEST:
        return None
    left = structure_left(operator, image, y, sigma)
    if left < ALIKE:
        return None
    return (
        f"the {words} given does not explain the picture: what it leaves over is no noise ({left:.2f} of its variance "
        f"is shared by neighbours, {ALIKE:g} at most where the guess is right); another guess may do better"
    )


def doubt_the_blur(
    damage: AbstractDamage, picture: Picture, operator: LinearMap, image: Tensor, y: Tensor, sigma: float
) -> str | None:
    """A sentence where a blur that was named is not that of the picture, whatever else happened to it."""
    first = damage.first if isinstance(damage, Several) else damage
    if not isinstance(first, Blurred):
        return None
    alone = first is damage  # beside holes or JPEG, neighbours share errors in any case
    words = doubt_the_map(operator, image, y, sigma, first.words) if alone else None
    seen, known = torch.from_numpy(picture.pixels)[None], damage.known(picture)
    if words is not None or (known is not None and float(known.mean()) < FULL):
        return words
    if by_the_file(picture) is not None:
        return None  # its high frequencies are what the tables left of them
    whole = seen if known is None else fill(seen * known, known.expand_as(seen))
    return doubt_by_spectrum(whole, first.kernel, max(sigma, ROUNDED / GREY), first.words)


def doubt_the_level(given: float, estimated: float) -> str | None:
    """A sentence where a level that was given is far from what the picture says; 0 asks for pixels as they are."""
    low, high = sorted((GREY * given, GREY * estimated))
    if given == 0.0 or GREY * estimated < CLEAN or high < FACTOR * low or high - low < DIFFERENCE:
        return None
    effect = "much of it stays" if given < estimated else "detail is lost"
    return f"the noise in it reads {GREY * estimated:.1f} grey levels, not {GREY * given:.1f}: {effect}"


def unchanged(before: Tensor, after: Tensor) -> bool:
    """Whether hardly a pixel differs."""
    return GREY * math.sqrt(float((after - before).square().mean())) < UNCHANGED
