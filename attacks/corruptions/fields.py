"""What several families share: kernels, zooms and random height fields, on arrays (C, H, W) or (H, W) in [0, 1]."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]
Draw = np.random.Generator


def convolved(image: Array, kernel: Array) -> Array:
    """Each channel of (C, H, W) with one kernel (h, w), the image continued by reflection at its border pixels."""
    return np.stack([ndimage.convolve(channel, kernel, mode="mirror") for channel in image])


def smoothed(image: Array, sigma: float) -> Array:
    """Each channel under a Gaussian window."""
    return ndimage.gaussian_filter(image, (0, sigma, sigma), mode="nearest")


def disk(radius: float, soft: float) -> Array:
    """The window of a lens out of focus: pixels within the radius, their edge softened by a Gaussian."""
    wide = radius > 8
    reach = (math.ceil(radius) if wide else 8) + 3  # with room for the soft edge
    across = np.arange(-reach, reach + 1)
    inside = (across[:, None] ** 2 + across[None, :] ** 2 <= radius**2).astype(float)
    return ndimage.gaussian_filter(inside / inside.sum(), soft, radius=2 if wide else 1, mode="mirror")


def streak(radius: float, sigma: float, angle: float) -> Array:
    """The path of a moving camera: half a Gaussian of 2 radius + 1 pixels, from the centre along the angle (degrees).

    Points between pixels are shared among the four around them.
    """
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    reach = int(steps[-1]) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    down, right = (reach + steps * turn(math.radians(angle)) for turn in (math.sin, math.cos))

    # Each point gives to the pixels above and below, left and right of it.
    for drop in (0, 1):
        for shift in (0, 1):
            row, column = np.floor(down).astype(int) + drop, np.floor(right).astype(int) + shift
            share = (1 - np.abs(down - row)) * (1 - np.abs(right - column))
            np.add.at(kernel, (np.minimum(row, 2 * reach), np.minimum(column, 2 * reach)), weights * share)
    return kernel / kernel.sum()


def zoomed(image: Array, factor: float) -> Array:
    """(..., H, W), the middle of it enlarged to its size, linearly."""
    sides = image.shape[-2:]
    middle = np.array([(side - 1) / 2 for side in sides])
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in sides), indexing="ij"))
    at = (grid - middle[:, None, None]) / factor + middle[:, None, None]
    flat = image.reshape(-1, *sides)
    return np.stack([ndimage.map_coordinates(part, at, order=1, mode="nearest") for part in flat]).reshape(image.shape)


def plasma(height: int, width: int, decay: float, draw: Draw) -> Array:
    """A random height field in [0, 1] by midpoints of squares and diamonds on a torus (Fournier, Fussell and Carpenter
    1982): what is added to a midpoint shrinks by decay squared with every halving of the grid.
    """
    side = 1 << max(1, (max(height, width) - 1).bit_length())
    field, step, size = np.zeros((side, side)), side, 1.0

    while step > 1:
        half = step // 2
        corners = field[::step, ::step]

        def moved(mean: Array, size: float = size) -> Array:
            return mean / 4 + size * draw.uniform(-1.0, 1.0, mean.shape)

        # The middle of each square, then of each diamond between squares.
        down = corners + np.roll(corners, -1, 0)
        field[half::step, half::step] = moved(down + np.roll(down, -1, 1))
        middles = field[half::step, half::step]
        across = corners + np.roll(corners, -1, 1) + middles + np.roll(middles, 1, 0)
        field[::step, half::step] = moved(across)
        upright = corners + np.roll(corners, -1, 0) + middles + np.roll(middles, 1, 1)
        field[half::step, ::step] = moved(upright)
        step, size = half, size / decay**2

    field -= field.min()
    return (field / max(float(field.max()), 1e-300))[:height, :width]


def grey(image: Array) -> Array:
    """(1, H, W): the brightness that an eye sees of three channels, the mean of others."""
    weights = np.array([0.299, 0.587, 0.114]) if len(image) == 3 else np.full(len(image), 1.0 / len(image))
    return np.tensordot(weights, image, 1)[None]
