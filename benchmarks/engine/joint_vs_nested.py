"""How many evaluations and VJPs does input optimisation take, joint against nested?

    python -m benchmarks.engine.joint_vs_nested --cache weights --output joint_vs_nested.json
    # about 20 minutes a seed of a dense network, hours for the multiscale one; --fast: 10 minutes a network

For a trained decoder (fit a latent code to a held-out face) and a trained classifier (L2 attack): calls and seconds
until a sample first gets and stays within 1 % of the best objective that any method found, measured at an equilibrium
that is solved again, tightly and uncounted, for every input that a method visits. Ratios of the headline: best nested
method (step size chosen per seed from a grid, in its favour) over joint with its untuned defaults; and joint over one
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
from benchmarks.engine.methods import OURS, PLAIN, Method, Path, joint, methods, one_by_one
from benchmarks.engine.networks import RECIPES, Place, Setting, setting
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, say, show, show_lines, spread
from jiio.tasks.solving.nested import nested

TIGHT = jiio.Tolerance(1e-7, 1e-6)
FIGURES = ("calls", "batch 95 %", "batch all")
PAIRS = {
    "best nested / joint": PLAIN,
    "nested with Adam / joint": ("nested, warm, Adam only",),
    "nested with outer Anderson / joint": ("nested, warm, outer Anderson",),
    "joint without memory / joint": ("joint, Picard",),
    "the scheme as published / joint": ("the scheme as published",),
}


@torch.no_grad()
def verified(case: Setting, xs: list[Tensor], chunk: int = 512) -> Tensor:
    """(T, B) objective at the equilibrium of every visited input, solved again; infinite where that failed."""
    batch = len(xs[0])
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
        rule, usual = jiio.NormalizedStep(0.1 * radius), jiio.Tolerance(1e-5, 1e-3)
        pgd = one_by_one(rule=rule, outer_steps=100, tolerance=usual)
        long.append((pgd, case.start))
        for _ in range(3):
            noise = torch.randn(case.start.shape, generator=draw)
            length = noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            other = problem.prox(case.start + radius * noise / length)
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
    row |= {"seconds": seconds(case, one.method, one.path, crossed[chosen]), "reached": figures[chosen]["reached"]}
    row |= {"chosen": chosen, "gap at the end": float(((one.values.amin(0) - best) / best.abs()).mean())}
    row["curve"] = {"calls": one.path.calls, "median gap": gaps.median(1).values}
    return row, crossed[chosen].own


def one_seed(name: str, seed: int, options: argparse.Namespace) -> Row:
    """Every method on one trained network."""
    slow = name.startswith("multiscale")
    case = setting(name, Place(seed, 8 if slow else 32, options.cache, options.data_root))
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
    for label, names in PAIRS.items():
        present = [row for row in names if row in rows]
        for key in ("calls", "batch 95 %", "seconds") if present else ():
            found[f"{label}, {key}"] = ratio(min(rows[row][key] for row in present), rows[OURS][key])
        if present:  # sample by sample, where both arrive
            pairs = torch.stack([own[row] for row in present]).amin(0) / own[OURS]
            found[f"{label}, paired calls"] = float(pairs[torch.isfinite(pairs)].nanmedian())

    found["joint / (forward + adjoint), calls"] = ratio(rows[OURS]["calls"], floor)
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
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1})
    made.chosen("--settings", list(RECIPES), list(RECIPES), "only these networks")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
