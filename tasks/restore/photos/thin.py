"""Thin holes: scratches, hairs, dust. What is a few pixels wide is best continued smoothly from both sides.

There a biharmonic surface (Damelin, Hoang, "On surface completion and image inpainting by biharmonic functions", 2018)
is as good as any prior and a thousand times cheaper; so thin holes are filled by it and count as known from there on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

RADIUS = 5.0  # pixels from the middle of a thin hole to what is known
CROWD = 21  # pixels to a side of the window in which the share of holes is counted
CROWDED = 0.35  # share from which on holes are no scratches but missing pixels all over
LARGEST = 200_000  # pixels of a hole; the surface is one linear system for each
QUIET = 2.0 / 255  # noise above which the neighbours of a hole are to be cleaned, not continued


def fill_thin(pixels: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C, H, W) with its thin holes filled, and (H, W), which pixels are known now.

    keep: (H, W), which were known.
    """
    from skimage.restoration import inpaint_biharmonic

    thin = thin_holes(~keep)
    if not thin.any():
        return pixels, keep

    # The other holes are filled as well, or black would flow into a thin one beside; they stay unknown.
    inside = nearest_known(pixels, keep)
    filled = inpaint_biharmonic(inside.astype(np.float64), thin, channel_axis=0, split_into_regions=True)
    return np.where(thin, filled, pixels).astype(np.float32), keep | thin


def thin_holes(holes: np.ndarray) -> np.ndarray:
    """(H, W), the holes that are nowhere wide and not crowded."""
    from scipy.ndimage import distance_transform_edt, label, maximum, mean, uniform_filter

    found: Any = label(holes, np.ones((3, 3), int))
    parts, count = found
    if count == 0:
        return holes
    numbers = np.arange(1, count + 1)
    depth: Any = distance_transform_edt(np.pad(holes, 1, mode="edge"))
    depth = depth[1:-1, 1:-1]
    crowd = uniform_filter(holes.astype(np.float32), CROWD, mode="reflect")
    size = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    good = (maximum(depth, parts, numbers) <= RADIUS) & (mean(crowd, parts, numbers) < CROWDED) & (size <= LARGEST)
    return np.concatenate([[False], good])[parts]


def nearest_known(pixels: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """(C, H, W) with every hole as its nearest known pixel."""
    from scipy.ndimage import distance_transform_edt

    places: Any = distance_transform_edt(~keep, return_distances=False, return_indices=True)
    return pixels[:, places[0], places[1]]
