"""Does it show that a large picture is restored in tiles?

A crop of one megapixel gets noise and is restored twice: in overlapping tiles, as ``jiio restore`` does it, and as a
whole. The largest difference between the two, in units of 1/255, over the picture and at the seams; with the PSNR of
both. Default: the middle of the retina photograph that scikit-image ships.

    python benchmarks/seams.py [--weights prior-grey] [--picture FILE] [--sigma 25] [--output FILE]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from harness import Row, main, parser, positive, say, show
from torch import Tensor

import jiio
from jiio.outputs.seeds import generator
from jiio.tasks.frame.files import read_image
from jiio.tasks.images.metrics import psnr
from jiio.tasks.maps.base import Denoise
from jiio.tasks.restore.load import load_restorer
from jiio.tasks.restore.photos.one import LEVELS
from jiio.tasks.restore.tiles import TILE, restore_tiled

TIGHT = jiio.Tolerance(atol=1e-6, rtol=1e-5)


def crop(options: argparse.Namespace, channels: int) -> Tensor:
    """(1, C, H, W), the middle of the picture."""
    if options.picture is None:
        import skimage

        options.picture = Path(skimage.__file__).parent / "data" / "retina.jpg"
    pixels = torch.from_numpy(read_image("--picture", options.picture, channels=channels)).permute(2, 0, 1)[None]
    side = 512 if options.fast else options.side
    top, left = (max(n - side, 0) // 2 for n in pixels.shape[2:])
    return pixels[:, :, top : top + side, left : left + side]


def run(options: argparse.Namespace) -> Row:
    restorer = load_restorer("--weights", options.weights)
    clean = crop(options, restorer.channels)
    operator = Denoise(options.sigma / LEVELS)
    y = operator.measure(clean, generator(0, "seams"))
    rows = []
    for label, settings in (("as jiio restore solves", {}), ("solved tightly", {"tolerance": TIGHT, "max_steps": 100})):
        tiled = restore_tiled(restorer, y, operator, tile=options.tile, **settings)
        say(f"{label}: {len(tiled.tiles)} tiles")
        whole = restorer.restore(y, operator, **settings).image
        apart = LEVELS * (tiled.image - whole).abs()
        row = {"": label, "tiles": len(tiled.tiles), "largest difference": float(apart.amax())}
        row |= {"mean difference": float(apart.mean()), "PSNR, tiled": float(psnr(tiled.image.clamp(0, 1), clean))}
        rows.append(row | {"PSNR, whole": float(psnr(whole.clamp(0, 1), clean))})
    height, width = clean.shape[2:]
    show(f"{width} x {height}, {options.weights}, sigma {options.sigma:g}; differences in units of 1/255", rows)
    return {"rows": rows}


if __name__ == "__main__":
    made = parser(__doc__, seeds=1)
    made.add_argument("--weights", default="prior-grey", help="shipped weights, a checkpoint or a folder")
    made.add_argument("--picture", type=Path, help="instead of the photograph of scikit-image")
    made.add_argument("--side", type=positive, default=1024, help="pixels of the crop (default 1024)")
    made.add_argument("--sigma", type=float, default=25.0, help="noise in grey levels (default 25)")
    made.add_argument("--tile", type=positive, default=TILE, help=f"side of a tile (default {TILE})")
    sys.exit(main(made, run))
