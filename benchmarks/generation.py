"""Generators trained by the joint solve, by nested Adam and as VAEs, in equal processor time; and the cost of a fit.

The same decoder, data and schedule; a VAE has an encoder of the same kind beside it. Reported: steps that the time was
enough for, PSNR of test images (by the training's own inference, and by the joint fit), distances between samples and
test images. Then, for the decoder trained jointly: evaluations plus VJPs, and processor seconds, until an image is and
stays within 1 % of the best objective that any method found, for the joint solve with its defaults and for nested Adam
at the best of five rates (in its favour). Objectives are measured at equilibria that are solved again, uncounted.

    JIIO_DATA=DIR python benchmarks/generation.py --cache generators --output generation.json

With --cache, a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

import harness
import torch
from generators import HOW, SETS, plan, trained
from torch import Tensor

import jiio
from jiio.tasks.generate.generator import EXACT, LatentGenerator
from jiio.tasks.generate.task import Generate, distances
from jiio.tasks.images.metrics import psnr
from jiio.tasks.solving.nested import nested

RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
WITHIN = 0.01


def quality(task: Generate, model: LatentGenerator, count: int) -> dict[str, float]:
    """Of reconstructions and samples."""
    test = task.images.test[:count]
    own, joint = task.reconstructions(model, test)
    found = {"PSNR": float(psnr(own[1], test).mean()), "PSNR, joint fit": float(psnr(joint[1], test).mean())}
    samples = task.samples(model, count)
    return found | {key: float(value) for key, value in distances(samples, test).items()}


def verified(problem: jiio.Problem, inputs: list[Tensor]) -> Tensor:
    """(T, B) objective at the equilibrium of each input."""
    z, values = None, []
    tight = {"tolerance": jiio.Tolerance(1e-7, 1e-5), "adjoint": jiio.Detached(), "on_failure": "ignore"}
    for x in inputs:
        z = jiio.equilibrium(problem.cell, x, z, **tight).z  # type: ignore[arg-type]
        values.append(problem.total(z, x, len(x)))
    return torch.stack(values)


@torch.no_grad()
def cost(model: LatentGenerator, images: Tensor) -> dict[str, float]:
    """Calls and seconds of an image (medians) until it is within 1 % of the best, joint and nested."""
    problem, x0 = model.problem(images, EXACT), model.start(images)
    times = []
    for _ in range(4):  # the first one warms up
        begin = time.process_time()
        jiio.solve(problem, x0, adjoint=jiio.Detached(), on_failure="ignore")
        times.append(time.process_time() - begin)
    seconds = statistics.median(times[1:])
    traced = jiio.solve(problem, x0, adjoint=jiio.Detached(), on_failure="ignore", trace="points")
    assert traced.trace is not None
    own = [2 * (2 + traced.steps.clamp_max(k)) for k in range(len(traced.trace.x))]
    runs = {"joint": (own, verified(problem, traced.trace.x), seconds / traced.evaluations.total)}
    for rate in RATES:
        begin = time.process_time()
        run = nested(
            problem,
            x0,
            rule=jiio.AdamStep(rate),
            outer_steps=100,
            tolerance=jiio.Tolerance(1e-5, 1e-3),
            outer_tolerance=jiio.Tolerance(1e-12, 1e-12),
        )
        seconds = time.process_time() - begin
        values = verified(problem, [v.x for v in run.visits])
        runs[f"{rate:g}"] = [v.own for v in run.visits], values, seconds / run.calls
    best = torch.cat([values for _, values, _ in runs.values()]).amin(0)
    reached = {name: arrival(torch.stack(own).float(), values, best) for name, (own, values, _) in runs.items()}
    middles = {name: float(calls.sort().values[(len(calls) - 1) // 2]) for name, calls in reached.items()}
    rate = min((n for n in runs if n != "joint"), key=lambda n: middles[n])
    found = {"joint, calls": middles["joint"], "nested, calls": middles[rate], "nested rate": float(rate)}
    found |= {"joint, seconds": middles["joint"] * runs["joint"][2], "nested, seconds": middles[rate] * runs[rate][2]}
    found["nested / joint, calls"] = found["nested, calls"] / found["joint, calls"]
    found["nested / joint, seconds"] = found["nested, seconds"] / found["joint, seconds"]
    both = reached[rate] / reached["joint"]
    return found | {"nested / joint, image by image": float(both[torch.isfinite(both)].nanmedian())}


def arrival(own: Tensor, values: Tensor, best: Tensor) -> Tensor:
    """(B,) calls until each image is within reach of the best and stays there; infinite where it never is."""
    near = values <= best + WITHIN * best.abs()
    stays = near.flip(0).cummin(0).values.flip(0)
    calls = own.gather(0, stays.float().argmax(0)[None])[0]
    return torch.where(stays.any(0), calls, torch.full_like(calls, float("inf")))


def one(family: str, how: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one generator and measure it."""
    config = plan(family, how, seed, test=options.images)
    task, model, about = trained(config, options.seconds, cache=options.cache, data_root=options.data_root)
    row: dict[str, Any] = {"set": family, "trained by": how, "seed": seed, **about}
    row |= quality(task, model, min(options.images, len(task.images.test)))
    row["parameters"] = sum(p.numel() for p in model.decoder.parameters())
    row["of the encoder"] = sum(p.numel() for n, p in model.named_parameters() if n.startswith("encoder"))
    if how == "Joint":
        row["cost"] = cost(model, task.images.test[:16])
    return row


def run(options: argparse.Namespace) -> harness.Row:
    rows = []
    for seed in range(1 if options.fast else options.seeds):
        for family in options.sets:
            for how in HOW:
                name = f"generation-{family}-{how}-{seed}-{options.seconds:g}-{options.images}"
                rows.append(harness.kept(options.cache, name, lambda f=family, h=how, s=seed: one(f, h, s, options)))
                harness.say(str(rows[-1]))
    table, costs = [], []
    for family in options.sets:
        for how in HOW:
            mine = [row for row in rows if (row["set"], row["trained by"]) == (family, how)]
            keys = [k for k in mine[0] if k not in ("set", "trained by", "seed", "cost")]
            line = {"set": family, "trained by": how}
            table.append(line | {k: harness.spread([r[k] for r in mine], 4) for k in keys})
            if how == "Joint":
                mine = [{k: float("nan") if v is None else v for k, v in row["cost"].items()} for row in mine]
                costs.append({"set": family} | {k: harness.spread([c[k] for c in mine]) for k in mine[0]})
    harness.show(f"After {options.seconds:g} s of the processor each: median (lowest to highest seed)", table)
    harness.show("Cost of a fit to within 1 % of the best objective", costs)
    return {"rows": rows}


if __name__ == "__main__":
    made = harness.parser(__doc__, seeds=3)
    made.add_argument("--sets", nargs="+", choices=list(SETS), default=["celeba", "mnist"], help="image families")
    made.add_argument("--seconds", type=float, default=60.0, help="processor seconds of every training (default 60)")
    made.add_argument("--images", type=harness.positive, default=100, help="test images and samples (default 100)")
    sys.exit(harness.main(made, run))
