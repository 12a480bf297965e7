"""The fifteen families with their five severities, and a batch of images under one of them.

Levels are those that were published for pictures of 224 pixels (ImageNet-C) and of 32 pixels (CIFAR-10-C); lengths in
pixels go with the shorter side of the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jiio.checks import check_choice, check_instance, check_integer, fail
from jiio.outputs.seeds import derive

from . import kinds
from .fields import Array, Draw
from .kinds import Levels

SEVERITIES = (1, 2, 3, 4, 5)
SMALL, LARGE, BETWEEN = 32, 224, 96  # sides: of the two published sets, and from which the larger one is taken


@dataclass(frozen=True)
class CorruptionFamily:
    """kind: noise, blur, weather or digital. large, small: five levels each, for pictures of 224 and 32 pixels."""

    kind: str
    apply: Callable[[Array, Levels, Draw, float], Array]
    large: tuple[Levels, ...]
    small: tuple[Levels, ...]

    def at(self, severity: int, side: int) -> tuple[Levels, float]:
        """The levels for a picture with this shorter side, and its pixels per published pixel."""
        if side >= BETWEEN:
            return self.large[severity - 1], side / LARGE
        return self.small[severity - 1], side / SMALL


def _each(*levels: float) -> tuple[Levels, ...]:
    return tuple((level,) for level in levels)


def _times(size: float, *levels: Levels) -> tuple[Levels, ...]:
    """Levels that were published as shares of a length."""
    return tuple(tuple(size * part for part in level) for level in levels)


# fmt: off
FAMILIES: dict[str, CorruptionFamily] = {
    "gaussian_noise": CorruptionFamily("noise", kinds.gaussian_noise, _each(0.08, 0.12, 0.18, 0.26, 0.38), _each(0.04, 0.06, 0.08, 0.09, 0.10)),  # noqa: E501
    "shot_noise": CorruptionFamily("noise", kinds.shot_noise, _each(60, 25, 12, 5, 3), _each(500, 250, 100, 75, 50)),
    "impulse_noise": CorruptionFamily("noise", kinds.impulse_noise, _each(0.03, 0.06, 0.09, 0.17, 0.27), _each(0.01, 0.02, 0.03, 0.05, 0.07)),  # noqa: E501
    "defocus_blur": CorruptionFamily("blur", kinds.defocus_blur,
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass_blur": CorruptionFamily("blur", kinds.glass_blur,
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))),
    "motion_blur": CorruptionFamily("blur", kinds.motion_blur,
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": CorruptionFamily("blur", kinds.zoom_blur,
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))),
    "snow": CorruptionFamily("weather", kinds.snow,
        ((0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
         (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55)),
        ((0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
         (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8))),
    "frost": CorruptionFamily("weather", kinds.frost,
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": CorruptionFamily("weather", kinds.fog,
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)), ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": CorruptionFamily("weather", kinds.brightness, _each(0.1, 0.2, 0.3, 0.4, 0.5), _each(0.05, 0.1, 0.15, 0.2, 0.3)),  # noqa: E501
    "contrast": CorruptionFamily("digital", kinds.contrast, _each(0.4, 0.3, 0.2, 0.1, 0.05), _each(0.75, 0.5, 0.4, 0.3, 0.15)),  # noqa: E501
    "elastic_transform": CorruptionFamily("digital", kinds.elastic_transform,
        _times(244, (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
        _times(32, (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))),
    "pixelate": CorruptionFamily("digital", kinds.pixelate, _each(0.6, 0.5, 0.4, 0.3, 0.25), _each(0.95, 0.9, 0.85, 0.75, 0.65)),  # noqa: E501
    "jpeg_compression": CorruptionFamily("digital", kinds.jpeg_compression, _each(25, 18, 15, 10, 7), _each(80, 65, 58, 50, 40)),  # noqa: E501
}
# fmt: on


def corrupt(images: Tensor, family: str, severity: int, *, seed: int = 0, first: int = 0) -> Tensor:
    """Pictures (B, C, H, W) in [0, 1] under a family at a severity of 1 to 5, brought to 8 bits as a file would be.

    images: the pictures. family: one of the fifteen, such as "fog". severity: 1 to 5. seed, first: the draws of a
    picture are a function of the seed, the family and its number, which is ``first`` for the first of the batch; they
    do not depend on the severity. Raises ArgumentError / ArgumentTypeError for unusable arguments.
    """
    check_choice("family", family, FAMILIES)
    if check_integer("severity", severity, 1) > len(SEVERITIES):
        fail("severity", "a whole number from 1 to 5", severity)
    check_pictures("images", images)
    kind = FAMILIES[family]
    levels, grain = kind.at(severity, min(images.shape[2:]))

    found = []
    for number, image in enumerate(images.detach().cpu().double().numpy()):
        draw = np.random.default_rng(derive(seed, "corruption", family, first + number))
        changed = np.clip(kind.apply(image, levels, draw, grain), 0.0, 1.0)
        found.append(np.round(changed * 255) / 255)
    return torch.from_numpy(np.stack(found)).to(images)


def check_pictures(argument: str, images: object) -> None:
    """Raise unless these are pictures in [0, 1]."""
    check_instance(argument, images, Tensor)
    assert isinstance(images, Tensor)
    if images.dim() != 4 or not images.numel() or not images.is_floating_point():
        fail(argument, "pictures (B, C, H, W), at least one of them", images, "Corruptions are defined for pictures.")
    low, high = float(images.min()), float(images.max())
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        fail(argument, "values from 0 to 1", f"values from {low:g} to {high:g}", "Say what they are by bounds=.")
