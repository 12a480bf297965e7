"""Does the error that ``jiio restore --confidence`` expects predict the error there is?

    python -m benchmarks.restore.confidence --data-root FOLDER [--on set12] [--sigma 25] [--output FILE]
    # about 10 minutes; --fast: 2

Pictures of a set, cut to their middles, get noise and are restored; the expected error of every pixel (a parametric
bootstrap, four draws) is held against the error there is, both averaged over 7 x 7 pixels: correlation by value and by
rank within each picture, and their means in grey levels.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show
from jiio.outputs.seeds import generator
from jiio.tasks.images.sets import load_set
from jiio.tasks.maps.base import Denoise
from jiio.tasks.restore.base import AbstractRestorer
from jiio.tasks.restore.confidence import NEAR, expected_error
from jiio.tasks.restore.load import load_restorer
from jiio.tasks.restore.photos.one import LEVELS
from jiio.tasks.restore.tiles import restore_tiled

SIDE = 160  # pixels of the middles


def measure(restorer: AbstractRestorer, name: str, picture: Tensor, sigma: float) -> Row:
    """One picture (1, C, H, W); sigma in 8-bit grey levels."""
    operator = Denoise(sigma / LEVELS)
    top, left = ((n - min(n, SIDE)) // 2 for n in picture.shape[2:])
    clean = picture[:, :, top : top + SIDE, left : left + SIDE]
    y = operator.measure(clean, generator(0, "confidence benchmark", name))
    restored = restore_tiled(restorer, y, operator).image

    # The true error over the same neighbourhood as the expected one.
    expected = expected_error(restorer, restored, operator)
    square = F.pad((restored - clean).square().mean((0, 1), keepdim=True), (NEAR // 2,) * 4, mode="replicate")
    return {"picture": name} | compare(expected, F.avg_pool2d(square, NEAR, stride=1).sqrt())


def compare(expected: Tensor, true: Tensor) -> dict[str, float]:
    """Two maps of errors (1, 1, H, W)."""
    pair = torch.stack([expected.flatten(), true.flatten()]).double()
    return {
        "correlation": float(torch.corrcoef(pair)[0, 1]),
        "of ranks": float(torch.corrcoef(pair.argsort(1).argsort(1).double())[0, 1]),
        "expected": LEVELS * float(pair[0].mean()),
        "true": LEVELS * float(pair[1].mean()),
    }


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Every picture of the set."""
    restorer = load_restorer("--weights", options.weights)
    limit = 2 if options.fast else None
    pictures = load_set("--on", options.on, channels=restorer.channels, limit=limit, data_root=options.data_root)
    found = [rows.each(name, measure, restorer, name, picture, options.sigma) for name, picture in pictures.items()]

    keys = [key for key in found[0] if key != "picture"]
    found.append({"picture": "mean"} | {key: statistics.fmean(row[key] for row in found) for key in keys})
    show(f"expected against true error, {options.on}, sigma {options.sigma:g}, {options.weights}", found)


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=1)
    made.add_argument("--on", default="set12", help="set12, bsd68, cbsd68 or folder:PATH (default set12)")
    made.seconds("--sigma", 25.0, "noise in 8-bit grey levels")
    made.add_argument("--weights", default="prior-grey", help="shipped weights or a checkpoint (default prior-grey)")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
