"""How many evaluations and VJPs does input optimisation take, joint against nested?

For a trained decoder (fit a latent code to a held-out face) and a trained classifier (L2 attack): calls and seconds
until a sample first gets and stays within 1 % of the best objective that any method found, measured at an equilibrium
that is solved again, tightly and uncounted, for every input that a method visits. Ratios of the headline: best nested
method (step size chosen per seed from a grid, in its favour) over joint with its untuned defaults; and joint over one
forward plus one adjoint solve at the same tolerance.

    python benchmarks/joint_vs_nested.py --cache /tmp/weights --output joint_vs_nested.json
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import harness
import jiio
from jiio.layout import Tree
from jiio.problem import module_of
from published import Scheme, published
from tasks.nested import nested
from trained import Setting, setting

WITHIN = 0.01
TIGHT = jiio.Tolerance(1e-7, 1e-6)
DEFAULT = jiio.Tolerance()


@dataclass
class Path:
    """Inputs that a method visited: x, T trees (B, ...); calls (T,) of the batch; own (T, B); cells: evaluations (T,)."""

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
    """The settings of the paper in jiio: type I, damped, memory 20, raw steps that drop at step 62."""

    def schedule(k: int) -> float:
        return rate if k < 62 else 0.3 * rate

    rule = (jiio.NormalizedStep if normalised else jiio.GradientStep)(schedule, curvature=1.0)
    solver = jiio.Anderson(memory=20, kind="I", damping={"z": 0.8, "mu": 0.6})
    run = joint(solver=solver, rule=rule, max_steps=100)

    def warmed(problem: jiio.Problem, x0: Tensor) -> Path:
        # Raw units measure nothing at the start, so the first state and multiplier are given: one call more.
        spec = jiio.layout.Spec.of(problem.cell.initial_state(x0))  # type: ignore[attr-defined]
        with torch.no_grad():
            z = problem.cell(problem.cell.initial_state(x0), x0)  # type: ignore[attr-defined]
        leaf = spec.pack(z).requires_grad_()
        mu = torch.autograd.grad(problem.value(spec.unpack(leaf), x0, len(x0)).sum(), leaf)[0]
        path = joint(
            solver=solver, rule=rule, max_steps=100, multiplier=spec.unpack(mu), z0=spec.unpack(leaf.detach())
        )(problem, x0)
        return Path(path.x, [c + 1 for c in path.calls], [o + 1 for o in path.own], [c + 1 for c in path.cells])

    del run
    return warmed


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
    """The nested baseline with these settings."""

    def run(problem: jiio.Problem, x0: Tensor) -> Path:
        visits = nested(problem, x0, **settings).visits
        return Path([v.x for v in visits], [v.calls for v in visits], [v.own for v in visits], [v.cell for v in visits])

    return run


def methods(case: Setting, fast: bool) -> dict[str, dict[str, Method]]:
    """Row of the table -> label of a grid point -> method."""
    attack = case.recipe.radius > 0
    outer = 40 if fast else 60
    grid = (0.1, 0.3, 1.0) if fast else (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    adam = (0.03, 0.1) if fast else (0.01, 0.03, 0.1, 0.3)
    rules: dict[str, jiio.AbstractRule] = {f"gradient, scaled {a:g}": jiio.GradientStep(a) for a in grid}
    rules |= {f"adam {a:g}": jiio.AdamStep(a) for a in adam if not attack}
    if attack:
        lengths = (0.2, 0.5) if fast else (0.05, 0.1, 0.2, 0.5, 1.0)
        rules |= {f"normalised {a:g}": jiio.NormalizedStep(a * case.recipe.radius) for a in lengths}

    def grid_of(chosen: Callable[[str], bool], **settings: Any) -> dict[str, Method]:
        picked = {label: rule for label, rule in rules.items() if chosen(label)}
        return {label: one_by_one(rule=rule, outer_steps=outer, **settings) for label, rule in picked.items()}

    loose = jiio.Tolerance(1e-5, 1e-2)
    rows: dict[str, dict[str, Method]] = {
        "nested, cold": grid_of(lambda _: True, warm=False),
        "nested, warm": grid_of(lambda _: True),
        "nested, warm, tolerance 1e-2": grid_of(lambda _: True, tolerance=loose),
    }
    if not attack:
        rows["nested, warm, Adam only"] = grid_of(lambda label: label.startswith("adam"))
    rows["nested, warm, outer Anderson"] = {
        f"{rate:g}, tolerance {t.rtol:g}": one_by_one(
            rule=jiio.GradientStep(rate), outer=jiio.Anderson(), outer_steps=outer, tolerance=t
        )
        for rate in ((0.5,) if fast else (0.2, 0.5))
        for t in (DEFAULT, loose)
    }
    rates = (0.1,) if fast else (0.02, 0.05, 0.1, 0.2, 0.5)
    rows["joint, Picard"] = {
        f"{a:g}": joint(solver=jiio.Picard(), rule=jiio.GradientStep(a), max_steps=400) for a in rates
    }
    rows["joint, Anderson (defaults)"] = {"": joint()}
    for memory in (5, 20):
        rows[f"joint, Anderson, memory {memory}"] = {"": joint(solver=jiio.Anderson(memory=memory))}
    rows["joint, Anderson, type I"] = {"": joint(solver=jiio.Anderson(kind="I"))}
    raw = (0.05, 0.2, 0.6) if attack else (0.003, 0.01, 0.03, 0.1)
    rows["joint, the paper's settings"] = {f"{a:g}": papers(a, attack) for a in raw}
    weight = 10.0 if attack else 1.0
    rows["published scheme"] = {
        f"{a:g}": scheme(Scheme((a, a / 3), normalised=attack, weight=weight)) for a in raw
    }
    return rows


@torch.no_grad()
def verified(case: Setting, xs: list[Tensor], chunk: int = 512) -> Tensor:
    """(T, B) objective at the equilibrium of every visited input, solved again from the start; infinite where unsolved."""
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
            other = problem.prox(case.start + case.recipe.radius * noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
            long += [(pgd, other), (joint(max_steps=300), other)]
    return torch.stack([verified(case, method(problem, x0).x[-20:]).amin(0) for method, x0 in long]).amin(0)


@dataclass
class Crossing:
    """When each sample first gets and stays near the best: calls of its own, calls and seconds of the batch, each (B,)."""

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
    """Processor seconds (median of repeats) after which half of the samples had arrived; infinite where fewer ever do."""
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
    samples = 8 if name.startswith("multiscale") else 32
    case = setting(name, seed=seed, samples=samples, cache=options.cache, root=options.data_root)
    problem = case.make(torch.arange(len(case.start)))
    best = reference(case, seed)
    paths: dict[tuple[str, str], tuple[Method, Path, Tensor]] = {}
    for row, points in methods(case, options.fast).items():
        begin = time.perf_counter()
        for label, method in points.items():
            path = method(problem, case.start)
            paths[row, label] = method, path, verified(case, path.x)
        harness.say(f"{name}, seed {seed}: {row}, {len(points)} runs, {time.perf_counter() - begin:.0f} s")
    best = torch.stack([best, *(values.amin(0) for _, _, values in paths.values())]).amin(0)
    rows: dict[str, Any] = {}
    for (row, label), (method, path, values) in paths.items():
        crossed = crossing(path, values, best)
        entry = {"grid point": label, **crossed.figures(), "method": (method, path, crossed)}
        rank = (entry["calls"], entry["batch 95 %"], -entry["reached"])
        kept = rows.get(row)
        if kept is None or rank < (kept["calls"], kept["batch 95 %"], -kept["reached"]):
            rows[row] = entry
    for entry in rows.values():
        entry["seconds"] = seconds(case, *entry.pop("method"))
    last = paths["joint, Anderson (defaults)", ""][1].x[-1]
    about = {"data": case.data, "objective at the start": float(verified(case, [case.start]).mean()), **case.about}
    return {"seed": seed, **about, "best objective": float(best.mean()), "floor": floor(case, last), "rows": rows}


def summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Print the table of one setting and return its ratios."""
    table = []
    for row in runs[0]["rows"]:
        got = [run["rows"][row] for run in runs]
        keys = ("calls", "batch 95 %", "batch all", "seconds")
        line = {"method": row, **{key: harness.spread([g[key] for g in got]) for key in keys}}
        line["reached"] = f"{sum(g['reached'] for g in got) / len(got):.2f}"
        table.append(line | {"chosen": ", ".join(sorted({g["grid point"] for g in got} - {""}))})
    harness.show(f"{name} ({runs[0]['data']}), {len(runs)} seeds: median (range) over seeds", table)
    ratios: dict[str, list[float]] = {}
    for run in runs:
        rows, own = run["rows"], run["rows"]["joint, Anderson (defaults)"]
        plain = ["nested, cold", "nested, warm", "nested, warm, tolerance 1e-2"]
        for key in ("calls", "batch 95 %", "seconds"):
            for label, chosen in (("best nested", plain), ("nested, outer Anderson", ["nested, warm, outer Anderson"])):
                ratios.setdefault(f"{label} / joint, {key}", []).append(min(rows[r][key] for r in chosen) / own[key])
        if "nested, warm, Adam only" in rows:
            ratios.setdefault("nested Adam / joint, calls", []).append(
                rows["nested, warm, Adam only"]["calls"] / own["calls"]
            )
        ratios.setdefault("joint / (forward + adjoint), calls", []).append(own["calls"] / run["floor"])
    for key in ("spectral radius", "floor", "best objective"):
        harness.show_line(key, harness.spread([run[key] for run in runs]))
    for key, values in ratios.items():
        harness.show_line(key, harness.spread(values))
    return {"ratios": ratios, "runs": runs}


def run(options: argparse.Namespace) -> dict[str, Any]:
    names = options.settings or ["dense decoder", "multiscale decoder", "dense classifier"]
    seeds = 1 if options.fast else options.seeds
    return {name: summary(name, [one_seed(name, seed, options) for seed in range(seeds)]) for name in names}


if __name__ == "__main__":
    made = harness.parser(__doc__, seeds=3)
    words = ("dense decoder", "multiscale decoder", "dense classifier")
    made.add_argument("--settings", nargs="+", choices=words, help="only these networks")
    sys.exit(harness.main(made, run))
