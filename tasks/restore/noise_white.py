"""The level of white noise in one channel, from the least eigenvalues of the covariance of its patches.

In patches that hold no texture the least eigenvalues of their covariance are the variance of the noise. Which ones
these are depends on the level, so both are found in turn (Liu, Tanaka, Okutomi, "Single-image noise level estimation
for blind denoising", IEEE Trans. Image Processing 22, 2013). Theirs takes the one least eigenvalue; the mean of the
twelve least is less biased where the noise is strong.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jiio.checks import fail

SIDE = 7  # of a patch, pixels
LEAST = 4 * SIDE**2  # patches, for a covariance worth its name
MOST = 1 << 17  # patches, on a grid that is as fine as this allows
CLIPPED = 0.05  # share of the pixels of a patch at exactly 0 or 1 up to which it is used
CONFIDENCE = 1.0 - 1e-6  # with which a patch of nothing but noise passes for one
LOWEST = 12  # eigenvalues whose mean is the variance of the noise


def white_variance(channel: Tensor, usable: Tensor) -> float:
    """Of the noise in one channel (H, W); usable: (H, W), which pixels were measured.

    Patches with many pixels at exactly 0 or 1 are left out, because a saturated pixel has lost its noise.

    Errors: ArgumentError where there are too few patches.
    """
    values = _measured(channel, usable)  # (N, SIDE^2)
    texture = _texture(values)
    limit = _limit()
    least = float(_spectrum(values)[0].clamp_min(0.0))

    # The level says which patches are flat, and the flat patches say what the level is.
    for _ in range(20):
        flat = values[texture <= limit * least]
        if len(flat) < LEAST:
            break
        spectrum = _spectrum(flat)
        before, least = least, float(spectrum[0].clamp_min(0.0))
        if abs(least - before) <= 1e-4 * before:
            return float(spectrum[:LOWEST].mean().clamp_min(0.0))
    return least


def _measured(channel: Tensor, usable: Tensor) -> Tensor:
    """The patches (N, SIDE^2) that were measured everywhere, without the clipped ones as long as enough are left."""
    height, width = channel.shape
    stride = max(1, math.ceil(math.sqrt(height * width / MOST)))
    values, known, unclipped = (_patches(t, stride) for t in (channel, usable, (channel != 0) & (channel != 1)))
    whole = known.all(1)
    if int(whole.sum()) < LEAST:
        expected = f"a picture with at least {LEAST} whole patches of {SIDE} x {SIDE} pixels to estimate the noise from"
        fail("sigma", expected, f"one with {int(whole.sum())}", "Say how strong the noise is.")
    clear = whole & (unclipped.double().mean(1) >= 1.0 - CLIPPED)
    return values[clear if int(clear.sum()) >= LEAST else whole]


def _patches(x: Tensor, stride: int) -> Tensor:
    """(N, SIDE^2), one patch at every ``stride``-th place."""
    if min(x.shape) < SIDE:
        return x.new_zeros(0, SIDE**2)
    return x.unfold(0, SIDE, stride).unfold(1, SIDE, stride).reshape(-1, SIDE**2)


def _spectrum(patches: Tensor) -> Tensor:
    """The eigenvalues of the covariance of patches (N, SIDE^2), from the least on."""
    return torch.linalg.eigvalsh(torch.cov(patches.T))


def _texture(patches: Tensor) -> Tensor:
    """The sum of squared central differences inside each patch, (N,)."""
    square = patches.view(-1, SIDE, SIDE)
    down, right = (square[:, 2:] - square[:, :-2]) / 2, (square[:, :, 2:] - square[:, :, :-2]) / 2
    return down.square().sum((1, 2)) + right.square().sum((1, 2))


def _limit() -> float:
    """The texture that noise of variance 1 has at most, but for one patch in a million.

    Of a gamma distribution with the right mean and as many degrees of freedom as the differences have.
    """
    from scipy.special import gammaincinv

    unit = torch.eye(SIDE**2, dtype=torch.float64).view(-1, SIDE, SIDE)
    down, right = (unit[:, 2:] - unit[:, :-2]) / 2, (unit[:, :, 2:] - unit[:, :, :-2]) / 2
    differences = torch.cat([down.flatten(1), right.flatten(1)], 1)  # (SIDE^2, number of differences)
    freedom = int(torch.linalg.matrix_rank(differences))
    mean = float(differences.square().sum())
    return mean * 2.0 / freedom * float(gammaincinv(freedom / 2.0, CONFIDENCE))
