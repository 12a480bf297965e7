"""How many evaluations and VJPs does input optimisation take, joint against nested?

For a trained decoder (fit a latent code to a held-out face) and a trained classifier (L2 attack): calls and seconds
until a sample first gets and stays within 1 % of the best objective that any method found, measured at an equilibrium
that is solved again, tightly and uncounted, for every input that a method visits. Ratios of the headline: best nested
method (step size chosen per seed from a grid, in its favour) over joint with its untuned defaults; and joint over one
forward plus one adjoint solve at the same tolerance.

    python benchmarks/joint_vs_nested.py --cache weights --output joint_vs_nested.json
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import harness
import torch
from published import Scheme, published
from torch import Tensor
from torch.utils import _pytree
from trained import RECIPES, Setting, setting

import jiio
from jiio.layout import Tree, detach, map_tree
from jiio.problem import module_of
from jiio.tasks.solving.nested import nested

WITHIN = 0.01
TIGHT = jiio.Tolerance(1e-7, 1e-6)
DEFAULT = jiio.Tolerance()
OURS = "joint, defaults"
PLAIN = ("nested, cold", "nested, warm", "nested, warm, loose")
FIGURES = ("calls", "batch 95 %", "batch all")


@dataclass
class Path:
    """T inputs that a method visited. calls, cells: of the batch so far; own: (B,) calls of each sample so far."""

    x: list[Tensor]
    calls: list[int]
    own: list[Tensor]
    cells: list[int]


class Clocked:
    """A cell that notes the processor time at each of its calls."""

    def __init__(self, cell: Any) -> None:
        self.cell, self.module, self.times = cell, module_of(cell), []

    def __call__(self, z: Tree, x: Tree) -> Tree:
        self.times.append(time.process_time())
        return self.cell(z, x)

    def initial_state(self, x: Tree) -> Tree:
        return self.cell.initial_state(x)


Method = Callable[[jiio.Problem, Tensor], Path]


def joint(**settings: Any) -> Method:
    """``jiio.solve`` with these settings."""

    def run(problem: jiio.Problem, x0: Tensor) -> Path:
        s = jiio.solve(problem, x0, adjoint=jiio.Detached(), trace="points", on_failure="ignore", **settings)
        assert s.trace is not None
        steps = len(s.trace.x)
        first = s.evaluations.cell - steps
        cells = [first + k for k in range(steps)] + [s.evaluations.cell]
        own = [2 * (first + s.steps.clamp_max(k)) for k in range(steps)] + [2 * (first + s.steps)]
        return Path([*s.trace.x, s.x], [2 * c for c in cells], own, cells)

    return run


def papers(rate: float, normalised: bool) -> Method:
    """The paper's settings in jiio: type I, damped, memory 20, raw steps that drop at step 62 of 100.

    Raw units measure nothing at the start, so the first state and multiplier are given, as jiio takes them from its
    measurement: one evaluation, f(z0, x0), and l_z there.
    """
    kind = jiio.NormalizedStep if normalised else jiio.GradientStep
    rule = kind(lambda k: rate if k < 62 else 0.3 * rate, curvature=1.0)
    solver = jiio.Anderson(memory=20, kind="I", damping={"z": 0.8, "mu": 0.6})

    def run(problem: jiio.Problem, x0: Tensor) -> Path:
        with torch.no_grad():
            z = problem.cell(problem.cell.initial_state(x0), x0)  # type: ignore[attr-defined]
        leaves, structure = _pytree.tree_flatten(map_tree(lambda leaf: leaf.requires_grad_(), z))
        value = problem.value(z, x0, len(x0)).sum()
        mu = _pytree.tree_unflatten(list(torch.autograd.grad(value, leaves)), structure)
        settings = {"solver": solver, "rule": rule, "multiplier": mu, "z0": detach(z), "max_steps": 100}
        path = joint(**settings)(problem, x0)
        return Path(path.x, [c + 1 for c in path.calls], [o + 1 for o in path.own], [c + 1 for c in path.cells])

    return run


def scheme(settings: Scheme) -> Method:
    """The published scheme itself, see ``published``."""

    def run(problem: jiio.Problem, x0: Tensor) -> Path:
        visited = [x0]
        published(problem, x0, settings, each=visited.append)
        cells = list(range(len(visited)))
        own = [torch.full((len(x0),), 2 * c) for c in cells]
        return Path(visited, [2 * c for c in cells], own, cells)

    return run


def one_by_one(**settings: Any) -> Method:
    """The nested baseline with these settings; its x is never declared settled, so that it uses all its steps."""

    def run(problem: jiio.Problem, x0: Tensor) -> Path:
        visits = nested(problem, x0, outer_tolerance=jiio.Tolerance(1e-12, 1e-12), **settings).visits
        return Path([v.x for v in visits], [v.calls for v in visits], [v.own for v in visits], [v.cell for v in visits])

    return run


def methods(case: Setting, small: bool) -> dict[str, dict[str, Method]]:
    """Row of the table -> label of a grid point -> method; ``small`` thins the grids out."""
    radius = case.recipe.radius
    outer = 40 if small else 60
    scaled = (0.1, 0.3, 1.0) if small else (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    rules: dict[str, jiio.AbstractRule] = {f"gradient, scaled {a:g}": jiio.GradientStep(a) for a in scaled}
    if radius:
        lengths = (0.2, 0.5) if small else (0.05, 0.1, 0.2, 0.5, 1.0)
        rules |= {f"normalised {a:g}": jiio.NormalizedStep(a * radius) for a in lengths}
    else:
        rules |= {f"Adam {a:g}": jiio.AdamStep(a) for a in ((0.03, 0.1) if small else (0.01, 0.03, 0.1, 0.3))}

    def grid(word: str = "", **settings: Any) -> dict[str, Method]:
        return {k: one_by_one(rule=r, outer_steps=outer, **settings) for k, r in rules.items() if k.startswith(word)}

    loose = jiio.Tolerance(1e-5, 1e-2)
    rows = {"nested, cold": grid(warm=False), "nested, warm": grid(), "nested, warm, loose": grid(tolerance=loose)}
    if not radius:
        rows["nested, warm, Adam only"] = grid("Adam")
    rows["nested, warm, outer Anderson"] = {
        f"{a:g}{word}": one_by_one(rule=jiio.GradientStep(a), outer=jiio.Anderson(), outer_steps=outer, tolerance=t)
        for a in ((0.5,) if small else (0.2, 0.5))
        for word, t in (("", DEFAULT), (", loose", loose))
    }
    rows["joint, Picard"] = {
        f"{a:g}": joint(solver=jiio.Picard(), rule=jiio.GradientStep(a), max_steps=200)
        for a in ((0.1,) if small else (0.02, 0.05, 0.1, 0.2, 0.5))
    }
    rows[OURS] = {"": joint()}
    rows |= {f"joint, memory {m}": {"": joint(solver=jiio.Anderson(memory=m))} for m in (5, 20)}
    rows["joint, type I"] = {"": joint(solver=jiio.Anderson(kind="I"))}
    if radius:
        rows["joint, normalised step"] = {"": joint(rule=jiio.NormalizedStep(0.5 * radius))}
    raw = (0.05, 0.2, 0.6) if radius else (0.003, 0.01, 0.03, 0.1)
    weight = 10.0 if radius else 1.0
    rows["joint, the paper's settings"] = {f"{a:g}": papers(a, radius > 0) for a in raw}
    rows["the scheme as published"] = {
        f"{a:g}": scheme(Scheme((a, a / 3), normalised=radius > 0, weight=weight)) for a in raw
    }
    return rows


@torch.no_grad()
def verified(case: Setting, xs: list[Tensor], chunk: int = 512) -> Tensor:
    """(T, B) objective at the equilibrium of every visited input, solved again; infinite where that failed."""
    batch = len(xs[0])
    every, who = torch.cat(xs), torch.arange(batch).repeat(len(xs))
    out = []
    for a in range(0, len(every), chunk):
        problem, x = case.make(who[a : a + chunk]), every[a : a + chunk]
        settings = {"tolerance": TIGHT, "max_steps": 300, "adjoint": jiio.Detached(), "on_failure": "ignore"}
        found = jiio.equilibrium(problem.cell, x, **settings)
        value = problem.total(found.z, x, len(x))
        good = torch.isfinite(value) & (found.residual[:, 0] < 1e-4)
        out.append(torch.where(good, value, torch.full_like(value, math.inf)))
    return torch.cat(out).view(len(xs), batch)


def reference(case: Setting, seed: int) -> Tensor:
    """(B,) objective that long runs reach: joint ones at tight tolerance; for attacks also PGD, and random restarts."""
    problem = case.make(torch.arange(len(case.start)))
    long: list[tuple[Method, Tensor]] = [
        (joint(solver=jiio.Anderson(memory=m), rule=jiio.GradientStep(r), max_steps=400, tolerance=TIGHT), case.start)
        for r, m in ((0.1, 30), (0.5, 20))
    ]
    if case.recipe.radius > 0:
        draw = torch.Generator().manual_seed(seed)
        pgd = one_by_one(
            rule=jiio.NormalizedStep(0.1 * case.recipe.radius), outer_steps=100, tolerance=jiio.Tolerance(1e-5, 1e-3)
        )
        long.append((pgd, case.start))
        for _ in range(3):
            noise = torch.randn(case.start.shape, generator=draw)
            length = noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            other = problem.prox(case.start + case.recipe.radius * noise / length)
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
            "calls": float(self.own.sort().values[(len(self.own) - 1) // 2]),
            "batch 95 %": float(order[math.ceil(0.95 * len(order)) - 1]),
            "batch all": float(order[-1]),
            "reached": float(torch.isfinite(self.own).float().mean()),
        }


def crossing(path: Path, values: Tensor, best: Tensor) -> Crossing:
    near = values <= best + WITHIN * best.abs()
    stays = near.flip(0).cummin(0).values.flip(0)
    ever, first = stays.any(0), stays.float().argmax(0)
    never = torch.full_like(best, math.inf)
    own = torch.stack(path.own).float().gather(0, first[None])[0]
    batch = torch.tensor(path.calls).float()[first]
    return Crossing(torch.where(ever, own, never), torch.where(ever, batch, never), torch.where(ever, first, -1))


def seconds(case: Setting, method: Method, path: Path, crossed: Crossing, repeats: int = 3) -> float:
    """Processor seconds (median of repeats) until half of the samples had arrived; infinite where fewer ever do."""
    found = []
    for _ in range(repeats):
        problem = case.make(torch.arange(len(case.start)))
        clocked = Clocked(problem.cell)
        begin = time.process_time()
        method(replace(problem, cell=clocked), case.start)
        times = [*clocked.times, time.process_time()]
        at = [times[min(path.cells[int(k)], len(times) - 1)] - begin if k >= 0 else math.inf for k in crossed.visit]
        found.append(sorted(at)[(len(at) - 1) // 2])
    return sorted(found)[len(found) // 2]


def floor(case: Setting, x: Tensor) -> float:
    """Median over samples of evaluations + VJPs of one cold forward and one cold adjoint solve at default tolerance."""
    problem = case.make(torch.arange(len(x)))
    once = nested(problem, x, rule=jiio.GradientStep(curvature=1.0), outer_steps=1, warm=False)
    return float((once.visits[1].own - 2).median())  # without the taped evaluation and the VJP to x


def one_seed(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Every method on one trained network."""
    slow = name.startswith("multiscale")
    samples = 8 if slow else 32
    case = setting(name, seed=seed, samples=samples, cache=options.cache, root=options.data_root)
    problem = case.make(torch.arange(len(case.start)))
    best = reference(case, seed)
    tried: dict[str, dict[str, tuple[Method, Path, Tensor]]] = {}
    for row, points in methods(case, options.fast or slow).items():
        begin = time.perf_counter()
        tried[row] = {}
        for label, method in points.items():
            path = method(problem, case.start)
            tried[row][label] = method, path, verified(case, path.x)
        harness.say(f"{name}, seed {seed}: {row}, {len(points)} runs, {time.perf_counter() - begin:.0f} s")
    best = torch.stack([best, *(v.amin(0) for row in tried.values() for _, _, v in row.values())]).amin(0)
    own: dict[str, Tensor] = {}
    rows: dict[str, Any] = {}
    for row, points in tried.items():
        crossed = {label: crossing(path, values, best) for label, (_, path, values) in points.items()}
        figures = {label: entry.figures() for label, entry in crossed.items()}
        # Each figure is the smallest of the grid, whichever point it comes from: in favour of methods with a grid.
        entry: dict[str, Any] = {key: min(f[key] for f in figures.values()) for key in FIGURES}
        chosen = min(figures, key=lambda label: (figures[label]["calls"], -figures[label]["reached"]))
        method, path, values = points[chosen]
        gap = (values.amin(0) - best) / best.abs()
        own[row] = crossed[chosen].own
        entry |= {"seconds": seconds(case, method, path, crossed[chosen]), "reached": figures[chosen]["reached"]}
        entry |= {"chosen": chosen, "gap at the end": float(gap.mean())}
        entry["curve"] = {"calls": path.calls, "median gap": ((values - best) / best.abs()).median(1).values}
        rows[row] = entry
    about = {"seed": seed, "data": case.data, "samples": len(case.start), **case.about}
    about |= {
        "objective at the start": float(verified(case, [case.start]).mean()),
        "best objective": float(best.mean()),
    }
    about["floor"] = floor(case, tried[OURS][""][1].x[-1])
    return about | {"ratios": ratios(rows, own, about["floor"]), "rows": rows}


