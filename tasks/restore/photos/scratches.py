"""Dust and scratches found for the user: what is thin and sticks out from all that surrounds it.

A closing by a small square takes away what is thin and dark, an opening what is thin and bright; what they took is
large where there is a scratch and as large as the noise elsewhere (top-hat and bottom-hat: Serra, "Image Analysis and
Mathematical Morphology", 1982). Texture sticks out of itself everywhere, so the threshold is a local one. What is found
is a guess: it is written as a mask beside the picture, to be judged and corrected.
"""

from __future__ import annotations

import numpy as np

WIDTH = 9  # pixels; a scratch is thinner
NEAR = 41  # pixels to a side of the window that says how much sticks out there anyway
RANK, USUAL = 92, 3.5  # so many times as far as this percentile of what sticks out around,
LEAST = 60.0 / 255  # and so much in any case, sticks out a scratch
WEAK = 0.5  # of these two, as long as it hangs together with what is above
SMALLEST = 6  # pixels


def find_scratches(pixels: np.ndarray) -> np.ndarray:
    """(H, W) of truth values, where a picture (C, H, W) seems to have dust or scratches."""
    from scipy.ndimage import binary_dilation

    # A bright one is bright in every colour, a dark one dark; its edge is soft, so it is widened by a pixel.
    found = thin_and_bright(pixels.min(0)) | thin_and_bright(-pixels.max(0))
    return binary_dilation(found, np.ones((3, 3), bool))


def thin_and_bright(grey: np.ndarray) -> np.ndarray:
    """(H, W), what an opening takes away and is clearly more than around."""
    from scipy.ndimage import grey_opening
    from skimage.morphology import reconstruction, remove_small_objects

    out = grey - grey_opening(grey, WIDTH)
    threshold = np.maximum(LEAST, USUAL * rank_around(out))
    sure, weak = out > threshold, out > WEAK * threshold
    grown = reconstruction(sure.astype(np.uint8), weak.astype(np.uint8)) > 0
    return remove_small_objects(grown, max_size=SMALLEST - 1, connectivity=2)


def rank_around(values: np.ndarray) -> np.ndarray:
    """(H, W), the percentile RANK of the window around each pixel, to 1/255."""
    from skimage.filters.rank import percentile

    levels = np.rint(255 * values.clip(0, 1)).astype(np.uint8)
    ranked = percentile(levels, np.ones((NEAR, NEAR), np.uint8), p0=RANK / 100)  # type: ignore[arg-type]
    return ranked / np.float32(255)
