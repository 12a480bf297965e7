"""How well is the level of the noise estimated where nobody says it?

    python -m benchmarks.restore.noise_level [--fast]    # needs denoising/Set12; about 6 minutes on a core; --fast: 1

On the pictures of Set12: white noise of 0, 5, 15, 25 and 50 grey levels; 12 and then JPEG; 12 of grain, which is noise
blurred by 0.8 and by 1.2 pixels; and 25 in a picture with a flat frame, with letterbox bars, or with a sticker on it.
Mean over the pictures, standard deviation between them and root mean square error, in grey levels; beside it what
scikit-image's wavelets say.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show
from jiio.tasks.frame.files import read_image
from jiio.tasks.images.sources import find_data, image_files
from jiio.tasks.restore.noise import GREY, noise_level

Steps = list[int] | None
Damage = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, Steps]]


def stored(values: np.ndarray) -> np.ndarray:
    """As a file of 8 bits has them."""
    return np.rint(values).clip(0, 255).astype(np.uint8)


def white(sigma: float, clean: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, Steps]:
    """White noise."""
    return stored(clean + sigma * draw.standard_normal(clean.shape)), None


def jpeg(sigma: float, quality: int, clean: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, Steps]:
    """White noise, then JPEG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(white(sigma, clean, draw)[0]).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        image.load()
        return np.asarray(image), list(image.quantization[0])  # type: ignore[attr-defined]


def grain(width: float, clean: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, Steps]:
    """Blurred noise of 12 grey levels."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(draw.standard_normal(clean.shape), width)
    return stored(clean + 12 / noise.std() * noise), None


def framed(clean: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, Steps]:
    """A flat frame that covers more than half of the picture."""
    return np.pad(white(25, clean, draw)[0], clean.shape[0] // 4, constant_values=200), None


def letterboxed(clean: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, Steps]:
    """Dark bars above and below."""
    picture, _ = white(25, clean, draw)
    picture[: len(picture) // 5] = picture[-len(picture) // 5 :] = 16
    return picture, None


def stuck(clean: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, Steps]:
    """A sticker with a ramp of grey and a dark edge, on a quarter of the picture."""
    picture, _ = white(25, clean, draw)
    side = len(picture) // 2
    picture[10 : 10 + side, 10 : 10 + side] = 30
    picture[14 : 6 + side, 14 : 6 + side] = np.linspace(120, 230, side - 8).astype(np.uint8)
    return picture, None


CASES: dict[str, tuple[float, Damage]] = {
    **{f"white {sigma}": (sigma, partial(white, sigma)) for sigma in (0, 5, 15, 25, 50)},
    **{f"12, JPEG {quality}": (12, partial(jpeg, 12, quality)) for quality in (95, 90, 75, 50)},
    **{f"0, JPEG {quality}": (0, partial(jpeg, 0, quality)) for quality in (90, 50)},
    **{f"12, grain of {width} pixels": (12, partial(grain, width)) for width in (0.8, 1.2)},
    **{"25, frame": (25, framed), "25, letterbox": (25, letterboxed), "25, sticker": (25, stuck)},
}


def measure(name: str, paths: Sequence[Path], seeds: int) -> Row:
    """All pictures with one damage, each with the noise of every seed."""
    from skimage.restoration import estimate_sigma as wavelets

    true, damage = CASES[name]
    found, theirs, believed = [], [], []
    for i, seed in np.ndindex(len(paths), seeds):
        clean = GREY * read_image("--data-root", paths[i], channels=1)[:, :, 0]
        picture, steps = damage(clean, np.random.default_rng((seed, i)))
        level = noise_level(torch.from_numpy(picture / np.float32(255))[None, None], steps=steps)
        found.append(GREY * level.sigma)
        theirs.append(wavelets(picture.astype(float)))
        believed.append(level.believed)

    row: Row = {"mean": float(np.mean(found)), "spread": float(np.std(found)), "RMSE": rmse(found, true)}
    row |= {"wavelets, mean": float(np.mean(theirs)), "wavelets, RMSE": rmse(theirs, true)}
    return row | {"believed not white": float(np.mean([word != "white noise" for word in believed]))}


def rmse(values: Sequence[float], true: float) -> float:
    """Root mean square error."""
    return float(np.sqrt(np.mean((np.array(values) - true) ** 2)))


def run(options: argparse.Namespace, rows: Rows) -> None:
    """The table."""
    folder = find_data(options.data_root, "denoising/Set12", "the pictures of Set12", argument="--data-root")
    paths = image_files("--data-root", folder)[: options.pictures]
    found = [{"": name} | rows.each(name, measure, name, paths, options.seeds) for name in CASES]
    show(f"level of the noise on {len(paths)} pictures of Set12, grey levels", found)


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=1, fast={"pictures": 3})
    made.number("--pictures", 12, "of the set")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
