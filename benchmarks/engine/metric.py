"""What does a metric for the input save, and what does a nested loop need that knows the same metric?

    python -m benchmarks.engine.metric --output metric.json            # about 10 minutes; --fast: 1 minute

Calls (evaluations + VJPs) of a sample until it has converged to the tolerance of the tasks (1e-3), on held-out faces:
the shipped models of restore-faces (an 8 x 8 hole) and generate-faces, and dense decoders trained here, one seed after
the other, with less and less Jacobian penalty, whose curvature varies the more between samples. Every method knows all
that the others know: measured scales or the metric, the plain start or the linearised one, Anderson acceleration, and
for the nested loop the better of tight and loose inner solves. The measurement of S is a cost of the model, in a row of
its own. "plain / linearised" and "nested / linearised" are ratios of the medians; nested is its best row.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

import jiio
from benchmarks.arrivals import middle, verified
from benchmarks.engine.networks import RECIPES, Place, decoder
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from jiio.tasks.frame import checkpoint
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.generate.generator import EXACT
from jiio.tasks.generate.task import Generate
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.families import load_images
from jiio.tasks.restore.latent import Restore, RestoreConfig
from jiio.tasks.solving.latent import LatentRestorer
from jiio.tasks.solving.nested import nested

USUAL = jiio.Tolerance(1e-5, 1e-3)
LOOSE = jiio.Tolerance(1e-5, 1e-2)
PENALTIES = {"decoder": 1.0, "decoder, penalty 0.1": 0.1, "decoder, penalty 0.01": 0.01}
SHIPPED = ("restore-faces", "generate-faces")
Posed = tuple[jiio.Problem, Tensor]


def weights(name: str) -> checkpoint.Checkpoint:
    """Shipped ones."""
    return checkpoint.load(shipped("--models", name, "weights", ".safetensors"))


def restore_faces() -> Posed:
    """The shipped restorer, and the hole that it was trained for."""
    held = weights("restore-faces")
    assert isinstance(held.config, RestoreConfig)
    task, model = Restore(held.config), Restore.trained(held).requires_grad_(False)
    case = task.case(task.images.test, "test")
    return model.problem(case.y, case.operator), model.start(case.y)


def generate_faces() -> Posed:
    """The shipped generator, and whole images."""
    model = Generate.trained(weights("generate-faces")).requires_grad_(False)
    faces = load_images(DataConfig(family="faces", size=24)).test
    assert isinstance(model, LatentRestorer)
    return model.problem(faces, EXACT), model.start(faces)


def trained(name: str, seed: int, options: argparse.Namespace) -> Posed:
    """A dense decoder of :mod:`benchmarks.engine.networks` with another penalty, and held-out faces."""
    recipe = dataclasses.replace(RECIPES["dense decoder"], name=name, jacobian=PENALTIES[name], steps=options.steps)
    case = decoder(recipe, Place(seed, options.samples, options.cache, options.data_root))
    return case.whole(), case.start


def posed(name: str, seed: int, options: argparse.Namespace) -> Posed:
    if name in SHIPPED:
        return restore_faces() if name == "restore-faces" else generate_faces()
    return trained(name, seed, options)


def joints(problem: jiio.Problem, x0: Tensor, near: jiio.Linearised) -> Row:
    """The joint solves: today's, with the metric alone, and from the linearised optimum."""
    settings: dict[str, Any] = {"tolerance": USUAL, "max_steps": 400, "on_failure": "ignore"}
    settings["adjoint"] = jiio.Detached()
    plain = jiio.solve(problem, x0, **settings)
    metric = jiio.solve(problem, x0, metric=near.metric, **settings)
    there = jiio.solve(problem, near.x, near.z, metric=near.metric, **settings)
    alone = torch.full((len(x0),), near.calls)
    first = 4 if near.metric is None else 0  # two evaluations and two VJPs for scales that the metric brings
    return {
        "linearised optimum, no solve": told(problem, near.x, alone, torch.zeros(len(x0))),
        "joint, plain": told(problem, plain.x, 2 * plain.steps + 4, plain.converged),
        "joint, metric": told(problem, metric.x, 2 * metric.steps + first, metric.converged),
        "joint, linearised": told(problem, there.x, 2 * there.steps + first + near.calls, there.converged),
    }


