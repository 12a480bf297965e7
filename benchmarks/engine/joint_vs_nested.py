"""How many evaluations and VJPs does input optimisation take, joint against nested?

    python -m benchmarks.engine.joint_vs_nested --cache weights --output joint_vs_nested.json
    # 3 minutes a seed of a dense network, 5 for the multiscale one; --fast: thinner grids, half of that

For trained decoders (fit a latent code to a held-out face) and trained classifiers (attacks in L2 and Linf): calls, and
for dense networks seconds, until a sample first gets and stays within 1 % of the best objective that any method found,
measured at an equilibrium that is solved again, tightly and uncounted, for every input that a method visits. Ratios of
the headline: best nested method (step size chosen per seed from a grid, in its favour) over joint, untuned: with its
defaults, and from the linearised optimum in its metric, where the nested loop may know the same; and joint over one
forward plus one adjoint solve at the same tolerance.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import jiio
from benchmarks.arrivals import middle, staying
from benchmarks.engine.clocked import Clocked
from benchmarks.engine.methods import (
    KNOWING,
    METRIC,
    NEAR,
    OURS,
    PLAIN,
    SIGNS,
    Method,
    Path,
    joint,
    methods,
    one_by_one,
)
from benchmarks.engine.networks import RECIPES, Place, Setting, setting
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, say, show, show_lines, spread
from jiio.tasks.solving.nested import nested

TIGHT = jiio.Tolerance(1e-7, 1e-6)
STILL = 1e-5  # an input that moves by less has the objective it had, to far better than 1 %
LARGE = 1000  # numbers of a state from which on many solves at once are dearer than warm starts
FIGURES = ("calls", "batch 95 %", "batch all")
ADAM = ("nested, warm, Adam only",)
OUTER = ("nested, warm, outer Anderson",)
SCHEME = ("the scheme as published",)
PAIRS = {  # what stands above the line, and below
    "best nested / joint": (PLAIN, OURS),
    "nested with Adam / joint": (ADAM, OURS),
    "nested with outer Anderson / joint": (OUTER, OURS),
    "the scheme as published / joint": (SCHEME, OURS),
    "best nested / joint, metric": (PLAIN, METRIC),
    "best nested / joint, linearised start": (PLAIN, NEAR),
    "nested, metric / joint, metric": (KNOWING[:1], METRIC),
    "nested, linearised start / joint, linearised start": (KNOWING[1:], NEAR),
    "best nested / joint, falling signs": (PLAIN, SIGNS),
}


@torch.no_grad()
def verified(case: Setting, xs: list[Tensor], chunk: int = 512) -> Tensor:
    """(T, B) objective at the equilibrium of every visited input, solved again; infinite where that failed."""
    batch = len(xs[0])
    if case.about["state"] > LARGE:
        return in_turn(case.whole(), xs)
    every, who = torch.cat(xs), torch.arange(batch).repeat(len(xs))
    settings = {"tolerance": TIGHT, "max_steps": 300, "adjoint": jiio.Detached(), "on_failure": "ignore"}

    out = []
    for a in range(0, len(every), chunk):
        problem, x = case.make(who[a : a + chunk]), every[a : a + chunk]
        found = jiio.equilibrium(problem.cell, x, **settings)  # type: ignore[arg-type]
        value = problem.total(found.z, x, len(x))
        # What did not come to rest is no equilibrium, however small its objective.
        good = torch.isfinite(value) & (found.residual[:, 0] < 1e-4)
        out.append(torch.where(good, value, torch.full_like(value, math.inf)))
    return torch.cat(out).view(len(xs), batch)


@torch.no_grad()
def in_turn(problem: jiio.Problem, xs: list[Tensor]) -> Tensor:
    """The same, each solve from the one before it; an input that nobody's has moved away from is not solved again."""
    z, values, at = None, [], None
    for x in xs:
        if at is not None and torch.allclose(x, at, rtol=STILL, atol=STILL):
            values.append(values[-1])
            continue
        at = x
        found = jiio.equilibrium(problem.cell, x, z, tolerance=TIGHT, adjoint=jiio.Detached(), on_failure="ignore")
        good = torch.isfinite(found.residual[:, 0]) & (found.residual[:, 0] < 1e-4)
        z = found.z if bool(good.all()) else None
        values.append(torch.where(good, problem.total(found.z, x, len(x)), math.inf))
    return torch.stack(values)


