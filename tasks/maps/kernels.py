"""Blur kernels as float64 tensors (k, l) that sum to 1: Gaussian, motion, bicubic for downsampling, and given ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jiio.checks import check_integer, check_number, fail

MAX_SIDE = 255  # larger than any kernel of the deblurring literature, small enough to catch a slip of the hand


def gaussian_kernel(sigma: float, *, side: int | None = None) -> Tensor:
    """An isotropic Gaussian on an odd square grid.

    Args:
        sigma: standard deviation, pixels.
        side: of the square (default: the odd number that reaches 4 sigma to each side; the deblurring papers that use
            sigma 1.6 cut it at 25).
    """
    check_number("sigma", sigma, 0.0, MAX_SIDE / 8, open_low=True)
    side = 2 * math.ceil(4.0 * sigma) + 1 if side is None else check_integer("side", side, 1)
    if side % 2 == 0 or side > MAX_SIDE:
        fail("side", f"an odd number of at most {MAX_SIDE}", side)
    places = torch.arange(side, dtype=torch.float64) - side // 2
    line = torch.exp(-places.square() / (2.0 * sigma**2))
    return torch.outer(line, line) / line.sum() ** 2


def motion_kernel(length: float, angle: float) -> Tensor:
    """A straight, uniform motion: the line segment through the centre, drawn by bilinear weights.

    Args:
        length: pixels; 1 and less leaves nearly no blur.
        angle: degrees, counter-clockwise from the horizontal.
    """
    check_number("length", length, 0.0, MAX_SIDE - 2, open_low=True)
    check_number("angle", angle)
    radius = math.ceil(length / 2.0)
    samples = 64 * (radius + 1)  # evenly spaced on the segment, so many per pixel that their number does not show
    along = length * ((torch.arange(samples, dtype=torch.float64) + 0.5) / samples - 0.5)
    row = radius - along * math.sin(math.radians(angle))
    column = radius + along * math.cos(math.radians(angle))
    grid = torch.arange(2 * radius + 1, dtype=torch.float64)
    near_rows = (1.0 - (row[:, None] - grid).abs()).clamp_min(0.0)  # (samples, side)
    near_columns = (1.0 - (column[:, None] - grid).abs()).clamp_min(0.0)
    return near_rows.T @ near_columns / samples


def bicubic_kernel(factor: int) -> Tensor:
    """The antialiased bicubic kernel of downsampling by a whole factor.

    Keys' cubic with a = -1/2 (IEEE Trans. ASSP 29, 1981), widened by the factor, as MATLAB's ``imresize`` and Pillow
    use it. Its side is 4 factor, or one less where the factor is odd and a pixel stands in the centre.
    """
    side = 4 * check_integer("factor", factor, 1) - factor % 2
    t = ((torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / factor).abs()
    inner = 1.5 * t**3 - 2.5 * t**2 + 1.0
    outer = -0.5 * t**3 + 2.5 * t**2 - 4.0 * t + 2.0
    line = torch.where(t <= 1.0, inner, torch.where(t < 2.0, outer, 0.0))
    return torch.outer(line, line) / line.sum() ** 2


def given_kernel(values: Tensor) -> Tensor:
    """A kernel that a user hands over (k, l), for example a grey picture of one, scaled to sum 1."""
    if not isinstance(values, Tensor) or values.ndim != 2 or values.numel() == 0:
        fail("kernel", "a tensor (height, width)", values)
    kernel = values.double()
    total = float(kernel.sum())
    if max(kernel.shape) > MAX_SIDE:
        fail("kernel", f"at most {MAX_SIDE} x {MAX_SIDE} values", values)
    if not bool((kernel >= 0).all()) or not 0.0 < total < math.inf:
        fail("kernel", "values of at least 0, finite, and not all 0", "others")
    return kernel / total