def nests(problem: jiio.Problem, x0: Tensor, near: jiio.Linearised) -> Row:
    """Nested loops: gradient steps in measured scales, and whole Newton steps in the metric, from either start."""
    found: Row = {}
    for outer in (jiio.Picard(), jiio.Anderson()):
        for inner, word in ((USUAL, ""), (LOOSE, ", loose")):
            settings = {"outer": outer, "tolerance": inner, "outer_tolerance": USUAL, "outer_steps": 60}
            name = f"{type(outer).__name__}{word}"
            found[f"nested, plain, {name}"] = loop(problem, (x0,), 0, settings)
            if near.metric is not None:
                newton = settings | {"metric": near.metric, "rule": jiio.GradientStep(1.0)}
                found[f"nested, metric, {name}"] = loop(problem, (x0,), 0, newton)
                found[f"nested, linearised, {name}"] = loop(problem, (near.x, near.z), near.calls, newton)
    return found


def loop(problem: jiio.Problem, start: tuple, calls: int, settings: dict[str, Any]) -> Row:
    """One nested run."""
    run = nested(problem, *start, **settings)
    return told(problem, run.x, run.visits[-1].own + calls, run.converged)


def told(problem: jiio.Problem, x: Tensor, calls: Tensor, converged: Tensor) -> Row:
    """Calls of the samples (B,), how many converged, and the objective where they ended, solved again tightly."""
    value = float(verified(problem, [x])[0].mean())
    figures = {"calls": middle(calls.float()), "most": float(calls.max())}
    return figures | {"converged": float(converged.float().mean()), "objective": value}


def one(ready: Callable, name: str, seed: int, options: argparse.Namespace) -> Row:
    """All methods on one model."""
    problem, x0 = ready(name, seed)
    sensitivity = jiio.Sensitivity.of(problem, x0[:1])
    near = sensitivity.linearised(problem, x0)
    spent = sensitivity.evaluations
    rows = joints(problem, x0, near) | nests(problem, x0, near)
    rows["measuring S, once"] = {"calls": float(spent.cell + spent.vjp + spent.adjoint_hvp)}
    return {"seed": seed, "factor": sensitivity.factor, "trusted": trusted(near, len(x0)), "rows": rows}


def trusted(near: jiio.Linearised, batch: int) -> float:
    """The share of samples that are solved in the metric."""
    return 0.0 if near.metric is None else 1 - float(near.metric.plain.expand(batch, 1).float().mean())


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Model by model; the shipped ones have one seed, that of their weights."""
    ready = cache(lambda name, seed: posed(name, seed, options))
    lines = []
    for name in options.models:
        seeds = range(1 if name in SHIPPED else options.seeds)
        found = [rows.each(f"{name}/{seed}", one, ready, name, seed, options) for seed in seeds]
        for method in found[0]["rows"]:
            figures = [{"model": name, "method": method} | f["rows"][method] for f in found if method in f["rows"]]
            lines += over_seeds(figures, "model", "method")
        lines += over_seeds([{"model": name, "method": "ratios"} | ratios(f) for f in found], "model", "method")
    show("Calls to convergence", lines)


def ratios(found: Row) -> Row:
    """What the linearised joint solve saves against the plain one and against the best nested row that arrives."""
    rows = found["rows"]
    best = min(r["calls"] for key, r in rows.items() if key.startswith("nested") and r["converged"] > 0.9)
    ours = rows["joint, linearised"]["calls"]
    about = {"factor": found["factor"], "trusted": found["trusted"]}
    return about | {"plain / linearised": rows["joint, plain"]["calls"] / ours, "nested / linearised": best / ours}


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "models": list(SHIPPED)})
    names = [*SHIPPED, *PENALTIES]
    made.chosen("--models", names, names, "models")
    made.number("--samples", 32, "held-out faces for the trained decoders")
    made.number("--steps", 150, "training steps of the decoders")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
