"""Two streams that only together say the answer: an equilibrium in which each attends to the other.

    python -m benchmarks.language.crossmodal --output crossmodal.json
    # about 15 minutes; --fast: 1

Stream a holds one pointer among blanks: a one-hot number p of 8, at a random place. Stream b holds four or eight
one-hot values of 4, every value equally often, in random order; the answer is the value at place p. Either stream alone
leaves all four answers equally likely. Both are padded, with noise.

    both           trained on both streams
    a, b alone     the same model and training with the other stream silenced: zeros throughout
    applied once   both streams, the cell applied once instead of to its fixed point
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from benchmarks.trainings import Course, Steps, descend, half_cosine
from jiio.models import CrossModalModel

PLACES, VALUES, BLANKS = 8, 4, 3
Batch = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]


def draw(count: int, source: torch.Generator) -> Batch:
    """Streams (count, 4, 9) and (count, 8, 4), masks (count, 4) and (count, 8), answers (count,)."""
    short = torch.rand(count, generator=source) < 0.5
    length = torch.where(short, PLACES // 2, PLACES)
    order = torch.rand(count, PLACES, generator=source)
    order = torch.where(torch.arange(PLACES) < length[:, None], order, 2.0).argsort(1)  # a permutation of those there
    values = order % VALUES

    # One token of stream a is the pointer, the others are blanks.
    pointer = (torch.rand(count, generator=source) * length).long()
    tokens = torch.randint(1, BLANKS + 2, (count,), generator=source)  # of stream a, the pointer counted
    at = (torch.rand(count, generator=source) * tokens).long()
    a = torch.full((count, BLANKS + 1), PLACES)
    a[torch.arange(count), at] = pointer

    answer = values[torch.arange(count), pointer]
    there = (torch.arange(BLANKS + 1) < tokens[:, None], torch.arange(PLACES) < length[:, None])
    x = (F.one_hot(a, PLACES + 1) * 3.0, F.one_hot(values, VALUES) * 2.0)
    noise = [torch.randn(part.shape, generator=source) for part in x]
    x = tuple(torch.where(held[..., None], part, wild) for held, part, wild in zip(there, x, noise, strict=True))
    return (x[0], x[1]), there, answer


# name -> what differs: the stream that is silenced, and how often the cell is applied
WAYS: dict[str, dict[str, int]] = {
    "both": {},
    "a alone": {"silent": 1},
    "b alone": {"silent": 0},
    "applied once": {"times": 1},
}


def network() -> CrossModalModel:
    """Solved loosely: the answer is one of four."""
    tolerance = jiio.Tolerance(1e-4, 1e-3)
    adjoint = jiio.Implicit(tolerance=tolerance, max_steps=20)
    settings = {"adjoint": adjoint, "tolerance": tolerance, "max_steps": 20, "on_failure": "ignore"}
    return CrossModalModel((PLACES + 1, VALUES), VALUES, **settings)  # type: ignore[arg-type]


def answered(model: CrossModalModel, batch: Batch, silent: int | None, times: int | None) -> tuple[Tensor, float]:
    """Scores (B, 4), and the share of samples that converged; NaN where the cell is applied ``times`` times instead."""
    x = tuple(torch.zeros_like(part) if i == silent else part for i, part in enumerate(batch[0]))
    at = model.at(batch[1])
    if times is None:
        solution = at.solve(x)
        return at.head(solution.z), float(solution.converged.float().mean())

    u = at.inject(x)
    z = model.cell.initial_state(u)
    for _ in range(times):
        z = model.cell(z, u)
    return at.head(z), math.nan


def trained(seed: int, steps: int, silent: int | None = None, times: int | None = None) -> Row:
    """Accuracy on 2,000 fresh questions after ``steps`` steps of 64, Adam with half a cosine from 0.003."""
    torch.manual_seed(seed)
    source = torch.Generator().manual_seed(1000 + seed)
    model = network()

    # Fresh questions at every step, and fresh ones in the end: there is nothing to learn by heart.
    def loss(step: int) -> Tensor:
        batch = draw(64, source)
        return F.cross_entropy(answered(model, batch, silent, times)[0], batch[2])

    done = descend(model.parameters(), loss, Course(half_cosine(3e-3)), Steps(steps))
    with torch.no_grad():
        batch = draw(2000, source)
        scores, converged = answered(model, batch, silent, times)
    right = float((scores.argmax(1) == batch[2]).float().mean())
    return {"accuracy": right, "converged": converged, "seconds": done.seconds}


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All ways with one seed, then the next seed."""
    found = []
    for seed in range(options.seeds):
        for name, way in WAYS.items():
            figures = rows.each(f"{name}/{seed}", trained, seed, options.steps, way.get("silent"), way.get("times"))
            found.append({"trained on": name} | figures)

    title = f"Two streams, {options.steps} steps; a quarter is chance: median (lowest to highest seed)"
    show(title, over_seeds(found, "trained on"))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "steps": 20})
    made.number("--steps", 300, "training steps")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
