"""Is latent pursuit better than layered pursuit, and than descent, where generators hardly expand?

    python -m benchmarks.generate.pursuit --output pursuit.json
    # about 6 minutes; --fast: 1

Random ReLU generators (:mod:`.inversion`), deep or hardly expanding, with known codes: clean images, images with 1 % of
noise, and images of which half is missing. Layered pursuit, latent pursuit, Adam from one start and from five, Gauss
and Newton from one start and from five (random codes, the baseline that is easily forgotten), and Adam, or Gauss and
Newton, where latent pursuit ended. Reported: the share of codes found (relative error below 1 %, or ten times the
noise), the share reported as a success, how many of these have another code, and passes through the generator and back.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.generate.inversion import RATES, RIGHT, measured, random_generator
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from jiio.outputs.seeds import generator
from jiio.tasks.generate.inversion.base import AbstractInversion, AdamDescent
from jiio.tasks.generate.inversion.layers import Visible
from jiio.tasks.generate.inversion.layerwise import LayerWise
from jiio.tasks.generate.inversion.newton import GaussNewton
from jiio.tasks.generate.inversion.pursuit import LatentPursuit

WIDTHS = ((10, 20, 40), (10, 100, 60), (10, 20, 40, 80), (10, 20, 30, 40, 60), (10, 15, 22, 33))
CASES = {"clean": (0.0, 0.0), "noise": (0.01, 0.0), "half missing": (0.0, 0.5)}  # noise, share that is missing
HEADS = ("generator", "images", "method")


def methods(within: float, steps: int) -> dict[str, list[AbstractInversion]]:
    """The candidates of each method; Adam has the best of three rates, in its favour."""
    support = min(3 * within, 0.1)
    latent = LatentPursuit(support, within=within)
    return {
        "layered pursuit": [LayerWise(support, within=within)],
        "latent pursuit": [latent],
        "Adam": [AdamDescent(rate, steps, within=within) for rate in RATES],
        "Adam, 5 starts": [AdamDescent(rate, steps, 5, within=within) for rate in RATES],
        "Gauss-Newton": [GaussNewton(within=within)],
        "Gauss-Newton, 5 starts": [GaussNewton(starts=5, within=within)],
        "Adam after latent pursuit": [AdamDescent(0.01, steps, start=latent, within=within)],
        "Gauss-Newton after latent pursuit": [GaussNewton(start=latent, within=within)],
    }


def images_of(model: nn.Module, x: Tensor, noise: float, draw: torch.Generator) -> Tensor:
    """The images of codes, with noise of so much of their length."""
    with torch.no_grad():
        clean = model(x)
    e = torch.randn(clean.shape, generator=draw, dtype=clean.dtype)
    return clean + noise * e * clean.norm(dim=1, keepdim=True) / e.norm(dim=1, keepdim=True)


def one(widths: tuple[int, ...], seed: int, options: argparse.Namespace) -> list[Row]:
    """Every case of one generator."""
    rows, name = [], "-".join(map(str, widths))
    for case, (noise, missing) in CASES.items():
        draw, model = generator(seed, "codes", *widths), random_generator(widths, seed)
        x = torch.randn(options.images, widths[0], generator=draw, dtype=torch.float64)
        seen = torch.rand(widths[-1], generator=draw) >= missing
        whole = nn.Sequential(model, Visible(seen)).eval()

        makers = methods(2 * noise or 1e-3, options.steps)
        found = measured(makers, whole, images_of(whole, x, noise, draw), x, 10 * noise or RIGHT)
        rows += [{"generator": name, "images": case, "seed": seed} | row for row in found]
    return rows


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All generators and seeds."""
    found = []
    for seed in range(options.seeds):
        for widths in WIDTHS[:1] if options.fast else WIDTHS:
            found += rows.each(f"{'-'.join(map(str, widths))}/{seed}", one, widths, seed, options)
    found.sort(key=lambda row: [*CASES].index(row["images"]))
    show("random generators: median (lowest to highest seed)", over_seeds(found, *HEADS))
    # Over all generators of a case: who finds most, and who is wrong most often.
    sums = []
    for seed in range(options.seeds):
        for case in CASES:
            mine = [row for row in found if (row["seed"], row["images"]) == (seed, case)]
            for method in dict.fromkeys(row["method"] for row in mine):
                own = [row for row in mine if row["method"] == method]
                line = {
                    key: sum(row[key] for row in own) / len(own) for key in ("found", "reported", "passes", "seconds")
                }
                wrong = sum(row["reported, another code"] for row in own)
                sums.append({"images": case, "method": method, "seed": seed} | line | {"another code": wrong})
    show("mean over the generators: median (lowest to highest seed)", over_seeds(sums, "images", "method"))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "images": 6, "steps": 50})
    made.number("--images", 24, "images of every case")
    made.number("--steps", 400, "steps of Adam")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