def reference(case: Setting, seed: int) -> Tensor:
    """(B,) objective that long runs reach: joint ones at tight tolerance; for attacks also PGD, and random restarts."""
    problem, radius = case.whole(), case.recipe.radius
    long: list[tuple[Method, Tensor]] = [
        (joint(solver=jiio.Anderson(memory=m), rule=jiio.GradientStep(r), max_steps=400, tolerance=TIGHT), case.start)
        for r, m in ((0.1, 30), (0.5, 20))
    ]

    # An attack has many local optima: PGD as well, and three random starts on the sphere.
    if radius > 0:
        draw = torch.Generator().manual_seed(seed)
        signs = case.recipe.norm == "Linf"
        rule = jiio.SignStep(0.1 * radius) if signs else jiio.NormalizedStep(0.1 * radius)
        pgd = one_by_one(rule=rule, outer_steps=100, tolerance=jiio.Tolerance(1e-5, 1e-3))
        long.append((pgd, case.start))
        for _ in range(3):
            noise = torch.randn(case.start.shape, generator=draw)
            length = noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            other = problem.prox(case.start + radius * (noise.sign() if signs else noise / length))
            long += [(pgd, other), (joint(max_steps=300), other)]

    return torch.stack([verified(case, method(problem, x0).x[-20:]).amin(0) for method, x0 in long]).amin(0)


@dataclass
class Crossing:
    """When each sample (B,) first gets and stays near the best: calls of its own, of the batch, and at which visit."""

    own: Tensor
    batch: Tensor
    visit: Tensor

    def figures(self) -> dict[str, float]:
        order = self.batch.sort().values
        return {
            "calls": middle(self.own),
            "batch 95 %": float(order[math.ceil(0.95 * len(order)) - 1]),
            "batch all": float(order[-1]),
            "reached": float(torch.isfinite(self.own).float().mean()),
        }


def crossing(path: Path, values: Tensor, best: Tensor) -> Crossing:
    """values: (T, B) objectives on the way; best: (B,)."""
    ever, first = staying(values, best)
    never = torch.full_like(best, math.inf)
    own = torch.stack(path.own).float().gather(0, first[None])[0]
    batch = torch.tensor(path.calls).float()[first]
    return Crossing(torch.where(ever, own, never), torch.where(ever, batch, never), torch.where(ever, first, -1))


