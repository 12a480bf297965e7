"""What does a restoration cost, and what is it worth?

    python -m benchmarks.restore.speed [--fast] [--side 256]    # about 3 minutes on a core; --fast: 1

A corner of scikit-image's cameraman with noise of 25 grey levels, a Gaussian blur of 1.6 pixels with noise of 2, half
of its pixels missing, and at half its size, each restored by the shipped grey prior. Processor seconds per megapixel
and thread (with ``--threads 1``: per core), evaluations of the cell, PSNR before and after, and the largest memory of
the process so far. The same file runs on earlier states, so that before and after can be measured in one go.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence

import torch
from torch import Tensor

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show
from jiio.tasks.images.metrics import psnr
from jiio.tasks.maps.base import Denoise, Inpaint, LinearMap, random_mask
from jiio.tasks.maps.convolution import blur, downsample
from jiio.tasks.maps.kernels import gaussian_kernel
from jiio.tasks.restore.load import load_restorer

GREY = 255.0
LOOSE = 0.02  # the tolerance of ``jiio restore --fast``
BORDER = 8  # pixels that do not count: a border is a matter of the boundary


def operators(side: int) -> dict[str, LinearMap]:
    """The four damages of a square picture."""
    holes = random_mask(1, side, side, missing=0.5, generator=torch.Generator().manual_seed(0))
    return {
        "noise 25": Denoise(25 / GREY),
        "blur": blur(gaussian_kernel(1.6), (side, side), boundary="symmetric", sigma=2 / GREY),
        "holes": Inpaint(holes),
        "half size": downsample(2, (side, side)),
    }


def scene(side: int) -> Tensor:
    """(1, 1, side, side)."""
    from skimage.data import camera

    return torch.from_numpy(camera()[90 : 90 + side, 170 : 170 + side] / GREY).float()[None, None]


def inside(image: Tensor, clean: Tensor) -> float:
    """PSNR without the border."""
    cut = (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    return float(psnr(image[cut].clamp(0, 1), clean[cut]).mean())


def measure(name: str, side: int, seeds: int, loose: float | None) -> Row:
    """One damage, means over the seeds of the noise. loose: a relative tolerance; None for the usual one."""
    clean, operator = scene(side), operators(side)[name]
    restorer = load_restorer("--weights", "prior-grey")
    settings = {} if loose is None else {"tolerance": jiio.Tolerance(loose / 10, loose)}
    seconds = calls = before = after = 0.0
    for seed in range(seeds):
        y = operator.measure(clean, torch.Generator().manual_seed(seed))
        begin = time.process_time()
        done = restorer.restore(y, operator, on_failure="ignore", **settings)
        seconds += time.process_time() - begin
        calls += done.evaluations
        before, after = before + inside(operator.start(y), clean), after + inside(done.image, clean)

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB
    row: Row = {"s per MP": seconds / seeds / (side**2 / 1e6), "evaluations": calls / seeds}
    return row | {"start, dB": before / seeds, "restored, dB": after / seeds, "peak, GiB": peak}


def run(options: argparse.Namespace, rows: Rows) -> None:
    """The table."""
    names = list(operators(64))
    ways = {"": None, ", loosely": LOOSE}
    found = [
        {"": name + way} | rows.each(name + way, measure, name, options.side, options.seeds, loose)
        for name in names
        for way, loose in ways.items()
    ]
    show(f"a picture of {options.side} x {options.side}, {options.threads} threads", found)


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=1, fast={"side": 128})
    made.number("--side", 256, "of the picture")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
