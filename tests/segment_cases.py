"""A folder of pictures and masks, for the tests of the task ``segment`` and of its data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_folder(folder: Path, count: int = 5, size: tuple[int, int] = (12, 16)) -> Path:
    """Pictures with a bright half, which is class 1, and a first row without a class."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    source = np.random.default_rng(0)
    for i in range(count):
        mask = np.zeros(size, np.uint8)
        mask[:, size[1] // 2 :] = 1
        mask[0] = 9
        pixels = (source.random((*size, 3)) * 90 + 150 * (mask == 1)[:, :, None]).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
    return folder
