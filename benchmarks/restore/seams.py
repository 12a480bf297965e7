"""Does it show that a large picture is restored in tiles?

    python -m benchmarks.restore.seams [--weights prior-grey] [--picture FILE] [--sigma 25] [--output FILE]
    # about 5 minutes; --fast: 1

A crop of one megapixel gets noise and is restored twice: in overlapping tiles, as ``jiio restore`` does it, and as a
whole. The largest difference between the two, in units of 1/255, over the picture; with the PSNR of both. Default: the
middle of the retina photograph that scikit-image ships.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show
from jiio.outputs.seeds import generator
from jiio.tasks.frame.files import read_image
from jiio.tasks.images.metrics import psnr
from jiio.tasks.maps.base import Denoise
from jiio.tasks.restore.base import AbstractRestorer
from jiio.tasks.restore.load import load_restorer
from jiio.tasks.restore.photos.one import LEVELS
from jiio.tasks.restore.tiles import TILE, restore_tiled

TIGHT = jiio.Tolerance(atol=1e-6, rtol=1e-5)
WAYS: dict[str, dict[str, Any]] = {
    "as jiio restore solves": {},
    "solved tightly": {"tolerance": TIGHT, "max_steps": 100},
}


def crop(options: argparse.Namespace, channels: int) -> Tensor:
    """(1, C, H, W), the middle of the picture."""
    if options.picture is None:
        import skimage

        options.picture = Path(skimage.__file__).parent / "data" / "retina.jpg"

    pixels = torch.from_numpy(read_image("--picture", options.picture, channels=channels)).permute(2, 0, 1)[None]
    side = options.side
    top, left = (max(n - side, 0) // 2 for n in pixels.shape[2:])
    return pixels[:, :, top : top + side, left : left + side]


def measure(restorer: AbstractRestorer, clean: Tensor, settings: dict[str, Any], options: argparse.Namespace) -> Row:
    """In tiles and as a whole, the same noise and the same settings of every solve."""
    operator = Denoise(options.sigma / LEVELS)
    y = operator.measure(clean, generator(0, "seams"))
    tiled = restore_tiled(restorer, y, operator, tile=options.tile, **settings)
    whole = restorer.restore(y, operator, **settings).image

    apart = LEVELS * (tiled.image - whole).abs()
    row: Row = {"tiles": len(tiled.tiles), "largest difference": float(apart.amax())}
    row |= {"mean difference": float(apart.mean()), "PSNR, tiled": float(psnr(tiled.image.clamp(0, 1), clean))}
    return row | {"PSNR, whole": float(psnr(whole.clamp(0, 1), clean))}


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Both ways."""
    restorer = load_restorer("--weights", options.weights)
    clean = crop(options, restorer.channels)
    found = [{"": way} | rows.each(way, measure, restorer, clean, how, options) for way, how in WAYS.items()]
    height, width = clean.shape[2:]
    show(f"{width} x {height}, {options.weights}, sigma {options.sigma:g}; differences in units of 1/255", found)


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=1, fast={"side": 512})
    made.add_argument("--weights", default="prior-grey", help="shipped weights, a checkpoint or a folder")
    made.add_argument("--picture", type=Path, help="instead of the photograph of scikit-image")
    made.number("--side", 1024, "pixels of the crop")
    made.seconds("--sigma", 25.0, "noise in grey levels")
    made.number("--tile", TILE, "side of a tile")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
