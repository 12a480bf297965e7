"""What JPEG leaves of noise, and so how much there was: every coefficient of a block is rounded to a multiple of its
step, which takes away what is smaller than half of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from jiio.tasks.maps.jpeg import SIDE, cosines

HIGH = 7  # row and column of a frequency together, from which on texture has little and white noise its share
FLAT = 0.5  # of the blocks: those of the least energy
DRAWN = 1.0  # squared grey levels of a block without its mean, up to which it never had noise
LEAST = 32  # blocks, for a mean worth its name
ENOUGH = 1 << 16  # blocks
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (JFIF)
LUMA_GAIN = math.sqrt(sum(weight**2 for weight in LUMA))  # of noise that is independent in the three
MOST = 128.0  # grey levels
MULTIPLES = 24  # of a step, beyond which rounding does not matter


def left_of_noise(sigma: float, steps: Sequence[int]) -> float:
    """The standard deviation of white Gaussian noise after JPEG; steps: the 64 of the table, in grey levels."""
    from scipy.special import erf

    step = np.asarray(steps, np.float64)[:, None]
    if sigma <= 0.0:
        return 0.0

    # E[round(c / q)^2] q^2 = q^2 sum over k of (2 k - 1) P(|c| > (k - 1/2) q).
    k = np.arange(1, MULTIPLES + 1)
    beyond = 1.0 - erf((k - 0.5) * step / (sigma * math.sqrt(2.0)))
    rounded = step[:, 0] ** 2 * ((2 * k - 1) * beyond).sum(1)
    fine = step[:, 0] * MULTIPLES < 6.0 * sigma  # many steps within the noise: rounding adds its own variance
    variance = np.where(fine, sigma**2 + step[:, 0] ** 2 / 12, rounded)
    return float(math.sqrt(variance.mean()))


def noise_before(sigma: float, steps: Sequence[int]) -> float:
    """The way back: the level in grey levels of the noise of which JPEG has left ``sigma``."""
    low, high = 0.0, MOST
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if left_of_noise(middle, steps) < sigma else (low, middle)
    return (low + high) / 2


def most_noise(luma: Tensor, usable: Tensor, steps: Sequence[int]) -> float:
    """The level in grey levels above which white noise would have left more in the high frequencies than there is.

    Texture is even enough to be taken for noise in some pictures; where it is smoother than noise, this tells.

    Args:
        luma: (H, W), grey levels, from the first block on.
        usable: (H, W), which pixels count.
        steps: the 64 of the table.
    """
    values, known = (blocks_of(plane) for plane in (luma, usable))
    values = values[known.all(2).all(1)].double()
    spectra = cosines(values) @ values @ cosines(values).T
    spectra[:, 0, 0] = 0.0
    spectra = spectra[spectra.square().sum((1, 2)) > DRAWN]
    if len(spectra) < LEAST:
        return MOST

    # The flatter half by the other frequencies, of which those of noise are independent: it is any half of them.
    places = torch.arange(SIDE, device=luma.device)
    band = places[:, None] + places >= HIGH
    other = spectra[:, ~band].square().sum(1)
    found = spectra[other <= other.quantile(FLAT)][:, band].square().mean().sqrt()
    return noise_before(float(found), np.asarray(steps).reshape(SIDE, SIDE)[band.cpu().numpy()].tolist())


def blocks_of(plane: Tensor) -> Tensor:
    """(N, 8, 8), the whole blocks of (H, W); of a large picture every other, and so on."""
    blocks = plane.unfold(0, SIDE, SIDE).unfold(1, SIDE, SIDE)
    apart = math.ceil(math.sqrt(plane.numel() / SIDE**2 / ENOUGH))
    return blocks[::apart, ::apart].reshape(-1, SIDE, SIDE)
