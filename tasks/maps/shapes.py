"""Blurs of few numbers, and the one of them that explains a picture's spectrum best: Gaussian, or a straight motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .kernels import gaussian_kernel, motion_kernel
from .spectrum import Scene, Spectrum

WIDTHS = (0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.7, 1.9, 2.1, 2.4, 2.7, 3.0, 3.4, 3.8, 4.3)  # pixels
LENGTHS = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16.5, 18, 19.5, 21, 23, 25, 27, 29, 32, 35, 38, 41)
ARC = 60.0  # degrees times pixels between two angles of one length: the far end moves by a pixel
SHARP, SHORT = 0.65, 2.5  # pixels of width and length up to which a blur is none


@dataclass(frozen=True)
class Shape:
    """A motion of ``length`` pixels at ``angle`` degrees, or, of length 0, a Gaussian of ``width`` pixels."""

    length: float = 0.0
    angle: float = 0.0
    width: float = 0.0

    @property
    def words(self) -> str:
        """As ``--blur`` takes it."""
        return f"motion:{self.length:.3g},{self.angle:.0f}" if self.length else f"gaussian:{self.width:.2g}"

    @property
    def none(self) -> bool:
        """Whether it is too small to be called a blur."""
        return self.length <= SHORT if self.length else self.width <= SHARP

    def kernel(self) -> Tensor:
        """(k, k), its centre in the middle."""
        return motion_kernel(self.length, self.angle) if self.length else gaussian_kernel(self.width)

    @property
    def near(self) -> list[Shape]:
        """Those around it, about half as far away as the next ones of the search."""
        if not self.length:
            return [Shape(width=self.width * (1 + 0.02 * i)) for i in range(-4, 5)]
        turns = [self.angle + i * ARC / self.length / 4 for i in range(-2, 3)]
        return [Shape(self.length * (1 + 0.015 * i), turn % 180.0) for i in range(-4, 5) for turn in turns]


def gains(shapes: Sequence[Shape], spectrum: Spectrum) -> Tensor:
    """(G, n) |K|^2 by the closed forms; a motion is drawn by bilinear weights, whose own gain is a sinc^2 each way."""
    length, angle, width = torch.tensor([(s.length, s.angle, s.width) for s in shapes], dtype=torch.float64).T[
        ..., None
    ]
    rows, columns = spectrum.rows, spectrum.columns
    along = columns * torch.cos(torch.deg2rad(angle)) - rows * torch.sin(torch.deg2rad(angle))
    drawn = (torch.sinc(rows) * torch.sinc(columns)).square()
    line = torch.sinc(length * along) * torch.where(length > 0, drawn, 1.0)
    return (line * torch.exp(-2 * (torch.pi * width).square() * (rows.square() + columns.square()))).square()


def likeliest(spectrum: Spectrum, sigma: float, *, longest: float) -> tuple[Shape, float, Scene]:
    """The shape that explains the spectrum best, its cost, and the scene behind it. longest: pixels."""
    shapes = [Shape(width=width) for width in WIDTHS if 4 * width <= longest]
    for length in LENGTHS:
        if length <= longest:
            count = max(4, round(180 * length / ARC))
            shapes += [Shape(length, 180.0 * i / count) for i in range(count)]

    for turn in range(3):
        costs, scenes = spectrum.cost(gains(shapes, spectrum), sigma)
        best = int(costs.argmin())
        found = shapes[best], float(costs[best]), Scene(scenes.numbers[best : best + 1])
        if turn < 2:
            shapes = found[0].near
    return found
