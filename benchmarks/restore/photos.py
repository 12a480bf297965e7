"""Pictures damaged as people have them, restored automatically, beside the usual tools.

    python -m benchmarks.restore.photos [--fast] [--cases CASE ...]    # about 20 minutes on a core; --fast: 3

Pictures that come with scikit-image, a square of ``--side`` pixels of each: noise that went through JPEG, JPEG alone,
motion blur of a known kernel, scratches with a mask, half of the pixels missing, a blur of which pixels are missing,
and half size. Nobody tells a level of noise. The usual tools get what scikit-image's wavelets estimate; BM3D and OpenCV
take part where they can be imported (the licence of BM3D forbids commercial use; neither is needed). PSNR in dB.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show
from jiio.tasks.images.jpeg import Rounding
from jiio.tasks.images.pictures import Picture
from jiio.tasks.maps.convolution import blur, downsample
from jiio.tasks.maps.kernels import motion_kernel
from jiio.tasks.restore.load import load_restorer
from jiio.tasks.restore.photos.damage import AbstractDamage, Blurred, Coarse, Masked, Noise
from jiio.tasks.restore.photos.one import restore_photo
from jiio.tasks.restore.photos.rounded import by_the_file
from jiio.tasks.restore.photos.several import Several

PICTURES = (
    "astronaut",
    "coffee",
    "chelsea",
    "camera",
    "rocket",
    "cell",
    "coins",
    "clock",
    "immunohistochemistry",
    "moon",
)
PATH = Path("a.png")
BORDER = 4  # pixels that do not count
KERNEL = motion_kernel(9, 25)


@dataclass(frozen=True)
class Damaged:
    """A picture with its damage. tools: which usual tools are asked, by name. keep: (H, W), the known pixels. kernel,
    factor: what a tool has to be told besides. noise: what a person knows who took the picture.
    """

    picture: Picture
    damage: AbstractDamage
    tools: str
    keep: np.ndarray | None = None
    kernel: np.ndarray = field(default_factory=KERNEL.numpy)
    factor: int = 2
    noise: str = "white"


def sides(picture: np.ndarray) -> tuple[int, int]:
    """Height and width of a picture (C, H, W)."""
    return picture.shape[1], picture.shape[2]


def stored(pixels: np.ndarray, **more: Any) -> Picture:
    """(C, H, W) as a file of 8 bits has it."""
    return Picture(PATH, (np.rint(255 * pixels.clip(0, 1)) / 255).astype(np.float32), **more)


def in_jpeg(sigma: float, quality: int, clean: np.ndarray, draw: np.random.Generator) -> Damaged:
    """White noise, then JPEG."""
    from PIL import Image

    noisy = stored(clean + sigma / 255 * draw.standard_normal(clean.shape)).pixels
    values, buffer = np.rint(255 * noisy).astype(np.uint8), io.BytesIO()
    Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0)).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        decoded = np.asarray(image) / np.float32(255)
        found = stored(decoded[None] if decoded.ndim == 2 else decoded.transpose(2, 0, 1), rounding=Rounding.of(image))
    return Damaged(found, by_the_file(found) or Noise(), "noise")


def noisy(sigma: float, clean: np.ndarray, draw: np.random.Generator) -> Damaged:
    """White noise."""
    return Damaged(stored(clean + sigma / 255 * draw.standard_normal(clean.shape)), Noise(), "noise")


def moved(clean: np.ndarray, draw: np.random.Generator) -> Damaged:
    """A motion of which the kernel is known, and a little noise."""
    return Damaged(
        stored(smear(clean) + 1 / 255 * draw.standard_normal(clean.shape)), Blurred("motion", KERNEL), "blur"
    )


def smear(clean: np.ndarray) -> np.ndarray:
    """Blurred, with the border continued by itself."""
    operator = blur(KERNEL, sides(clean), boundary="symmetric")
    return operator.A(torch.from_numpy(clean)[None])[0].numpy()


def scratched(clean: np.ndarray, draw: np.random.Generator) -> Damaged:
    """Thin lines across the picture, with a mask."""
    rows, columns = np.mgrid[: clean.shape[1], : clean.shape[2]]
    keep = np.ones(clean.shape[1:], bool)
    for _ in range(6):
        angle, place = draw.uniform(0, np.pi), draw.uniform(0.2, 0.8) * clean.shape[1]
        far = (rows - place) * np.cos(angle) + (columns - place) * np.sin(angle)
        keep &= np.abs(far) > 1.5
    return Damaged(stored(np.where(keep, clean, 1.0)), Masked(PATH, keep), "holes", keep)


def perforated(clean: np.ndarray, draw: np.random.Generator) -> Damaged:
    """Half of the pixels are missing."""
    keep = draw.random(clean.shape[1:]) > 0.5
    return Damaged(stored(clean * keep), Masked(PATH, keep), "holes", keep)


def moved_and_scratched(clean: np.ndarray, draw: np.random.Generator) -> Damaged:
    """A blurred scene, of the picture of which pixels are missing."""
    first, then = moved(clean, draw), scratched(clean, draw)
    keep = then.keep
    assert isinstance(first.damage, Blurred) and isinstance(then.damage, Masked) and keep is not None
    pixels = stored(np.where(keep, first.picture.pixels, 1.0))
    return Damaged(pixels, Several(first.damage, then.damage), "holes", keep)


def halved(clean: np.ndarray, draw: np.random.Generator) -> Damaged:
    """At half its size."""
    operator = downsample(2, sides(clean))
    return Damaged(stored(operator.A(torch.from_numpy(clean)[None])[0].numpy()), Coarse(2), "size")


CASES: dict[str, Callable[[np.ndarray, np.random.Generator], Damaged]] = {
    "noise 12, JPEG 50": lambda clean, draw: in_jpeg(12, 50, clean, draw),
    "JPEG 15": lambda clean, draw: in_jpeg(0, 15, clean, draw),
    "JPEG 50": lambda clean, draw: in_jpeg(0, 50, clean, draw),
    "noise 20": lambda clean, draw: noisy(20, clean, draw),
    "motion": moved,
    "scratches": scratched,
    "half missing": perforated,
    "motion, scratches": moved_and_scratched,
    "half size": halved,
}


def clean_of(name: str, side: int) -> np.ndarray:
    """(C, side, side) in [0, 1], the middle of a picture of scikit-image."""
    import skimage.data

    values = np.asarray(getattr(skimage.data, name)())
    values = values[:, :, None] if values.ndim == 2 else values[:, :, :3]
    top, left = ((length - side) // 2 for length in values.shape[:2])
    return (values[top : top + side, left : left + side].transpose(2, 0, 1) / np.float32(255)).astype(np.float32)


def score(pixels: np.ndarray, clean: np.ndarray) -> float:
    """PSNR inside the border."""
    cut = (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    return float(-10 * np.log10(np.square(pixels[cut].clip(0, 1) - clean[cut]).mean()))


def measure(case: str, names: Sequence[str], side: int) -> Row:
    """Means over the pictures; the seed of the damage is the place of the picture."""
    from benchmarks.restore.usual_tools import restored_by

    found: dict[str, list[float]] = {}
    for seed, name in enumerate(names):
        clean = clean_of(name, side)
        damaged = CASES[case](clean, np.random.default_rng(seed))
        channels = "grey" if len(clean) == 1 else "colour"
        restorer = load_restorer("--weights", f"prior-{channels}")
        done = restore_photo(damaged.picture, restorer, damage=damaged.damage)

        before = damaged.picture.pixels
        results = {"ours": done.picture.pixels} | restored_by(damaged.tools, before, damaged.keep, damaged.kernel)
        if before.shape == clean.shape:
            results["damaged"] = before
        for tool, pixels in results.items():
            found.setdefault(tool, []).append(score(pixels, clean))
    return {tool: float(np.mean(values)) for tool, values in found.items()}


def run(options: argparse.Namespace, rows: Rows) -> None:
    """The table."""
    names = PICTURES[: options.pictures]
    found = []
    for case in options.cases:
        row = rows.each(case, measure, case, names, options.side)
        others = {tool: value for tool, value in row.items() if tool not in ("ours", "damaged")}
        best = max(others, key=lambda tool: others[tool])
        found.append(
            {"": case, "damaged": row.get("damaged"), "ours": row["ours"], "best other": others[best], "by": best}
        )
    show(f"{len(names)} pictures, {options.side} x {options.side}, PSNR in dB", found)


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=1, fast={"pictures": 2, "side": 112})
    made.number("--pictures", len(PICTURES), "of scikit-image")
    made.number("--side", 256, "of the squares")
    made.chosen("--cases", list(CASES), list(CASES), "damages")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
