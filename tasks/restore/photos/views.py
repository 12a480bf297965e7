"""Views of a picture for a page: the windows worth looking at, and pixels as embedded files."""

from __future__ import annotations

import dataclasses
import io
import math

import numpy as np

from jiio.tasks.images.encode import stored
from jiio.tasks.images.pictures import Picture

from ..tiles import Window

SHOWN = 1200  # pixels of the longer side at which a picture stands in a page


def richest(values: np.ndarray, shape: tuple[int, int], *others: Window) -> Window | None:
    """The window of ``shape`` with the largest sum over values (H, W), found on a grid of quarters of the window, that
    does not overlap the others; None where there is none.
    """
    height, width = shape
    sums = np.pad(values.cumsum(0, dtype=np.float64).cumsum(1), ((1, 0), (1, 0)))
    best, found = -math.inf, None

    # The sum over a window is four numbers of the table of sums (Crow 1984).
    for top in places(values.shape[0], height):
        for left in places(values.shape[1], width):
            bottom, right = top + height, left + width
            total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
            apart = all(
                bottom <= o.top or o.top + o.height <= top or right <= o.left or o.left + o.width <= left
                for o in others
            )
            if apart and total > best:
                best, found = total, Window(top, left, height, width)
    return found


def places(size: int, length: int) -> list[int]:
    """Where windows of a length begin."""
    return sorted({*range(0, size - length + 1, max(1, length // 4)), size - length})


def local_contrast(pixels: np.ndarray) -> np.ndarray:
    """(C, H, W) -> (H, W), how much each pixel differs from the next ones."""
    grey = pixels.mean(0)
    down, right = np.abs(np.diff(grey, axis=0)), np.abs(np.diff(grey, axis=1))
    return np.pad(down, ((0, 1), (0, 0))) + np.pad(right, ((0, 0), (0, 1)))


def cut(picture: Picture, window: Window) -> Picture:
    """A window of a picture."""
    top, left, height, width = window
    return dataclasses.replace(picture, pixels=picture.pixels[:, top : top + height, left : left + width], alpha=None)


def thinning(pixels: np.ndarray) -> int:
    """Every how many-th pixel of (..., H, W) makes a map of the size of a page; a mean would hide what is small."""
    return max(1, math.ceil(max(pixels.shape[-2:]) / SHOWN))


def every(step: int) -> str:
    """Words for a map that leaves pixels out."""
    return "" if step == 1 else f" One pixel in {step} of each row and column is shown."


def shown(picture: Picture, scale: float) -> bytes:
    """The pixels as PNG in full size, and as JPEG where ``scale`` makes them smaller; with their colour profile."""
    from PIL import Image

    values = stored(dataclasses.replace(picture, alpha=None), 8)
    image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    buffer = io.BytesIO()
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=90, icc_profile=picture.icc)
    else:
        image.save(buffer, "PNG", icc_profile=picture.icc)
    return buffer.getvalue()
