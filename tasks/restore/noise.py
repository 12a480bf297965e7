"""The level of the noise in a single picture, where nobody knows it: two estimates, and which of them is believed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jiio.checks import ArgumentError, fail
from jiio.tasks.maps.base import check_images

from .noise_flat import FlatLevel, drawn, flat_level
from .noise_jpeg import LUMA, LUMA_GAIN, most_noise, noise_before
from .noise_white import white_variance

GREY = 255.0
SEEN = 3.0 / GREY  # below so much a flat patch may be flat for other reasons
APART = 1.6  # times the white estimate, from which on the noise is not white
APART_IN_JPEG = 1.15  # the same, where the file says that it cannot be
FINEST = 0.1  # share of coarse noise that is white at least; a drawing has nothing in its highest frequencies
WHITE, COARSE, JPEG = "white noise", "coarse noise", "noise that went through JPEG"


@dataclass(frozen=True)
class NoiseLevel:
    """sigma: the standard deviation, in the units of the picture. white: the estimate by white noise. flat: that by the
    flattest patches. believed: in words, which kind of noise it is.
    """

    sigma: float
    white: float
    flat: float
    believed: str = WHITE


def estimate_sigma(image: Tensor, known: Tensor | None = None) -> float:
    """The standard deviation of the noise in a picture; see :func:`noise_level`."""
    return noise_level(image, known).sigma


def noise_level(image: Tensor, known: Tensor | None = None, *, steps: Sequence[int] | None = None) -> NoiseLevel:
    """The standard deviation of the noise in a picture, in the units of its values.

    White noise is read off the spectrum of patches without texture. Parts that never had noise (frames, letterboxes,
    stickers) do not count as long as what is left is evenly noisy. Where the flattest patches hold evenly more than
    the spectrum says, the noise is not white (grain, JPEG), and they are believed. The level of a colour picture is
    the root mean square over its channels.

    A picture that is texture all over reads too high; noise so strong that much of it was clipped reads too low.

    Args:
        image: (1, C, H, W), values in [0, 1] or beyond.
        known: (1, 1, H, W), 1 where a pixel was measured; by default all were.
        steps: the 64 of the table of luma, where the picture comes from a JPEG file.

    Errors: ArgumentError where there are too few patches, in a tiny picture or between holes, where the numbers are not
    finite, and for a batch.
    """
    check_images("image", image)
    if len(image) != 1 or not bool(torch.isfinite(image).all()):
        fail("image", "one picture (1, C, H, W) of finite numbers", image, "Call it for every picture by itself.")
    usable = torch.ones_like(image[0, 0], dtype=torch.bool) if known is None else known[0, 0] == 1
    flats = [flat_level(channel, usable) for channel in image[0]]
    white = mean_level([white_level(channel, usable, flat) for channel, flat in zip(image[0], flats, strict=True)])
    flat = mean_level([flat.sigma for flat in flats]) if all(flat.is_noise() for flat in flats) else 0.0
    if steps is not None:
        before = jpeg_level(image, usable, steps)
        return (
            NoiseLevel(before, white, flat, JPEG) if before > APART_IN_JPEG * white else NoiseLevel(white, white, flat)
        )

    # Grain, and a JPEG that was saved as another kind of file.
    if flat < max(SEEN, APART * white) or white < FINEST * flat:
        return NoiseLevel(white, white, flat)
    return NoiseLevel(mean_level([flat.coarse for flat in flats]), white, flat, COARSE)


def mean_level(levels: Sequence[float]) -> float:
    """The root mean square over channels."""
    return math.sqrt(sum(level**2 for level in levels) / len(levels))


def white_level(channel: Tensor, usable: Tensor, flat: FlatLevel) -> float:
    """Of one channel: without the parts that never had noise, where the others evenly have."""
    channel = channel.double()
    if flat.dead > 0.0 and flat.is_noise() and flat.sigma > SEEN:
        with contextlib.suppress(ArgumentError):  # too little may be left
            return math.sqrt(white_variance(channel, usable & ~drawn(channel)))
    return math.sqrt(white_variance(channel, usable))


def jpeg_level(image: Tensor, usable: Tensor, steps: Sequence[int]) -> float:
    """Of the picture before it became a JPEG file, whose luma says most; 0 where that has no noise to be seen."""
    grey = image.shape[1] == 1
    luma = image[0, 0] if grey else (image[0] * image.new_tensor(LUMA)[:, None, None]).sum(0)
    flat = flat_level(luma, usable)
    if not flat.is_noise(lossy=True) or flat.sigma < SEEN:
        return 0.0
    found = min(noise_before(GREY * flat.sigma, steps), most_noise(GREY * luma, usable, steps)) / GREY
    return found if grey else found / LUMA_GAIN
