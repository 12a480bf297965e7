"""How the numbers of a picture follow the light that was measured: as they are, or by the curve of photographs.

Noise is symmetric where it arises, in the light. A curve that is steep for dark and flat for bright values turns it
into noise whose mean lies below the value that the light would have had, by a third of its level and more in low light;
so who restores such a picture by its means makes it too dark. (That of sRGB: IEC 61966-2-1.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

TOE, SLOPE = 0.04045, 12.92  # up to this value the curve is a line


class AbstractTone(ABC):
    """A rising curve from [0, 1] to [0, 1]."""

    @abstractmethod
    def light(self, value: np.ndarray) -> np.ndarray:
        """What was measured, of what is stored."""

    @abstractmethod
    def stored(self, light: np.ndarray) -> np.ndarray:
        """The way back."""


@dataclass(frozen=True)
class LinearTone(AbstractTone):
    """Numbers are light: microscopes, telescopes, raw data."""

    def light(self, value: np.ndarray) -> np.ndarray:
        return value

    def stored(self, light: np.ndarray) -> np.ndarray:
        return light


@dataclass(frozen=True)
class PhotographTone(AbstractTone):
    """Numbers for a screen."""

    def light(self, value: np.ndarray) -> np.ndarray:
        return np.where(value <= TOE, value / SLOPE, ((value.clip(0) + 0.055) / 1.055) ** 2.4)

    def stored(self, light: np.ndarray) -> np.ndarray:
        return np.where(light <= TOE / SLOPE, light * SLOPE, 1.055 * light.clip(0) ** (1 / 2.4) - 0.055)
