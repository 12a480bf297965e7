"""Joint against nested where the unknown is the image: calls until the objective is within 1 % of the best.

The objective is that of ``jiio.tasks.restore`` at one level of the shipped prior. Nested means: every step of the image
solves the equilibrium and the adjoint to tolerance, both warm-started; the best of a grid of rules (plain, momentum,
outer Anderson), rates and inner tolerances is reported. Objectives are evaluated at a tight equilibrium of every image
on the way, so that no method is credited for a state that has not arrived. All go on until the image itself rests,
because the stopping rules of the two are not the same. A call is an evaluation of the cell or a VJP, counted per
picture; seconds are processor time of the whole batch at the run's mean price of a call.

    JIIO_DATA=DIR python benchmarks/image_space.py --output image_space.json
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator

import harness
import torch
from torch import Tensor

import jiio
from jiio.models.images.prior import ImagePrior
from jiio.outputs.seeds import generator
from jiio.tasks.images.galleries import load_pictures
from jiio.tasks.maps.corruption import AbstractCorruption, Downsampling, GaussianBlur, GaussianNoise, RandomHoles
from jiio.tasks.restore.imagespace import ImageRestorer, Strength
from jiio.tasks.restore.load import load_restorer
from jiio.tasks.solving.nested import nested

WITHIN = 0.01
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


def by_nested(problem: jiio.Problem, start: Tensor, settings: dict) -> Path:
    """The path of a nested solve."""
    return [(visit.own, visit.x) for visit in nested(problem, start, **settings).visits]  # type: ignore[misc]


def grid() -> Iterator[tuple[str, dict]]:
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


def crossing(path: Path, values: Tensor, best: Tensor) -> Tensor:
    """(B,) calls after which the objective stays within 1 % of the best; infinite where it never does."""
    near = values <= best + WITHIN * best.abs()
    stays = near.flip(0).cummin(0).values.flip(0)
    first = stays.float().argmax(0)
    calls = torch.stack([calls for calls, _ in path]).float().gather(0, first[None])[0]
    return torch.where(stays.any(0), calls, torch.full_like(calls, math.inf))


@torch.no_grad()
def one(name: str, prior: ImagePrior, clean: Tensor) -> harness.Row:
    corruption, strength = CASES[name]
    operator = corruption.draw(len(clean), *clean.shape[2:], generator=generator(0, "map"))
    y = operator.measure(clean, generator(0, "noise"))
    problem = ImageRestorer(prior).problem(y, operator, level=strength.levels[0], strength=strength)
    start = operator.start(y)
    paths: dict[str, dict[str, Path]] = {"joint": {}, "nested": {}}
    per_call = {}  # processor seconds, of the whole batch

    def walk(row: str, label: str, path: Callable[[], Path]) -> None:
        begin = time.process_time()
        paths[row][label] = path()
        per_call[label] = (time.process_time() - begin) / float(paths[row][label][-1][0].max())

    for memory in (5, 10):
        walk("joint", f"memory {memory}", lambda memory=memory: joint(problem, start, memory))
    for label, settings in grid():
        walk("nested", label, lambda settings=settings: by_nested(problem, start, settings))
    everything = torch.full((len(clean),), -math.inf)  # nothing is below, so only the last point is verified
    ends = [verified(problem, [p[-1][1]], everything)[0] for ways in paths.values() for p in ways.values()]
    enough = (1 + 2 * WITHIN) * torch.stack(ends).amin(0)  # twice, for a better best on the way
    values: dict[str, dict[str, Tensor]] = {}
    for row, ways in paths.items():
        values[row] = {label: verified(problem, [x for _, x in path], enough) for label, path in ways.items()}
    best = torch.stack([v.amin(0) for ways in values.values() for v in ways.values()]).amin(0)
    result: harness.Row = {"case": name}
    own = {}
    for row, ways in paths.items():
        crossed = {label: crossing(path, values[row][label], best) for label, path in ways.items()}
        chosen = min(crossed, key=lambda label: float(crossed[label].median()))
        own[row] = crossed[chosen]
        calls = float(crossed[chosen].median())
        result |= {f"{row}, calls": calls, f"{row}, seconds": calls * per_call[chosen], f"{row}, chosen": chosen}
        result[f"{row}, reached"] = float(torch.isfinite(crossed[chosen]).float().mean())
    usual = {k: crossing(p, values["nested"][k], best) for k, p in paths["nested"].items() if "outer" not in k}
    chosen = min(usual, key=lambda label: float(usual[label].median()))
    result |= {"nested without outer Anderson, calls": float(usual[chosen].median()), "chosen": chosen}
    ratio = own["nested"] / own["joint"]
    return result | {"nested / joint": float(ratio.median()), "ratios": ratio, "best": best}


def run(options: argparse.Namespace) -> harness.Row:
    prior = load_restorer("--weights", options.weights).prior
    assert isinstance(prior, ImagePrior)
    count = 2 if options.fast else 6
    pictures = load_pictures(options.family, 1, data_root=options.data_root)[:: max(1, 400 // count)][:count]
    clean = torch.stack([p[:, : options.size, : options.size].float() / 255 for p in pictures])
    rows = []
    for name in options.cases:
        rows.append(one(name, prior, clean))
        harness.say(str({k: v for k, v in rows[-1].items() if not isinstance(v, Tensor)}))
    short = [{k: v for k, v in row.items() if not isinstance(v, Tensor)} for row in rows]
    harness.show(f"Calls per picture until within 1 % of the best objective, median of {len(clean)} pictures", short)
    return {"rows": rows}


if __name__ == "__main__":
    made = harness.parser(__doc__, seeds=1)
    made.add_argument("--weights", default="prior-grey", help="shipped weights, a checkpoint or a folder")
    made.add_argument("--size", type=harness.positive, default=96, help="side of the pictures (default 96)")
    made.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="only these")
    made.add_argument("--family", default="train400", help="pictures (default train400)")
    sys.exit(harness.main(made, run))
