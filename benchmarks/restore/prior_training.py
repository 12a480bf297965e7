"""Three ways to train the image-space prior in equal processor time: as a denoiser, first-order and exact bilevel.

    JIIO_DATA=DIR python -m benchmarks.restore.prior_training --test FOLDER --output prior_training.json
    # about 25 minutes with five pictures; --fast: 1

The restoration is x* = argmin 1/2 |x - y|^2 + E(x, s), y = x + s n, and the figure its PSNR on pictures that were not
trained on. All ways start from the same short training as a denoiser, then each goes on for the same processor seconds:

    denoiser     the gradient step y - grad E(y) is trained to be the clean image (no inner solve)
    first-order  x* by the joint solve; gradient as if y - grad E(x*) depended on the weights, but not on x*
                 (Jacobian-free backpropagation, Fung et al. 2022)
    exact        x* by the joint solve; gradient by the KKT adjoint
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from benchmarks.trainings import Course, Seconds, descend, half_cosine
from jiio.models.images.prior import ImagePrior, ImagePriorConfig
from jiio.outputs.seeds import generator
from jiio.tasks.frame.load import build
from jiio.tasks.images.galleries import load_pictures
from jiio.tasks.images.metrics import psnr
from jiio.tasks.maps.base import Denoise
from jiio.tasks.restore.imagespace import ImageRestorer, Strength
from jiio.tasks.restore.prior import Prior, PriorConfig

LEVEL = 25 / 255
SIZES = ImagePriorConfig(features=32, wide=48, depth=1)
TOLERANCE = jiio.Tolerance(atol=1e-4, rtol=3e-3)
WAYS = ("denoiser", "first-order", "exact")


class Ways(Prior):
    """The task ``prior`` with the two bilevel losses beside its own."""

    def outer_loss(self, way: str, model: ImagePrior, step: int) -> tuple[Tensor, float]:
        """Mean squared error per image, summed over pixels, and the share of solves that converged."""
        clean, noisy, level = self.noisy_patches(step)
        if way == "denoiser":
            denoised, _, _ = self.denoise(model, noisy, level, 4)
            return (denoised - clean).square().flatten(1).sum(1).mean(), math.nan

        # x* of the lower level, and how the upper one is differentiated.
        problem = model.problem(lambda x: 0.5 * (x - noisy).square().flatten(1).sum(1), level=LEVEL)
        adjoint = jiio.KKT(rtol=1e-2, max_steps=30) if way == "exact" else jiio.Detached()
        solution = jiio.solve(problem, noisy, adjoint=adjoint, tolerance=TOLERANCE, max_steps=40, on_failure="ignore")
        x = solution.x
        if way == "first-order":
            step_from, _, _ = self.denoise(model, x, level, 4)
            x = noisy + (step_from - x)

        good = solution.status != jiio.Status.NONFINITE
        error = (x - clean).square().flatten(1).sum(1)
        loss = torch.where(good, error, torch.zeros_like(error)).mean()
        return loss, float(solution.converged.float().mean())


def go_on(way: str, task: Ways, model: ImagePrior, seconds: float, rate: float, first: int) -> dict[str, float]:
    """Train for so many seconds, with the rate falling over them; steps count from ``first``, so data are fresh."""
    shares = []

    def loss(step: int) -> Tensor:
        value, share = task.outer_loss(way, model, first + step)
        shares.append(share)
        return value

    course = Course(half_cosine(rate, rise=20), clip=10.0)
    steps = descend(model.parameters(), loss, course, Seconds(seconds)).steps
    return {"steps": float(steps), "converged in training": sum(shares) / len(shares)}


def measure(model: ImagePrior, pictures: dict[str, Tensor]) -> dict[str, float]:
    """PSNR of the gradient step, and of the joint solve at the level of the noise and at the best lower one."""
    figures: dict[str, list[float]] = {}
    for name, clean in pictures.items():
        noisy = clean + LEVEL * torch.randn(clean.shape, generator=generator(0, "noise", name))
        ways = {"gradient step": ImageRestorer(model)}
        for level in (1.0, 0.8, 0.6, 0.5, 0.4):
            ways[f"argmin, level {level} s"] = ImageRestorer(model, strength=Strength((level * LEVEL,)))
        for way, restorer in ways.items():
            image = restorer.restore(noisy, Denoise(LEVEL)).image
            figures.setdefault(way, []).append(float(psnr(image.clamp(0, 1), clean)))
    return {way: sum(values) / len(values) for way, values in figures.items()}


def one_seed(seed: int, pictures: dict[str, Tensor], options: argparse.Namespace) -> list[Row]:
    """The short training as a denoiser, and every way on from it."""
    values = {"seed": seed, "data": {"families": list(options.families), "size": 32, "batch_size": 8}}
    values |= {"noise": {"low": LEVEL, "high": LEVEL}, "model": vars(SIZES)}
    task = Ways(build(PriorConfig, values), data_root=options.data_root)
    torch.manual_seed(seed)
    start = ImagePrior(SIZES)
    go_on("denoiser", task, start, options.warm, 2e-3, 0)

    # Other data than before, the same for every way.
    rows: list[Row] = [{"way": "start", **measure(start, pictures)}]
    for way in WAYS:
        model = copy.deepcopy(start)
        about = go_on(way, task, model, options.seconds, 1e-3, 100_000)
        rows.append({"way": way, **about, **measure(model, pictures)})
    return rows


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All seeds."""
    size = 64 if options.fast else 128
    pictures = {}
    for i, p in enumerate(load_pictures(f"folder:{options.test}", 1)):
        pictures[str(i)] = p[None, :, :size, :size].float() / 255

    found = []
    for seed in range(options.seeds):
        found += [{"seed": seed} | row for row in rows.each(str(seed), one_seed, seed, pictures, options)]
    budget = f"{options.warm:g} s as a denoiser, then {options.seconds:g} s"
    show(f"PSNR after equal processor time ({budget}), per seed", found)
    show("Median (lowest to highest seed)", over_seeds(found, "way", digits=4))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "warm": 5.0, "seconds": 10.0})
    made.add_argument("--families", nargs="+", default=["train400"], help="training pictures (default train400)")
    made.add_argument("--test", type=Path, required=True, help="folder of test pictures")
    made.seconds("--warm", 40.0, "seconds of training as a denoiser before")
    made.seconds("--seconds", 80.0, "seconds of every way")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