def ratios(rows: dict[str, Any], own: dict[str, Tensor], floor: float) -> dict[str, float]:
    """The headlines; NaN where a method of the pair never arrives."""
    found: dict[str, float] = {}
    for label, chosen in {
        "best nested / joint": PLAIN,
        "nested with Adam / joint": ("nested, warm, Adam only",),
        "nested with outer Anderson / joint": ("nested, warm, outer Anderson",),
        "joint without memory / joint": ("joint, Picard",),
        "the scheme as published / joint": ("the scheme as published",),
    }.items():
        present = [row for row in chosen if row in rows]
        for key in ("calls", "batch 95 %", "seconds") if present else ():
            found[f"{label}, {key}"] = ratio(min(rows[row][key] for row in present), rows[OURS][key])
        if present:  # sample by sample, where both arrive
            pairs = torch.stack([own[row] for row in present]).amin(0) / own[OURS]
            found[f"{label}, paired calls"] = float(pairs[torch.isfinite(pairs)].nanmedian())
    found["joint / (forward + adjoint), calls"] = ratio(rows[OURS]["calls"], floor)
    return found


def ratio(a: float, b: float) -> float:
    return a / b if math.isfinite(a) and math.isfinite(b) else math.nan


def summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Print the table of one setting."""
    table = []
    for row in runs[0]["rows"]:
        got = [run["rows"][row] for run in runs]
        line = {"method": row, **{key: harness.spread([g[key] for g in got]) for key in (*FIGURES, "seconds")}}
        line["reached"] = f"{sum(g['reached'] for g in got) / len(got):.2f}"
        line["gap at the end"] = f"{sum(g['gap at the end'] for g in got) / len(got):.1e}"
        table.append(line | {"chosen": "; ".join(sorted({g["chosen"] for g in got} - {""}))})
    title = f"{name} ({runs[0]['data']}), {runs[0]['samples']} samples, {len(runs)} seed(s): median (range) over seeds"
    harness.show(title, table)
    for key in ("spectral radius", "floor", "best objective"):
        harness.show_line(key, harness.spread([run[key] for run in runs]))
    for key in runs[0]["ratios"]:
        harness.show_line(key, harness.spread([run["ratios"][key] for run in runs]))
    return {"runs": runs}


def run(options: argparse.Namespace) -> dict[str, Any]:
    seeds = 1 if options.fast else options.seeds
    return {name: summary(name, [one_seed(name, s, options) for s in range(seeds)]) for name in options.settings}


if __name__ == "__main__":
    made = harness.parser(__doc__, seeds=3)
    made.add_argument("--settings", nargs="+", choices=list(RECIPES), default=list(RECIPES), help="only these networks")
    sys.exit(harness.main(made, run))
