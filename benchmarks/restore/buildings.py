"""Straight lines that repeat: the prior and BM3D on pictures of buildings, both told the level.

    JIIO_DATA=DIR python -m benchmarks.restore.buildings    # denoising/CBSD68 and Set12, bm3d; 2 minutes; --fast: 20 s

The middles of six pictures of CBSD68 with buildings, in grey, and of six of Set12, with white noise of 15, 25 and 50
grey levels, one draw for each picture. PSNR in dB and SSIM (Gaussian window), in the mean. BM3D takes part where it can
be imported; its licence forbids commercial use, and nothing needs it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Parser, main
from benchmarks.restore.usual_tools import denoised
from benchmarks.rows import Rows
from benchmarks.tables import Row, show
from jiio.tasks.frame.files import read_image
from jiio.tasks.images.metrics import psnr, ssim
from jiio.tasks.images.sources import find_data
from jiio.tasks.maps.base import Denoise
from jiio.tasks.restore.load import load_restorer

GREY = 255.0
LEVELS = (15, 25, 50)
SETS = {
    "buildings": [f"CBSD68/{name}.png" for name in ("102061", "119082", "126007", "148026", "223061", "182053")],
    "Set12": [f"Set12/{number:02}.png" for number in (1, 2, 4, 7, 8, 12)],
}
SIDE = 160


def crop(path: Path) -> Tensor:
    """(1, 1, 160, 160), the middle of a picture."""
    clean = read_image("--data-root", path, channels=1)[:, :, 0]
    top, left = ((n - SIDE) // 2 for n in clean.shape)
    return torch.from_numpy(clean[top : top + SIDE, left : left + SIDE])[None, None].double()


def measure(path: Path, level: int, number: int) -> Row:
    """One picture at one level. number: in its set, from which the noise is drawn."""
    clean = crop(path)
    sigma = level / GREY
    y = clean + sigma * torch.from_numpy(np.random.default_rng(number).standard_normal((SIDE, SIDE)))

    with torch.no_grad():
        ours = load_restorer("--weights", "prior-grey").restore(y.float(), Denoise(sigma)).image
    found = {"noisy": y, "ours": ours.double()}
    for tool, image in denoised(y[0].numpy(), sigma).items():
        found[tool] = torch.from_numpy(image).double().view_as(y)
    return {f"{tool}, {name}": value for tool, image in found.items() for name, value in scores(image, clean).items()}


def scores(image: Tensor, clean: Tensor) -> dict[str, float]:
    """PSNR and SSIM of what can be shown."""
    shown = image.clamp(0, 1)
    return {"dB": float(psnr(shown, clean)), "SSIM": float(ssim(shown, clean))}


def run(options: argparse.Namespace, rows: Rows) -> None:
    """The mean over the pictures of each set."""
    root = find_data(options.data_root, "denoising", "CBSD68 and Set12", argument="--data-root")
    lines = []
    for name in options.sets:
        for level in LEVELS:
            paths = SETS[name][: options.pictures]
            found = [rows.each(f"{name}, {level}, {i}", measure, root / p, level, i) for i, p in enumerate(paths)]
            lines.append(
                {"": f"{name}, {level}"} | {key: float(np.mean([row[key] for row in found])) for key in found[0]}
            )
    show("PSNR in dB and SSIM", lines)


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=1, fast={"pictures": 1})
    made.chosen("--sets", list(SETS), list(SETS), "pictures")
    made.number("--pictures", 6, "of each set")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
