"""The methods that are laid side by side: joint solves, the nested loop over its grid, and the scheme as published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

import jiio
from benchmarks.engine.networks import Setting
from benchmarks.engine.published import Scheme, published
from jiio.layout import detach, map_tree
from jiio.tasks.solving.nested import nested

OURS = "joint, defaults"
PLAIN = ("nested, cold", "nested, warm", "nested, warm, loose")
LOOSE = jiio.Tolerance(1e-5, 1e-2)


@dataclass
class Path:
    """T inputs that a method visited. calls, cells: of the batch so far; own: (B,) calls of each sample so far."""

    x: list[Tensor]
    calls: list[int]
    own: list[Tensor]
    cells: list[int]


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


def one_by_one(**settings: Any) -> Method:
    """The nested baseline with these settings; its x is never declared settled, so that it uses all its steps."""

    def run(problem: jiio.Problem, x0: Tensor) -> Path:
        visits = nested(problem, x0, outer_tolerance=jiio.Tolerance(1e-12, 1e-12), **settings).visits
        return Path([v.x for v in visits], [v.calls for v in visits], [v.own for v in visits], [v.cell for v in visits])

    return run


def methods(case: Setting, small: bool) -> dict[str, dict[str, Method]]:
    """Row of the table -> label of a grid point -> method; ``small`` thins the grids out."""
    return one_by_ones(case.recipe.radius, small) | joints(case.recipe.radius, small) | papers_own(case.recipe.radius)


def rules(radius: float, small: bool) -> dict[str, jiio.AbstractRule]:
    """The rules of the nested loop; radius: of the ball, zero where the input is free."""
    scaled = (0.1, 0.3, 1.0) if small else (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    found: dict[str, jiio.AbstractRule] = {f"gradient, scaled {a:g}": jiio.GradientStep(a) for a in scaled}
    if radius:
        lengths = (0.2, 0.5) if small else (0.05, 0.1, 0.2, 0.5, 1.0)
        return found | {f"normalised {a:g}": jiio.NormalizedStep(a * radius) for a in lengths}
    return found | {f"Adam {a:g}": jiio.AdamStep(a) for a in ((0.03, 0.1) if small else (0.01, 0.03, 0.1, 0.3))}


def one_by_ones(radius: float, small: bool) -> dict[str, dict[str, Method]]:
    """The nested loop: cold, warm, with a loose inner tolerance, and accelerated from outside."""
    outer = 40 if small else 60

    def grid(word: str = "", **settings: Any) -> dict[str, Method]:
        tried = {name: rule for name, rule in rules(radius, small).items() if name.startswith(word)}
        return {name: one_by_one(rule=rule, outer_steps=outer, **settings) for name, rule in tried.items()}

    rows = {"nested, cold": grid(warm=False), "nested, warm": grid(), "nested, warm, loose": grid(tolerance=LOOSE)}
    if not radius:
        rows["nested, warm, Adam only"] = grid("Adam")

    # Our own solver on the outer iteration: not in the literature that we know of, and the strongest baseline.
    rows["nested, warm, outer Anderson"] = {
        f"{a:g}{word}": one_by_one(rule=jiio.GradientStep(a), outer=jiio.Anderson(), outer_steps=outer, tolerance=t)
        for a in ((0.5,) if small else (0.2, 0.5))
        for word, t in (("", jiio.Tolerance()), (", loose", LOOSE))
    }
    return rows


def joints(radius: float, small: bool) -> dict[str, dict[str, Method]]:
    """``jiio.solve``: its defaults, and what they are worth."""
    rows = {
        "joint, Picard": {
            f"{a:g}": joint(solver=jiio.Picard(), rule=jiio.GradientStep(a), max_steps=200)
            for a in ((0.1,) if small else (0.02, 0.05, 0.1, 0.2, 0.5))
        }
    }
    rows[OURS] = {"": joint()}
    rows |= {f"joint, memory {m}": {"": joint(solver=jiio.Anderson(memory=m))} for m in (5, 20)}
    rows["joint, type I"] = {"": joint(solver=jiio.Anderson(kind="I"))}
    if radius:
        rows["joint, normalised step"] = {"": joint(rule=jiio.NormalizedStep(0.5 * radius))}
    return rows


def papers_own(radius: float) -> dict[str, dict[str, Method]]:
    """The paper's settings in jiio, and the scheme itself."""
    raw = (0.05, 0.2, 0.6) if radius else (0.003, 0.01, 0.03, 0.1)
    weight = 10.0 if radius else 1.0
    schemes = {f"{a:g}": Scheme((a, a / 3), normalised=radius > 0, weight=weight) for a in raw}
    return {
        "joint, the paper's settings": {f"{a:g}": papers(a, radius > 0) for a in raw},
        "the scheme as published": {
            name: scheme(replace(settings, accepts=True)) for name, settings in schemes.items()
        },
        "the scheme, its latest point": {name: scheme(settings) for name, settings in schemes.items()},
    }
