"""What does a low precision cost, and what does it change?

    python -m benchmarks.engine.precision --output precision.json
    # about 3 minutes; --fast: 1

Under autocast a solve begins in bfloat16 and ends in float32. Counted are evaluations of the cell beside those of
float32 alone, forward; how far the gradient of a number of the equilibrium is from that of float32, relative, over all
weights; whether a joint solve under autocast converges, and what its objective is worth recomputed in float32. Models
whose own weights are float16 or bfloat16 converge as far as those numbers go, and say so: the residual is recomputed in
float64, in spacings of the type.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from jiio.layout import Spec, Tree, map_tree
from jiio.models import (
    ConvConfig,
    DenseConfig,
    EquilibriumModel,
    MultiscaleConfig,
    TransformerCell,
    TransformerConfig,
    TransformerInjection,
    classifier,
)
from jiio.outputs.seeds import generator

IMAGE = (3, 16, 16)
TOKENS = 12
TRANSFORMER = TransformerConfig(width=32, heads=2, inner=48, memory=0)
SIZES: dict[str, Any] = {"channels": (8, 16), "groups": 4, "fusion_groups": 4, "head_channels": (4, 8)}
# Smooth ones: at a kink of a ReLU a joint solve of an untrained network does not end, in either precision.
CELLS: dict[str, Any] = {
    "dense": DenseConfig(64),
    "conv": ConvConfig(16, activation="softplus"),
    "multiscale": MultiscaleConfig(activation="softplus", **SIZES),
    "transformer": TRANSFORMER,
}


def parts(name: str, seed: int, batch: int) -> tuple[EquilibriumModel, Tensor]:
    """An untrained model and its inputs."""
    torch.manual_seed(seed)
    draws = generator(seed, "precision", name)
    if name == "transformer":
        head = nn.Sequential(nn.Flatten(), nn.Linear(TOKENS * TRANSFORMER.width, 10))
        model = EquilibriumModel(TransformerInjection(TRANSFORMER), TransformerCell(TRANSFORMER), head)
        return model.eval(), torch.randn(batch, TOKENS, TRANSFORMER.width, generator=draws)
    model = classifier(CELLS[name], image=IMAGE, classes=10)
    return model.eval(), torch.rand(batch, *IMAGE, generator=draws)


def forward(model: EquilibriumModel, x: Tensor, low: torch.dtype | None) -> tuple[jiio.Solution, list[Tensor]]:
    """The equilibrium, and the gradient of a random number of it: norms are fixed by layers that normalise."""
    with torch.autocast("cpu", low or torch.bfloat16, enabled=low is not None):
        solution = model.solve(x, on_failure="ignore")
    flat = Spec.of(solution.z).pack(solution.z)
    total = (flat * torch.randn(flat.shape, generator=generator(0, "precision", "probe"))).sum()
    grads = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
    return solution, [g for g in grads if g is not None]


def apart(one: list[Tensor], other: list[Tensor]) -> float:
    """The length of the difference over that of ``other``, all weights together."""
    a, b = (torch.cat([g.flatten() for g in grads]) for grads in (one, other))
    return float((a - b).norm() / b.norm())


def compared(exact: jiio.Solution, low: jiio.Solution) -> Row:
    """What the same solve took in float32 and under autocast."""
    calls, right = low.evaluations.cell, exact.evaluations.cell
    row: Row = {"float32": right, "autocast": calls, "ratio": calls / right}
    return row | {f"converged{word}": float(s.converged.float().mean()) for word, s in (("", low), (" float32", exact))}


def plain(name: str, seed: int, batch: int) -> Row:
    """An equilibrium and its gradient."""
    model, x = parts(name, seed, batch)
    (exact, right), (low, found) = (forward(model, x, kind) for kind in (None, torch.bfloat16))
    return {"cell": name, "seed": seed, **compared(exact, low), "gradient apart": apart(found, right)}


def joint(name: str, seed: int, batch: int) -> Row:
    """A joint solve in an L2 ball."""
    model, x = parts(name, seed, batch)
    model.requires_grad_(False)
    classes = torch.arange(batch) % 10

    # The objective, the same for both solves.
    def loss(scores: Tensor, _: Any) -> Tensor:
        return F.cross_entropy(scores.float(), classes, reduction="none")

    problem = model.problem(loss, jiio.L2Ball(0.5, center=x))
    how: dict[str, Any] = {"adjoint": jiio.Detached(), "on_failure": "ignore", "tolerance": jiio.Tolerance(1e-6, 1e-3)}
    exact = jiio.solve(problem, x, **how)
    with torch.autocast("cpu", torch.bfloat16):
        low = jiio.solve(problem, x, **how)

    # What either found, by an equilibrium of its own in float32.
    tight = jiio.Tolerance(1e-6, 1e-6)
    values = [loss(model.head(model.solve(s.x, tolerance=tight, on_failure="ignore").z), None) for s in (low, exact)]
    value = float(values[0].mean() / values[1].mean())
    return {"cell": name, "seed": seed, **compared(exact, low), "value / float32": value}


def whole(name: str, seed: int, batch: int, kind: torch.dtype) -> Row:
    """A model whose weights are of a low precision."""
    model, x = parts(name, seed, batch)
    model = model.to(kind)
    x = x.to(kind)
    # What it says is what a user would read.
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        solution = model.solve(x)

    # The same weights, state and input in float64.
    model = model.double()
    u = model.inject(x.double())
    z: Tree = map_tree(lambda leaf: leaf.double(), solution.z)
    spec = Spec.of(z)
    left = spec.pack(model.cell(z, u)) - spec.pack(z)
    relative = left.square().mean(1).sqrt() / spec.pack(z).square().mean(1).sqrt()
    return {
        "cell": f"{name}, {str(kind).removeprefix('torch.')}",
        "seed": seed,
        "evaluations": solution.evaluations.cell,
        "converged": float(solution.converged.float().mean()),
        "said": float(any(issubclass(w.category, jiio.PrecisionWarning) for w in told)),
        "residual, spacings": float(relative.detach().max()) / torch.finfo(kind).eps,
    }


def run(options: argparse.Namespace, rows: Rows) -> Row:
    """Every cell, every seed."""
    batch, seeds = (4 if options.fast else 16), range(options.seeds)
    todo: dict[str, Callable[[str, int, int], Row]] = {"equilibrium": plain, "joint solve": joint}
    for title, make in todo.items():
        found = [rows.each(f"{title}, {n}, {s}", make, n, s, batch) for n in CELLS for s in seeds]
        show(f"Autocast bfloat16, {title}", over_seeds(found, "cell"))
    found = []
    for kind in (torch.float16, torch.bfloat16):
        for name in CELLS:
            found += [rows.each(f"{kind}, {name}, {s}", whole, name, s, batch, kind) for s in seeds]
    show("Models of low precision", over_seeds(found, "cell"))
    return {"batch": batch}


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    return main(Parser(__doc__, __file__, seeds=3, fast={"seeds": 1}), run, argv)


if __name__ == "__main__":
    sys.exit(command())
