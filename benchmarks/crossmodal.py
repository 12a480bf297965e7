"""Two streams that only together say the answer: an equilibrium in which each attends to the other.

Stream a holds one pointer among blanks: a one-hot number p of 8, at a random place. Stream b holds four or eight
one-hot values of 4, every value equally often, in random order; the answer is the value at place p. Either stream alone
leaves all four answers equally likely. Both are padded, with noise.

    both           trained on both streams
    a, b alone     the same model and training with the other stream silenced: zeros throughout
    applied once   both streams, the cell applied once instead of to its fixed point

    python benchmarks/crossmodal.py
"""

from __future__ import annotations

import argparse
import math
import sys
import time

import harness
import torch
import torch.nn.functional as F
from torch import Tensor

import jiio
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


def trained(seed: int, steps: int, *, silent: int | None = None, times: int | None = None) -> harness.Row:
    """Accuracy on 2,000 fresh questions after ``steps`` steps of 64, Adam with half a cosine from 0.003."""
    torch.manual_seed(seed)
    source = torch.Generator().manual_seed(1000 + seed)
    tolerance = jiio.Tolerance(1e-4, 1e-3)
    model = CrossModalModel(
        (PLACES + 1, VALUES),
        VALUES,
        adjoint=jiio.Implicit(tolerance=tolerance, max_steps=20),
        tolerance=tolerance,
        max_steps=20,
        on_failure="ignore",
    )
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    begin = time.process_time()

    def answered(batch: Batch) -> tuple[Tensor, float]:
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

    for _ in range(steps):
        batch = draw(64, source)
        loss = F.cross_entropy(answered(batch)[0], batch[2])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        slower.step()
    seconds = time.process_time() - begin
    with torch.no_grad():
        batch = draw(2000, source)
        scores, converged = answered(batch)
    right = float((scores.argmax(1) == batch[2]).float().mean())
    return {"accuracy": right, "converged": converged, "seconds": seconds}


def run(options: argparse.Namespace) -> harness.Row:
    steps = 20 if options.fast else options.steps
    rows: dict[str, list[harness.Row]] = {name: [] for name in WAYS}
    for seed in range(options.seeds):
        for name, way in WAYS.items():
            key = f"crossmodal-{steps}-{name.replace(' ', '-')}-{seed}"
            rows[name].append(harness.kept(options.cache, key, lambda seed=seed, way=way: trained(seed, steps, **way)))
            harness.say(f"{name}, seed {seed}: {rows[name][-1]}")
    harness.show(
        f"Two streams, {steps} steps; a quarter is chance: median (lowest to highest seed)",
        [
            {"trained on": name}
            | {key: harness.spread([math.nan if r[key] is None else r[key] for r in found]) for key in found[0]}
            for name, found in rows.items()
        ],
    )
    return {"rows": rows}


if __name__ == "__main__":
    made = harness.parser(__doc__, seeds=3)
    made.add_argument("--steps", type=harness.positive, default=300, help="training steps (default 300)")
    sys.exit(harness.main(made, run))
