"""The methods that are laid side by side: joint solves, the nested loop over its grid, and the scheme as published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

import jiio
from benchmarks.engine.clocked import Clocked
from benchmarks.engine.networks import Recipe, Setting
from benchmarks.engine.published import Scheme, published
from jiio.attacks.methods.joint import FallingSign, fall
from jiio.layout import detach, map_tree
from jiio.tasks.solving.ledger import NestedRun
from jiio.tasks.solving.nested import nested

OURS = "joint, defaults"
METRIC = "joint, metric"
NEAR = "joint, linearised start and metric"
SIGNS = "joint, falling signs"
PLAIN = ("nested, cold", "nested, warm", "nested, warm, loose")
KNOWING = ("nested, warm, metric", "nested, linearised start and metric")
LOOSE = jiio.Tolerance(1e-5, 1e-2)


@dataclass
class Path:
    """T inputs that a method visited. calls, cells: of the batch so far; own: (B,) calls of each sample so far."""

    x: list[Tensor]
    calls: list[int]
    own: list[Tensor]
    cells: list[int]


Method = Callable[[jiio.Problem, Tensor], Path]


def joint(sensitivity: jiio.Sensitivity | None = None, near_by: bool = False, **settings: Any) -> Method:
    """``jiio.solve`` with these settings. sensitivity: in its metric. near_by: and from the linearised optimum.

    A sample's own calls are those of its steps; what is asked of a claim to have converged counts for the batch.
    """
    shared = {"adjoint": jiio.Detached(), "trace": "points", "on_failure": "ignore"} | settings

    def run(problem: jiio.Problem, x0: Tensor) -> Path:
        near = jiio.Linearised(x0, None, None, 0) if sensitivity is None else sensitivity.linearised(problem, x0)
        # How many evaluations there had been at each step: what a claim is asked comes between two of them.
        clocked, seen = Clocked(problem.cell), list[int]()
        shown: dict[str, Any] = {"callback": lambda *_: seen.append(len(clocked.times))}
        start: dict[str, Any] = {"z0": near.z} if near_by and near.metric is not None else {}
        start |= {} if near.metric is None else {"metric": near.metric}
        x = near.x if near_by else x0
        s = jiio.solve(replace(problem, cell=clocked), x, **shared, **start, **shown)
        assert s.trace is not None

        # Evaluations before each point, and VJPs: the first ones measure the scales, then there is one a step.
        points, first = len(s.trace.x), s.evaluations.vjp - len(s.trace.x)
        cells = [near.calls + k - 1 for k in seen] + [near.calls + s.evaluations.cell]
        calls = [c + first + k for k, c in enumerate(cells)]
        own = [calls[0] + 2 * s.steps.clamp_max(k) for k in range(points + 1)]
        return Path([*s.trace.x, s.x], calls, own, cells)

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
        # The first state and multiplier: f(z0, x0), and l_z there.
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


def one_by_one(sensitivity: jiio.Sensitivity | None = None, near_by: bool = False, **settings: Any) -> Method:
    """The nested baseline with these settings; its x is never declared settled, so that it uses all its steps.

    sensitivity: to step in its metric. near_by: and to begin at the linearised optimum.
    """
    never = {"outer_tolerance": jiio.Tolerance(1e-12, 1e-12)}

    def run(problem: jiio.Problem, x0: Tensor) -> Path:
        if sensitivity is None:
            return visited(nested(problem, x0, **never, **settings))
        near = sensitivity.linearised(problem, x0)
        start = (near.x, near.z) if near_by else (x0,)
        return visited(nested(problem, *start, metric=near.metric, **never, **settings), near.calls)

    return run


def visited(run: NestedRun, before: int = 0) -> Path:
    """What a nested run passed through, after so many evaluations ``before``."""
    seen = run.visits
    calls, own, cells = ([getattr(v, name) + before for v in seen] for name in ("calls", "own", "cell"))
    return Path([v.x for v in seen], calls, own, cells)


def methods(case: Setting, small: bool) -> dict[str, dict[str, Method]]:
    """Row of the table -> label of a grid point -> method; ``small`` thins the grids out."""
    rows = one_by_ones(case.recipe, small) | joints(case.recipe, small) | papers_own(case.recipe, small)
    return rows if case.recipe.radius else rows | knowing(case)


def rules(recipe: Recipe, small: bool) -> dict[str, jiio.AbstractRule]:
    """The rules of the nested loop."""
    radius, scaled = recipe.radius, (0.3, 1.0) if small else (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    found: dict[str, jiio.AbstractRule] = {f"gradient, scaled {a:g}": jiio.GradientStep(a) for a in scaled}
    if radius:
        lengths = (0.2, 0.5) if small else (0.05, 0.1, 0.2, 0.5, 1.0)
        kind, word = (jiio.SignStep, "sign") if recipe.norm == "Linf" else (jiio.NormalizedStep, "normalised")
        return found | {f"{word} {a:g}": kind(a * radius) for a in lengths}
    return found | {f"Adam {a:g}": jiio.AdamStep(a) for a in ((0.03,) if small else (0.01, 0.03, 0.1, 0.3))}


def one_by_ones(recipe: Recipe, small: bool) -> dict[str, dict[str, Method]]:
    """The nested loop: cold, warm, with a loose inner tolerance, and accelerated from outside."""
    outer = 50 if small else 60

    def grid(word: str = "", **settings: Any) -> dict[str, Method]:
        tried = {name: rule for name, rule in rules(recipe, small).items() if name.startswith(word)}
        return {name: one_by_one(rule=rule, outer_steps=outer, **settings) for name, rule in tried.items()}

    # Of the published kind.
    rows = {"nested, warm": grid(), "nested, warm, loose": grid(tolerance=LOOSE)}
    if not small:
        rows["nested, cold"] = grid(warm=False)
    if not recipe.radius:
        rows["nested, warm, Adam only"] = grid("Adam", tolerance=LOOSE) if small else grid("Adam")

    # Our own solver on the outer iteration: not in the literature that we know of.
    rows["nested, warm, outer Anderson"] = {
        f"{a:g}{word}": one_by_one(rule=jiio.GradientStep(a), outer=jiio.Anderson(), outer_steps=outer, tolerance=t)
        for a in ((0.5,) if small else (0.2, 0.5))
        for word, t in (("", jiio.Tolerance()), (", loose", LOOSE))
    }
    return rows


def knowing(case: Setting) -> dict[str, dict[str, Method]]:
    """What a metric is worth to either side. Measuring S is a cost of the model, which is not charged here."""
    sensitivity = jiio.Sensitivity.of(case.whole(), case.start[:1])
    outers = {
        f"{type(solver).__name__}{word}": {"outer": solver, "tolerance": tolerance}
        for solver in (jiio.Picard(), jiio.Anderson())
        for word, tolerance in (("", jiio.Tolerance()), (", loose", LOOSE))
    }
    newton = {"rule": jiio.GradientStep(1.0), "outer_steps": 30}
    rows = {
        name: {label: one_by_one(sensitivity, near_by, **newton, **how) for label, how in outers.items()}
        for name, near_by in zip(KNOWING, (False, True), strict=True)
    }
    return {METRIC: {"": joint(sensitivity)}, NEAR: {"": joint(sensitivity, near_by=True)}, **rows}


def joints(recipe: Recipe, small: bool) -> dict[str, dict[str, Method]]:
    """``jiio.solve``: its defaults, and what they are worth."""
    rows = {OURS: {"": joint()}}
    if not small:
        rows["joint, Picard"] = {
            f"{a:g}": joint(solver=jiio.Picard(), rule=jiio.GradientStep(a)) for a in (0.02, 0.05, 0.1, 0.2, 0.5)
        }
        rows |= {f"joint, memory {m}": {"": joint(solver=jiio.Anderson(memory=m))} for m in (5, 20)}
        rows["joint, type I"] = {"": joint(solver=jiio.Anderson(kind="I"))}
    if recipe.norm == "Linf":
        rows[SIGNS] = {
            f"{steps} steps": joint(
                rule=FallingSign(fall(steps), stride=recipe.radius),
                solver=jiio.Anderson(memory=6, blocks=("z", "mu")),
                max_steps=steps,
            )
            for steps in (20, 40)
        }
    elif recipe.radius:
        rows["joint, normalised step"] = {"": joint(rule=jiio.NormalizedStep(0.5 * recipe.radius))}
    return rows


def papers_own(recipe: Recipe, small: bool) -> dict[str, dict[str, Method]]:
    """The scheme as published; and its latest point, and the paper's settings in jiio."""
    raw = (0.05, 0.2, 0.6) if recipe.radius else (0.003, 0.01, 0.03, 0.1)
    weight = 10.0 if recipe.radius else 1.0
    schemes = {f"{a:g}": Scheme((a, a / 3), normalised=recipe.radius > 0, weight=weight) for a in raw}
    rows = {"the scheme as published": {a: scheme(replace(one, accepts=True)) for a, one in schemes.items()}}
    if small:
        return rows
    rows["the scheme, its latest point"] = {a: scheme(one) for a, one in schemes.items()}
    return rows | {"joint, the paper's settings": {f"{a:g}": papers(a, recipe.radius > 0) for a in raw}}
