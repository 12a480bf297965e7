"""Noise that depends on brightness (photons, and what a camera makes of them), made the same everywhere.

How strong the noise is at each brightness, s(v), is read off the flattest patches of that brightness. In the scale
f(v) = integral of dv / s(v) the noise has standard deviation 1 whatever the brightness, so that a restorer for white
noise serves. For photons, s(v)^2 = a v + b, this is the generalised Anscombe transform (Starck, Murtagh, Bijaoui 1998);
the curve that is read off goes with a tone curve as well. The mean of f over the noise is not f of the mean; the way
back is the inverse of that mean (as the unbiased inverses of Makitalo and Foi, 2011 and 2013), over noise that is
Gaussian in the light that was measured and cut off where the picture is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .noise_flat import level_at, off_plane
from .tone import AbstractTone, LinearTone

SIDE, STRIDE = 8, 4  # of patches, pixels
BINS = 12  # of brightness, with as many patches in each
LEAST = 60  # patches in a bin
SHARE = 0.1  # of the patches of a bin are taken to be flat
DARKEST = 0.5 / 255  # the least level that is believed, or black would weigh without limit
STEPS, NODES = 512, 24  # of the curve, and of a mean over the noise
CLIPPED = 0.05  # share of the pixels of a patch at exactly 0 or 1 up to which it is used
VARIES = 2.5  # times the lowest level is the highest where the noise depends on brightness
LINEAR = LinearTone()


@dataclass(frozen=True, eq=False)
class NoiseCurve:
    """The noise of one channel.

    value: (STEPS,), brightness from 0 to 1. sigma: its level there. scale: f of it. mean: of f of noisy values whose
    light has that brightness in the mean.
    """

    value: np.ndarray
    sigma: np.ndarray
    scale: np.ndarray
    mean: np.ndarray

    @classmethod
    def of(cls, channel: Tensor, tone: AbstractTone = LINEAR) -> NoiseCurve | None:
        """Of a channel (H, W) in [0, 1]; None where there are too few patches."""
        means, variances = _patches(channel)
        if len(means) < 2 * LEAST:
            return None

        # As many patches in each bin; its level is that of its flattest ones.
        parts = means.argsort().tensor_split(min(BINS, len(means) // LEAST))
        middle = np.array([float(means[part].mean()) for part in parts])
        level = np.array([level_at(variances[part], SHARE, SIDE) for part in parts])
        level = np.maximum(_median_of_three(level), DARKEST)
        value = np.linspace(0.0, 1.0, STEPS)
        sigma = np.interp(value, middle, level)
        slopes = np.diff(value) * (1 / sigma[1:] + 1 / sigma[:-1]) / 2
        scale = np.concatenate([[0.0], np.cumsum(slopes)])
        return cls(value, sigma, scale, noisy_mean(value, sigma, scale, tone))

    @property
    def varies(self) -> bool:
        """Whether one level for all would be wrong."""
        return float(self.sigma.max()) > VARIES * float(self.sigma.min())

    def forth(self, pixels: np.ndarray) -> np.ndarray:
        """Brightness to the scale in which the noise is 1."""
        return np.interp(pixels, self.value, self.scale)

    def back(self, scaled: np.ndarray) -> np.ndarray:
        """The brightness whose noisy values have this mean in the scale."""
        return np.interp(scaled, self.mean, self.value)


def noisy_mean(value: np.ndarray, sigma: np.ndarray, scale: np.ndarray, tone: AbstractTone) -> np.ndarray:
    """(STEPS,), the mean of the scaled noisy values at each brightness, by quadrature; it never falls.

    value, sigma, scale: as in :class:`NoiseCurve`.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    light = tone.light(value)
    spread = sigma * np.gradient(light, value)
    noisy = tone.stored((light[:, None] + spread[:, None] * nodes).clip(0, 1))
    return np.maximum.accumulate(np.interp(noisy, value, scale) @ (weights / weights.sum()))


def _patches(channel: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) means and (N,) variances around a plane, of patches that are nowhere burnt out."""
    stride = max(STRIDE, math.ceil(math.sqrt(channel.numel() / (1 << 17))))
    patches = channel.double().unfold(0, SIDE, stride).unfold(1, SIDE, stride).reshape(-1, SIDE, SIDE)
    clipped = ((patches == 0) | (patches == 1)).flatten(1).double().mean(1)
    patches = patches[clipped <= CLIPPED]
    return patches.mean((1, 2)), off_plane(patches).square().sum((1, 2)) / (SIDE**2 - 3)


def _median_of_three(values: np.ndarray) -> np.ndarray:
    """Each value with its neighbours, so that a bin of nothing but texture does not stand out."""
    padded = np.concatenate([values[:1], values, values[-1:]])
    return np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)


@dataclass(frozen=True, eq=False)
class Stabiliser:
    """The curves of the channels of a picture, and the distance in their scale that becomes 1."""

    curves: tuple[NoiseCurve, ...]
    width: float

    @classmethod
    def of(cls, pixels: np.ndarray, tone: AbstractTone = LINEAR) -> Stabiliser | None:
        """Of a picture (C, H, W), whose numbers follow the light by ``tone``; None where it is too small."""
        found = [NoiseCurve.of(torch.from_numpy(channel), tone) for channel in pixels]
        curves = tuple(curve for curve in found if curve is not None)
        if len(curves) < len(found):
            return None
        return cls(curves, max(float(curve.scale[-1]) for curve in curves))

    @property
    def sigma(self) -> float:
        """The level of the noise, in the new pixels."""
        return 1.0 / self.width

    @property
    def varies(self) -> bool:
        """Whether the noise depends on brightness in any channel."""
        return any(curve.varies for curve in self.curves)

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest level, in the units of the picture."""
        levels = np.stack([curve.sigma for curve in self.curves])
        return float(levels.min()), float(levels.max())

    def forth(self, pixels: np.ndarray) -> np.ndarray:
        """A picture (C, H, W) with the same noise everywhere."""
        return self._each(pixels, "forth") / np.float32(self.width)

    def back(self, pixels: np.ndarray) -> np.ndarray:
        """The way back, of what was restored."""
        return self._each(pixels * np.float32(self.width), "back")

    def _each(self, pixels: np.ndarray, way: str) -> np.ndarray:
        channels = zip(self.curves, pixels, strict=True)
        return np.stack([getattr(curve, way)(channel) for curve, channel in channels]).astype(np.float32)