def seconds(case: Setting, method: Method, path: Path, crossed: Crossing, repeats: int = 3) -> float:
    """Processor seconds (median of repeats) until half of the samples had arrived; infinite where fewer ever do."""
    found = []
    for _ in range(repeats):
        problem = case.whole()
        clocked = Clocked(problem.cell)
        begin = time.process_time()
        method(replace(problem, cell=clocked), case.start)

        # The time at the call of the cell that made a sample arrive.
        times = [*clocked.times, time.process_time()]
        at = [times[min(path.cells[int(k)], len(times) - 1)] - begin if k >= 0 else math.inf for k in crossed.visit]
        found.append(sorted(at)[(len(at) - 1) // 2])
    return sorted(found)[len(found) // 2]


def floor(case: Setting, x: Tensor) -> float:
    """Median over samples of evaluations + VJPs of one cold forward and one cold adjoint solve at default tolerance."""
    once = nested(case.whole(), x, rule=jiio.GradientStep(curvature=1.0), outer_steps=1, warm=False)
    return float((once.visits[1].own - 2).median())  # without the taped evaluation and the VJP to x


@dataclass
class Tried:
    """What one method did at one point of its grid: the way it went, and the verified objectives (T, B) on it."""

    method: Method
    path: Path
    values: Tensor


def try_all(name: str, case: Setting, small: bool) -> dict[str, dict[str, Tried]]:
    """Every method at every point of its grid."""
    problem, tried = case.whole(), {}
    for row, points in methods(case, small).items():
        begin = time.perf_counter()
        tried[row] = {}
        for label, method in points.items():
            path = method(problem, case.start)
            tried[row][label] = Tried(method, path, verified(case, path.x))
        say(f"{name}: {row}, {len(points)} runs, {time.perf_counter() - begin:.0f} s")
    return tried


def measured(case: Setting, points: dict[str, Tried], best: Tensor) -> tuple[Row, Tensor]:
    """A row of the table, and the calls (B,) of its chosen point."""
    crossed = {label: crossing(one.path, one.values, best) for label, one in points.items()}
    figures = {label: entry.figures() for label, entry in crossed.items()}
    # Each figure is the smallest of the grid, whichever point it comes from: in favour of methods with a grid.
    row: Row = {key: min(f[key] for f in figures.values()) for key in FIGURES}

    chosen = min(figures, key=lambda label: (figures[label]["calls"], -figures[label]["reached"]))
    one = points[chosen]
    gaps = (one.values - best) / best.abs()
    # A large network is measured in calls alone: a run more for every row would be a third of the time.
    taken = math.nan if case.about["state"] > LARGE else seconds(case, one.method, one.path, crossed[chosen])
    row |= {"seconds": taken, "reached": figures[chosen]["reached"]}
    row |= {"chosen": chosen, "gap at the end": float(((one.values.amin(0) - best) / best.abs()).mean())}
    row["curve"] = {"calls": one.path.calls, "median gap": gaps.median(1).values}
    return row, crossed[chosen].own


def one_seed(name: str, seed: int, options: argparse.Namespace) -> Row:
    """Every method on one trained network."""
    slow = name.startswith("multiscale")
    case = setting(
        name, Place(seed, options.samples // 4 if slow else options.samples, options.cache, options.data_root)
    )
    best = reference(case, seed)
    tried = try_all(f"{name}, seed {seed}", case, options.fast or slow)
    best = torch.stack([best, *(one.values.amin(0) for row in tried.values() for one in row.values())]).amin(0)

    found = {row: measured(case, points, best) for row, points in tried.items()}
    rows = {row: figures for row, (figures, _) in found.items()}
    own = {row: calls for row, (_, calls) in found.items()}
    about: Row = {"seed": seed, "data": case.data, "samples": len(case.start), **case.about}
    about["objective at the start"] = float(verified(case, [case.start]).mean())
    about["best objective"] = float(best.mean())
    about["floor"] = floor(case, tried[OURS][""].path.x[-1])
    return about | {"ratios": ratios(rows, own, about["floor"]), "rows": rows}


def ratios(rows: dict[str, Any], own: dict[str, Tensor], floor: float) -> dict[str, float]:
    """The headlines; NaN where a method of the pair never arrives."""
    found: dict[str, float] = {}
    for label, (names, below) in PAIRS.items():
        present = [row for row in names if row in rows]
        if not present or below not in rows:
            continue
        for key in ("calls", "batch 95 %", "seconds"):
            found[f"{label}, {key}"] = ratio(min(rows[row][key] for row in present), rows[below][key])
        above, under = torch.stack([own[row] for row in present]).amin(0), own[below]
        both = torch.isfinite(above) & torch.isfinite(under)
        found[f"{label}, paired calls"] = float((above / under)[both].nanmedian())  # where both arrive

    for row in (OURS, METRIC, NEAR, SIGNS):
        if row in rows:
            found[f"{row} / (forward + adjoint), calls"] = ratio(rows[row]["calls"], floor)
    return found


def ratio(a: float, b: float) -> float:
    """NaN where one of the two never arrives."""
    return a / b if math.isfinite(a) and math.isfinite(b) else math.nan


def summary(name: str, runs: list[Row]) -> None:
    """Print the table of one setting."""
    lines = []
    for row in runs[0]["rows"]:
        got = [run["rows"][row] for run in runs]
        line = {"method": row, **{key: spread([g[key] for g in got]) for key in (*FIGURES, "seconds")}}
        line["reached"] = f"{sum(g['reached'] for g in got) / len(got):.2f}"
        line["gap at the end"] = f"{sum(g['gap at the end'] for g in got) / len(got):.1e}"
        lines.append(line | {"chosen": "; ".join(sorted({g["chosen"] for g in got} - {""}))})

    title = f"{name} ({runs[0]['data']}), {runs[0]['samples']} samples, {len(runs)} seed(s): median (range) over seeds"
    show(title, lines)
    show_lines([{key: run[key] for key in ("spectral radius", "floor", "best objective")} for run in runs])
    show_lines([run["ratios"] for run in runs])


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All seeds of one network, then the next network."""
    for name in options.settings:
        summary(name, [rows.each(f"{name}/{seed}", one_seed, name, seed, options) for seed in range(options.seeds)])


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3)
    made.chosen("--settings", list(RECIPES), list(RECIPES), "only these networks")
    made.number("--samples", 32, "held-out samples, of the multiscale network a quarter")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
