"""Joint against nested where the unknown is the image: calls until the objective is within 1 % of the best.

    JIIO_DATA=DIR python -m benchmarks.restore.image_space --output image_space.json
    # about an hour; --fast --size 48: 10 minutes

The objective is that of ``jiio.tasks.restore`` at one level of the shipped prior. Nested means: every step of the image
solves the equilibrium and the adjoint to tolerance, both warm-started; the best of a grid of rules (plain, momentum,
outer Anderson), rates and inner tolerances is reported. Objectives are evaluated at a tight equilibrium of every image
on the way, so that no method is credited for a state that has not arrived. All go on until the image itself rests,
because the stopping rules of the two are not the same. A call is an evaluation of the cell or a VJP, counted per
picture; seconds are processor time of the whole batch at the run's mean price of a call.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import jiio
from benchmarks.arrivals import WITHIN, arrival
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show
from jiio.models.images.prior import ImagePrior
from jiio.outputs.seeds import generator
from jiio.tasks.images.galleries import load_pictures
from jiio.tasks.maps.corruption import AbstractCorruption, Downsampling, GaussianBlur, GaussianNoise, RandomHoles
from jiio.tasks.restore.imagespace import ImageRestorer, Strength
from jiio.tasks.restore.load import load_restorer
from jiio.tasks.solving.nested import nested

TIGHT = jiio.Tolerance(atol=1e-5, rtol=1e-4)
USUAL = jiio.Tolerance(atol=1e-4, rtol=1e-3)
LOOSE = jiio.Tolerance(atol=1e-3, rtol=1e-2)
CASES: dict[str, tuple[AbstractCorruption, Strength]] = {
    "noise 25": (GaussianNoise(25 / 255), Strength((10 / 255,))),
    "blur 1.6": (GaussianBlur(width=1.6, sigma=0.01), Strength((0.04,))),
    "half size": (Downsampling(2), Strength((0.04,))),
    "half missing": (RandomHoles(0.5), Strength((0.04,))),
}
Path = list[tuple[Tensor, Tensor]]  # calls so far of each picture (B,), the images (B, C, H, W)
Method = Callable[[jiio.Problem, Tensor], Path]


def joint(problem: jiio.Problem, start: Tensor, memory: int) -> Path:
    """The iterates of the joint solve; the first calls measure the scale."""
    solution = jiio.solve(
        problem,
        start,
        solver=jiio.Anderson(memory=memory),
        adjoint=jiio.Detached(),
        tolerance=TIGHT,
        max_steps=150,
        on_failure="ignore",
        trace="points",
    )
    assert solution.trace is not None

    own = torch.full((len(start),), 4)
    path: Path = [(own, start)]
    for t, x in enumerate(solution.trace.x):
        path.append((4 + 2 * torch.minimum(torch.tensor(t + 1), solution.steps), x))  # type: ignore[arg-type]
    return path


def by_nested(problem: jiio.Problem, start: Tensor, settings: dict[str, Any]) -> Path:
    """The path of a nested solve."""
    return [(visit.own, visit.x) for visit in nested(problem, start, **settings).visits]  # type: ignore[misc]


def grid() -> Iterator[tuple[str, dict[str, Any]]]:
    """The nested settings, by name."""
    for word, tolerance in (("1e-3", USUAL), ("1e-2", LOOSE)):
        inner = {"tolerance": tolerance, "outer_tolerance": TIGHT, "outer_steps": 80}
        for rate in (0.5, 1.0):
            yield f"rate {rate}, inner {word}", inner | {"rule": jiio.GradientStep(rate)}
        for rate in (0.3, 0.6):
            yield f"momentum 0.8, rate {rate}, inner {word}", inner | {"rule": jiio.MomentumStep(rate, 0.8)}
        outer = {"rule": jiio.GradientStep(0.5), "outer": jiio.Anderson(memory=5)}
        yield f"outer Anderson, inner {word}", inner | outer


def verified(problem: jiio.Problem, images: list[Tensor], enough: Tensor) -> Tensor:
    """(T, B), the objective at a tight equilibrium, backwards from the end of a path until all are above ``enough``.

    What comes before counts as infinite: a picture that is not yet there has nothing to verify.
    """
    values, z = torch.full((len(images), len(enough)), math.inf), None
    for t in range(len(images) - 1, -1, -1):
        x = images[t]
        found = jiio.equilibrium(problem.cell, x, z, adjoint=jiio.Detached(), tolerance=TIGHT, on_failure="ignore")
        z = found.z
        values[t] = problem.total(z, x, len(x))
        if bool((values[t] > enough).all()):
            break

    return values


@dataclass
class Walked:
    """One run: its path, the processor seconds of a call of the whole batch, and later its objectives (T, B)."""

    path: Path
    per_call: float
    values: Tensor

    @property
    def own(self) -> Tensor:
        """(T, B) calls so far."""
        return torch.stack([calls for calls, _ in self.path])


def walk(problem: jiio.Problem, start: Tensor, method: Method) -> Walked:
    """Follow one method to its end."""
    begin = time.process_time()
    path = method(problem, start)
    seconds = time.process_time() - begin

    # Nothing is below minus infinity, so only the last point is verified here.
    end = verified(problem, [path[-1][1]], torch.full((len(start),), -math.inf))
    return Walked(path, seconds / float(path[-1][0].max()), end)


def ways() -> dict[str, dict[str, Method]]:
    """Row of the table -> label of a grid point -> method."""
    nested_ones = {label: partial(by_nested, settings=settings) for label, settings in grid()}
    return {"joint": {f"memory {n}": partial(joint, memory=n) for n in (5, 10)}, "nested": nested_ones}


@torch.no_grad()
def one(name: str, prior: ImagePrior, clean: Tensor) -> Row:
    """All methods on the pictures (B, C, H, W) under one corruption."""
    corruption, strength = CASES[name]
    operator = corruption.draw(len(clean), *clean.shape[2:], generator=generator(0, "map"))
    y = operator.measure(clean, generator(0, "noise"))
    problem = ImageRestorer(prior).problem(y, operator, level=strength.levels[0], strength=strength)
    start = operator.start(y)
    runs = {row: {label: walk(problem, start, method) for label, method in of.items()} for row, of in ways().items()}

    # Where the ends are, what lies far above them need not be verified; twice, for a better best on the way.
    every = [run for of in runs.values() for run in of.values()]
    enough = (1 + 2 * WITHIN) * torch.stack([run.values[0] for run in every]).amin(0)
    for run in every:
        run.values = verified(problem, [x for _, x in run.path], enough)
    best = torch.stack([run.values.amin(0) for run in every]).amin(0)
    return {"case": name} | compared(runs, best) | {"best": best}


def compared(runs: dict[str, dict[str, Walked]], best: Tensor) -> Row:
    """Of each row its best setting, in favour of the one with the larger grid."""
    result: Row = {}
    crossed = {row: {k: arrival(run.own, run.values, best) for k, run in of.items()} for row, of in runs.items()}
    own = {}
    for row, of in crossed.items():
        chosen = quickest(of)
        own[row], calls = of[chosen], float(of[chosen].median())
        seconds = calls * runs[row][chosen].per_call
        result |= {f"{row}, calls": calls, f"{row}, seconds": seconds, f"{row}, chosen": chosen}
        result[f"{row}, reached"] = float(torch.isfinite(of[chosen]).float().mean())

    # Without our own solver on the outer iteration: the nested loop as others have it.
    usual = {k: calls for k, calls in crossed["nested"].items() if "outer" not in k}
    chosen = quickest(usual)
    result |= {"nested without outer Anderson, calls": float(usual[chosen].median()), "chosen": chosen}
    ratio = own["nested"] / own["joint"]
    return result | {"nested / joint": float(ratio.median()), "ratios": ratio}


def quickest(crossed: dict[str, Tensor]) -> str:
    """The label of the smallest median."""
    return min(crossed, key=lambda label: float(crossed[label].median()))


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Every corruption."""
    prior = load_restorer("--weights", options.weights).prior
    assert isinstance(prior, ImagePrior)
    count = 2 if options.fast else 6
    pictures = load_pictures(options.family, 1, data_root=options.data_root)[:: max(1, 400 // count)][:count]
    clean = torch.stack([p[:, : options.size, : options.size].float() / 255 for p in pictures])

    found = [rows.each(name, one, name, prior, clean) for name in options.cases]
    short = [{k: v for k, v in row.items() if not isinstance(v, list)} for row in found]
    show(f"Calls per picture until within 1 % of the best objective, median of {len(clean)} pictures", short)


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=1)
    made.add_argument("--weights", default="prior-grey", help="shipped weights, a checkpoint or a folder")
    made.number("--size", 96, "side of the pictures")
    made.chosen("--cases", list(CASES), list(CASES), "only these")
    made.add_argument("--family", default="train400", help="pictures (default train400)")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
