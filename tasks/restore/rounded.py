"""How large the errors of a JPEG file are, frequency by frequency, and the map that they make.

A frequency that was not rounded to nothing is off by anything up to half a step. What was rounded to nothing was
smaller than half a step, mostly much smaller: how much is read off the share that was not, as if the frequencies were
distributed by Laplace (Lam and Goodman, "A mathematical analysis of the DCT coefficient distributions for images", IEEE
Trans. Image Processing 9, 2000).
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from jiio.tasks.images.jpeg import CHROMA, LUMA, SIDE, Rounding
from jiio.tasks.maps.base import Denoise
from jiio.tasks.maps.jpeg import Jpeg

GREY = 255.0
TO_COLOUR = (1.0, 1.086, 0.825)  # variance of a colour, on average, for that of luma and of either chroma
BULK = 0.15  # of that variance: blocks differ, and most are smoother than the few that speak for the distribution
COARSE = 1.25  # errors of blocks hang together, and look like more noise: by 14 crops of Train400 and CBSD68
GONE = 6.0 / GREY  # of a colour picture: from this error on little is left in the blocks of its coarser chroma
NOISY = 0.7  # of the rounding's error, from which on noise that was there before says more than the blocks
NOTHING = 1e-4  # share of frequencies, below which a count says no more
ON_STEPS = 0.75  # how well the frequencies of a former JPEG file keep to its steps; 1 is exactly
FINEST = 90  # quality above which the steps are too small to be told from none
MANY = 64  # frequencies that count as a sample


def told_apart(picture: Tensor, rounding: Rounding, sigma: float) -> Jpeg | Denoise:
    """The map that serves a decoded picture (1, C, H, W) best: its blocks where rounding is what happened, the pixels
    themselves where it had noise of ``sigma`` before, or where hardly anything is left of its chroma.

    Rounding takes much of the noise from some frequencies and none from others, which no error of a frequency says; to
    a prior of white noise the whole looks like more of it.
    """
    blocks = jpeg_map(picture, rounding, sigma)
    level = blocks.level or 0.0
    gone = math.sqrt(max(level**2 - sigma**2, 0.0)) / COARSE
    coarse = picture.shape[1] > 1 and gone > GONE
    return Denoise(level) if sigma > NOISY * gone or coarse else blocks


def jpeg_map(picture: Tensor, rounding: Rounding, sigma: float) -> Jpeg:
    """The map behind a decoded picture (1, C, H, W). sigma: of the noise that was there before, in [0, 1]."""
    bare = plain_map(picture, rounding)
    steps = steps_of(rounding, picture.shape[1]) / GREY
    noise = sigma * torch.tensor([1.0, 0.63 / 2, 0.63 / 2][: len(steps)], dtype=torch.float64)[:, None, None]
    errors = (steps.square() / 12 + noise.square()).sqrt()
    level = math.sqrt((COARSE * lost(bare, picture, steps)) ** 2 + sigma**2)
    return dataclasses.replace(bare, errors=errors, sigma=float(errors.min()), level=level)


def plain_map(picture: Tensor, rounding: Rounding) -> Jpeg:
    """The frequencies themselves."""
    ones = torch.ones(picture.shape[1], SIDE, SIDE, dtype=torch.float64)
    return Jpeg.of(ones, tuple(picture.shape[2:]), rounding.coarse)  # type: ignore[arg-type]


def steps_of(rounding: Rounding, channels: int) -> Tensor:
    """(1 or 3, 8, 8), grey levels."""
    tables = (rounding.luma, rounding.chroma, rounding.chroma)[:channels]
    return torch.tensor(tables, dtype=torch.float64).view(-1, SIDE, SIDE)


def lost(bare: Jpeg, picture: Tensor, steps: Tensor) -> float:
    """The root mean square error of a pixel, as far as rounding made it."""
    found = bare.decoded(picture)
    total = 0.0
    for plane, (table, counts) in enumerate(zip(steps, TO_COLOUR, strict=False)):
        skip = SIDE * (bare.coarse[0] if plane else 1), SIDE * (bare.coarse[1] if plane else 1)
        blocks = found[0, plane].unfold(0, SIDE, skip[0]).unfold(1, SIDE, skip[1])
        kept = (blocks.abs() > table / 2).double().mean((0, 1))  # (8, 8)
        kept[0, 0] = 1.0  # the mean of a block has an offset, and is hardly ever 0
        total += counts * float(left_of_rounding(kept, table).mean())
    return math.sqrt(total)


def left_of_rounding(kept: Tensor, steps: Tensor) -> Tensor:
    """The mean squared error of frequencies, where the share ``kept`` was not rounded to nothing."""
    kept = kept.clamp(NOTHING, 1.0)
    rate = -kept.log()  # half a step in units of the width of Laplace's distribution
    edge = torch.exp(-rate)
    inside = (2.0 - edge * (rate.square() + 2 * rate + 2.0)) / (1.0 - edge).clamp_min(1e-12)
    small = steps.square() / 4 * inside / rate.square().clamp_min(1e-12)
    small = torch.where(rate < 1e-3, steps.square() / 12, BULK * small)
    return kept * steps.square() / 12 + (1.0 - kept) * small


def former_quality(picture: Tensor) -> int | None:
    """The quality of a JPEG file that a picture (1, C, H, W) was before it became another kind of file; None where
    nothing speaks for one: its frequencies would stand near multiples of the steps of a table.
    """
    bare = plain_map(picture, Rounding(LUMA, CHROMA, (1, 1)))
    blocks = GREY * bare.decoded(picture)[0, 0].unfold(0, SIDE, SIDE).unfold(1, SIDE, SIDE)  # (h, w, 8, 8)
    scores = {}
    for quality in range(5, FINEST + 1):
        steps = steps_of(Rounding.at(quality), 1)[0]
        large = blocks.abs() > 0.6 * steps
        large[:, :, 0, 0] = False  # the offset of a mean is no multiple
        if int(large.sum()) < MANY:
            continue
        scores[quality] = float(torch.cos(2 * math.pi * blocks / steps)[large].mean())
    best = max(scores.values(), default=0.0)
    return min(q for q, score in scores.items() if score >= 0.97 * best) if best > ON_STEPS else None
