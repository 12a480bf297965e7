"""Generators trained by the joint solve, by nested Adam and as VAEs, in equal processor time; and the cost of a fit.

    JIIO_DATA=DIR python -m benchmarks.generate.generation --cache generators --output generation.json
    # about 40 minutes; --fast: 1

The same decoder, data and schedule; a VAE has an encoder of the same kind beside it. Reported: steps that the time was
enough for, PSNR of test images (by the training's own inference, and by the joint fit), distances between samples and
test images. Then, for the decoder trained jointly: evaluations plus VJPs, and processor seconds, until an image is and
stays within 1 % of the best objective that any method found, for the joint solve with its defaults and for nested Adam
at the best of five rates (in its favour). Objectives are measured at equilibria that are solved again, uncounted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import jiio
from benchmarks.arrivals import arrival, middle, verified
from benchmarks.generate.generators import HOW, SETS, plan, trained
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from jiio.tasks.generate.generator import EXACT, LatentGenerator
from jiio.tasks.generate.task import Generate, distances
from jiio.tasks.images.metrics import psnr
from jiio.tasks.solving.nested import nested

RATES = (0.003, 0.01, 0.03, 0.1, 0.3)


def quality(task: Generate, model: LatentGenerator, count: int) -> dict[str, float]:
    """Of reconstructions and samples."""
    test = task.images.test[:count]
    own, joint = task.reconstructions(model, test)
    found = {"PSNR": float(psnr(own[1], test).mean()), "PSNR, joint fit": float(psnr(joint[1], test).mean())}
    samples = task.samples(model, count)
    return found | {key: float(value) for key, value in distances(samples, test).items()}


@dataclass(frozen=True)
class Fit:
    """One way to fit a batch. own: (T, B) calls so far. values: (T, B) objectives, verified. price: seconds a call."""

    own: Tensor
    values: Tensor
    price: float


def joint(problem: jiio.Problem, x0: Tensor) -> Fit:
    """By the joint solve with its defaults."""
    times = []
    for _ in range(4):  # the first one warms up
        begin = time.process_time()
        jiio.solve(problem, x0, adjoint=jiio.Detached(), on_failure="ignore")
        times.append(time.process_time() - begin)
    seconds = statistics.median(times[1:])

    # Once more, with the points on the way; the two calls that measure the scale come first.
    traced = jiio.solve(problem, x0, adjoint=jiio.Detached(), on_failure="ignore", trace="points")
    assert traced.trace is not None
    own = torch.stack([2 * (2 + traced.steps.clamp_max(k)) for k in range(len(traced.trace.x))])
    return Fit(own, verified(problem, traced.trace.x), seconds / traced.evaluations.total)


def by_adam(problem: jiio.Problem, x0: Tensor, rate: float) -> Fit:
    """By the warm-started nested loop, which is never declared settled."""
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

    own = torch.stack([visit.own for visit in run.visits])
    return Fit(own, verified(problem, [visit.x for visit in run.visits]), seconds / run.calls)  # type: ignore[misc]


@torch.no_grad()
def cost(model: LatentGenerator, images: Tensor) -> dict[str, float]:
    """Calls and seconds of an image (medians) until it is within 1 % of the best, joint and nested."""
    problem, x0 = model.problem(images, EXACT), model.start(images)
    runs = {"joint": joint(problem, x0)} | {f"{rate:g}": by_adam(problem, x0, rate) for rate in RATES}
    best = torch.cat([run.values for run in runs.values()]).amin(0)
    reached = {name: arrival(run.own, run.values, best) for name, run in runs.items()}
    middles = {name: middle(calls) for name, calls in reached.items()}

    # The best rate counts, in favour of the nested loop.
    rate = min((name for name in runs if name != "joint"), key=lambda name: middles[name])
    calls = {"joint": middles["joint"], "nested": middles[rate]}
    seconds = {"joint": calls["joint"] * runs["joint"].price, "nested": calls["nested"] * runs[rate].price}
    found = {f"{way}, calls": number for way, number in calls.items()} | {"nested rate": float(rate)}
    found |= {f"{way}, seconds": number for way, number in seconds.items()}

    found["nested / joint, calls"] = calls["nested"] / calls["joint"]
    found["nested / joint, seconds"] = seconds["nested"] / seconds["joint"]
    both = reached[rate] / reached["joint"]
    return found | {"nested / joint, image by image": float(both[torch.isfinite(both)].nanmedian())}


def one(family: str, how: str, seed: int, options: argparse.Namespace) -> Row:
    """Train one generator and measure it."""
    config = plan(family, how, seed, test=options.images)
    task, model, steps = trained(config, options.seconds, cache=options.cache, data_root=options.data_root)
    row: Row = {"set": family, "trained by": how, "steps": float(steps)}
    row |= quality(task, model, min(options.images, len(task.images.test)))
    row["parameters"] = sum(p.numel() for p in model.decoder.parameters())
    row["of the encoder"] = sum(p.numel() for n, p in model.named_parameters() if n.startswith("encoder"))
    if how == "Joint":
        row["cost"] = cost(model, task.images.test[:16])
    return row


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All ways on all sets with one seed, then the next seed."""
    pairs = [(family, how) for family in options.sets for how in HOW]
    found = []
    for seed in range(options.seeds):
        found += [rows.each(f"{family}/{how}/{seed}", one, family, how, seed, options) for family, how in pairs]

    title = f"After {options.seconds:g} s of the processor each: median (lowest to highest seed)"
    show(title, over_seeds(found, "set", "trained by", digits=4))
    costs = [{"set": row["set"], **row["cost"]} for row in found if "cost" in row]
    show("Cost of a fit to within 1 % of the best objective", over_seeds(costs, "set"))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "sets": ["faces"], "seconds": 5.0, "images": 20})
    made.chosen("--sets", ["celeba", "mnist"], list(SETS), "image families")
    made.seconds("--seconds", 60.0, "processor seconds of every training")
    made.number("--images", 100, "test images and samples")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
