"""The families of Hendrycks and Dietterich (ICLR 2019, section 3 and appendix), each as a function
(image (C, H, W) in [0, 1], levels of one severity, draws, grain) -> image.

``grain``: pixels of this image per pixel of the size for which lengths were published.
"""

from __future__ import annotations

import io

import numpy as np
from scipy import ndimage

from .fields import Array, Draw, convolved, disk, grey, plasma, smoothed, streak, zoomed

Levels = tuple[float, ...]


# -- noise


def gaussian_noise(x: Array, levels: Levels, draw: Draw, grain: float) -> Array:
    return x + draw.normal(0.0, levels[0], x.shape)


def shot_noise(x: Array, levels: Levels, draw: Draw, grain: float) -> Array:
    return draw.poisson(x * levels[0]) / levels[0]


def impulse_noise(x: Array, levels: Levels, draw: Draw, grain: float) -> Array:
    """Values that are lost, half of them to white."""
    lost, white = draw.random(x.shape) < levels[0], draw.random(x.shape) < 0.5
    return np.where(lost, white.astype(float), x)


# -- blur


def defocus_blur(x: Array, levels: Levels, draw: Draw, grain: float) -> Array:
    radius, soft = levels
    return convolved(x, disk(radius * grain, soft))


def glass_blur(x: Array, levels: Levels, draw: Draw, grain: float) -> Array:
    """Pixels take the place of neighbours, between two blurs. The published program means to swap two of them and
    writes the same value to both, so that a pixel is replaced by its neighbour; and so it is here.
    """
    sigma, reach, rounds = levels[0] * grain, max(1, round(levels[1] * grain)), int(levels[2])
    x = smoothed(x, sigma)
    height, width = x.shape[1:]
    rows, columns = range(height - reach - 1, reach - 1, -1), range(width - reach - 1, reach - 1, -1)

    # Which pixel of the image stands where, from the last one to the first.
    place = np.arange(height * width)
    for _ in range(rounds):
        shifts = draw.integers(-reach, reach, (len(rows), len(columns), 2)).tolist() if len(rows) * len(columns) else []
        for row, line in zip(rows, shifts, strict=False):
            for column, (down, right) in zip(columns, line, strict=False):
                place[row * width + column] = place[(row + down) * width + column + right]
    return smoothed(x.reshape(len(x), -1)[:, place].reshape(x.shape), sigma)


def motion_blur(x: Array, levels: Levels, draw: Draw, grain: float) -> Array:
    radius, sigma = (level * grain for level in levels)
    return convolved(x, streak(radius, sigma, draw.uniform(-45.0, 45.0)))


def zoom_blur(x: Array, levels: Levels, draw: Draw, grain: float) -> Array:
    most, step = levels
    factors = np.arange(1.0, most, step)
    return (x + sum(zoomed(x, float(factor)) for factor in factors)) / (len(factors) + 1)


# -- weather


def snow(x: Array, levels: Levels, draw: Draw, grain: float) -> Array:
    """Flakes that fall, over a scene whose ground is white."""
    mean, spread, zoom, threshold, radius, sigma, kept = levels
    flakes = zoomed(draw.normal(mean, spread, x.shape[1:]), zoom)
    flakes = np.clip(np.where(flakes < threshold, 0.0, flakes), 0.0, 1.0)[None]
    fallen = convolved(flakes, streak(radius * grain, sigma * grain, draw.uniform(-135.0, -45.0)))
    white = kept * x + (1 - kept) * np.maximum(x, 1.5 * grey(x) + 0.5)
    return white + fallen + fallen[:, ::-1, ::-1]


def frost(x: Array, levels: Levels, draw: Draw, grain: float) -> Array:
    """A pane of crystals. The published set lays photographs of frost over the image; here the pane is drawn: ridges of
    height fields, brighter towards the edges of the picture.
    """
    kept, pane = levels
    height, width = x.shape[1:]
    ridges = [1.0 - np.abs(2.0 * plasma(height, width, decay, draw) - 1.0) for decay in (1.3, 1.6)]
    crystals = (0.6 * ridges[0] + 0.4 * ridges[1]) ** 2
    down, right = (np.abs(np.linspace(-1.0, 1.0, side)) for side in (height, width))
    return kept * x + pane * crystals * (0.55 + 0.45 * np.maximum(down[:, None], right[None, :]))


def fog(x: Array, levels: Levels, draw: Draw, grain: float) -> Array:
    thick, decay = levels
    top = float(x.max())
    height, width = x.shape[1:]
    misty = x + thick * plasma(height, width, decay, draw)
    return misty * top / (top + thick)


def brightness(x: Array, levels: Levels, draw: Draw, grain: float) -> Array:
    """The value of HSV, hue and saturation as they are: all channels grow with the largest."""
    value = x.max(0, keepdims=True)
    brighter = np.clip(value + levels[0], 0.0, 1.0)
    return np.where(value > 0, x * brighter / np.maximum(value, 1e-12), brighter)


# -- digital


def contrast(x: Array, levels: Levels, draw: Draw, grain: float) -> Array:
    means = x.mean((1, 2), keepdims=True)
    return (x - means) * levels[0] + means


def elastic_transform(x: Array, levels: Levels, draw: Draw, grain: float) -> Array:
    """A random affine map, then a smooth random displacement; levels in pixels of the published size."""
    size, sigma, shear = (level * grain for level in levels)
    height, width = x.shape[1:]
    middle, arm = np.array([height // 2, width // 2]), min(height, width) // 3
    corners = middle + arm * np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    moved = corners + draw.uniform(-shear, shear, corners.shape)

    # The affine map that takes the moved corners back to where they were.
    ones = np.ones((3, 1))
    back = np.linalg.lstsq(np.hstack([moved, ones]), corners, rcond=None)[0]  # (3, 2)
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij")).reshape(2, -1)
    bend = [ndimage.gaussian_filter(draw.uniform(-1, 1, (height, width)), sigma, truncate=3) for _ in range(2)]
    at = grid + size * np.stack(bend).reshape(2, -1)
    at = (np.vstack([at, np.ones(at.shape[1])]).T @ back).T
    return np.stack([ndimage.map_coordinates(part, at, order=1, mode="mirror").reshape(height, width) for part in x])


def pixelate(x: Array, levels: Levels, draw: Draw, grain: float) -> Array:
    from PIL import Image

    height, width = x.shape[1:]
    small = max(1, int(width * levels[0])), max(1, int(height * levels[0]))
    found = []
    for channel in x:
        picture = Image.fromarray(channel.astype(np.float32))
        found.append(
            np.asarray(picture.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX))
        )
    return np.stack(found).astype(float)


def jpeg_compression(x: Array, levels: Levels, draw: Draw, grain: float) -> Array:
    """Written and read; channels that are not three are grey pictures each."""
    from PIL import Image

    eight = np.round(np.clip(x, 0.0, 1.0) * 255).astype(np.uint8)
    parts = [eight.transpose(1, 2, 0)] if len(x) == 3 else list(eight)
    found = []
    for part in parts:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(part)).save(file, "JPEG", quality=int(levels[0]))
        found.append(np.asarray(Image.open(file), dtype=float) / 255)
    return found[0].transpose(2, 0, 1) if len(x) == 3 else np.stack(found)
