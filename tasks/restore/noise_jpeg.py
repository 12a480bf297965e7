"""What JPEG leaves of noise, and so how much there was: every coefficient of a block is rounded to a multiple of its
step, which takes away what is smaller than half of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

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
