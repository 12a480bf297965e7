"""Three ways to train the image-space prior in equal processor time: as a denoiser, first-order and exact bilevel.

The restoration is x* = argmin 1/2 |x - y|^2 + E(x, s), y = x + s n, and the figure its PSNR on pictures that were not
trained on. All ways start from the same short training as a denoiser, then each goes on for the same processor seconds:

    denoiser     the gradient step y - grad E(y) is trained to be the clean image (no inner solve)
    first-order  x* by the joint solve; gradient as if y - grad E(x*) depended on the weights, but not on x*
                 (Jacobian-free backpropagation, Fung et al. 2022)
    exact        x* by the joint solve; gradient by the KKT adjoint

    JIIO_DATA=DIR python benchmarks/prior_training.py --output prior_training.json
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time

import harness
import torch
from torch import Tensor, nn

import jiio
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
    optimiser = torch.optim.Adam(model.parameters(), rate)
    begin, step, shares = time.process_time(), 0, []
    while (gone := (time.process_time() - begin) / seconds) < 1.0:
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * gone))
        optimiser.zero_grad()
        loss, share = task.outer_loss(way, model, first + step)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        shares.append(share)
        step += 1
    return {"steps": float(step), "converged in training": sum(shares) / len(shares)}


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


def run(options: argparse.Namespace) -> harness.Row:
    warm, seconds = (5.0, 10.0) if options.fast else (options.warm, options.seconds)
    size = 64 if options.fast else 128
    pictures = {}
    for i, p in enumerate(load_pictures("folder:" + str(options.test), 1)):
        pictures[str(i)] = p[None, :, :size, :size].float() / 255
    rows = []
    for seed in range(options.seeds):
        values = {"seed": seed, "data": {"families": list(options.families), "size": 32, "batch_size": 8}}
        values |= {"noise": {"low": LEVEL, "high": LEVEL}, "model": vars(SIZES)}
        task = Ways(build(PriorConfig, values), data_root=options.data_root)
        torch.manual_seed(seed)
        start = ImagePrior(SIZES)
        go_on("denoiser", task, start, warm, 2e-3, 0)
        rows.append({"seed": seed, "way": "start", **measure(start, pictures)})
        for way in WAYS:
            model = copy.deepcopy(start)
            about = go_on(way, task, model, seconds, 1e-3, 100_000)
            rows.append({"seed": seed, "way": way, **about, **measure(model, pictures)})
            harness.say(str(rows[-1]))
    harness.show(f"PSNR after equal processor time ({warm:g} s as a denoiser, then {seconds:g} s), per seed", rows)
    heads = [head for head in rows[1] if head not in ("seed", "way")]
    table = []
    for way in ("start", *WAYS):
        mine = [row for row in rows if row["way"] == way]
        table.append({"way": way} | {h: harness.spread([r.get(h, math.nan) for r in mine], 4) for h in heads})
    harness.show("Median (lowest to highest seed)", table)
    return {"rows": rows, "warm": warm, "seconds": seconds}


if __name__ == "__main__":
    made = harness.parser(__doc__, seeds=3)
    made.add_argument("--families", nargs="+", default=["train400"], help="training pictures (default train400)")
    made.add_argument("--test", required=True, help="folder of test pictures")
    made.add_argument("--warm", type=float, default=40.0, help="seconds of training as a denoiser before (default 40)")
    made.add_argument("--seconds", type=float, default=80.0, help="seconds of every way (default 80)")
    sys.exit(harness.main(made, run))
