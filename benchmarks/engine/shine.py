"""Does ``SHINE`` (the forward solver's inverse, used again in the backward pass) pay against other cheap gradients?

    JIIO_DATA=DIR python -m benchmarks.engine.shine --output shine.json     # about 4 minutes; --fast: 1

Digits of 14 x 14 pixels and a classifier, a dense cell or (``--cells``) a multiscale one, without a Jacobian penalty.
Per seed it is trained by every adjoint for as many steps from the same weights. Figures: at the weights of the exact
training cosine and length of the loss's gradient over those of a tightly solved one, and products with the Jacobian;
then test accuracy after the training, and seconds of the processor over those of the exact training. The baselines that
cost as little are Jacobian-free (0 products) and a Neumann sum (5).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from benchmarks.trainings import by_steps
from jiio.models.cells.multiscale import PRESETS
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.load import build

SIZES = {name: getattr(PRESETS["tiny"], name) for name in ("channels", "expansion", "groups", "head_channels")}
CELLS: dict[str, dict[str, Any]] = {
    "dense": {"name": "Dense", "options": {"features": 96}},
    "multiscale": {"name": "Multiscale", "options": SIZES},
}
SOLVERS = {
    "Broyden": {"name": "Broyden", "options": {"memory": 40}},
    "Anderson": {"name": "Anderson", "options": {"memory": 20}},
}
ADJOINTS: dict[str, dict[str, Any]] = {
    "exact": {"name": "Implicit"},
    "Jacobian-free": {"name": "Phantom", "options": {"steps": 1, "damping": 1.0, "kind": "neumann"}},
    "Neumann, 6 terms": {"name": "Phantom", "options": {"steps": 6, "damping": 1.0, "kind": "neumann"}},
    "SHINE": {"name": "SHINE"},
    "SHINE, no fallback": {"name": "SHINE", "options": {"fallback": 1e9}},
    "SHINE, refined 5": {"name": "SHINE", "options": {"refine": 5}},
    "Jacobian-free, refined 5": {"name": "SHINE", "options": {"refine": 5, "fallback": 0.0}},
}
SEEN = 64  # test digits on which gradients are compared
ALIKE = ("Jacobian-free", "Neumann, 6 terms", "Jacobian-free, refined 5")  # whatever the forward solver


def configuration(cell: str, solver: str, adjoint: str, seed: int, options: argparse.Namespace) -> ClassifyConfig:
    """A training of this network by this adjoint."""
    steps = options.steps if cell == "dense" else options.multiscale_steps
    values: dict[str, Any] = {"task": "classify", "seed": seed, "steps": steps}
    batch = 64 if cell == "dense" else 32
    values["data"] = {"family": "mnist", "size": 14, "batch_size": batch, "train_limit": 20_000, "test_limit": 1_000}
    values["model"] = {"cell": CELLS[cell], "solver": SOLVERS[solver], "adjoint": ADJOINTS[adjoint], "max_steps": 30}
    values["optimiser"] = {"rate": 0.004, "warmup": 5}
    return build(ClassifyConfig, values)


def gradient(model: jiio.EquilibriumModel, x: Tensor, y: Tensor, **how: Any) -> tuple[Tensor, int]:
    """Of the cross-entropy by the weights, in one vector; and the products that it took."""
    weights = list(model.parameters())
    solution = model.solve(x, on_failure="ignore", **how)
    loss = F.cross_entropy(model.head(solution.z), y)
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    flat = [torch.zeros_like(w) if g is None else g for g, w in zip(found, weights, strict=True)]
    return torch.cat([g.flatten() for g in flat]), solution.evaluations.adjoint_vjp


def alignment(config: ClassifyConfig, task: Classify, model: jiio.EquilibriumModel) -> Row:
    """Cosine and length of the adjoint of ``config`` at these weights, on the digits of a test batch."""
    x, y = task.data.test[:SEEN], task.data.test_labels[:SEEN]
    settings = config.model.solve_settings()
    tight = jiio.Tolerance(1e-6, 1e-6)
    best = jiio.Implicit(tolerance=tight, max_steps=300)
    exact, _ = gradient(model, x, y, tolerance=tight, max_steps=300, adjoint=best)
    given, products = gradient(model, x, y, adjoint=settings.adjoint, solver=settings.solver)
    cosine = float(F.cosine_similarity(exact, given, dim=0))
    return {"cosine": cosine, "length": float(given.norm() / exact.norm()), "products": products}


def accuracy(task: Classify, model: jiio.EquilibriumModel) -> float:
    """Of all test digits, in per cent."""
    with torch.no_grad():
        right = [
            (model(x).argmax(1) == y).float()
            for x, y in zip(task.data.test.split(250), task.data.test_labels.split(250), strict=True)
        ]
    return 100 * float(torch.cat(right).mean())


def one_seed(cell: str, solver: str, seed: int, options: argparse.Namespace) -> list[Row]:
    """A line for every adjoint that this solver changes; those that it does not are measured with Broyden alone."""
    named = [name for name in ADJOINTS if solver == "Broyden" or name not in ALIKE]
    rows: list[Row] = []
    exact: jiio.EquilibriumModel | None = None
    seconds = 1.0
    task = Classify(configuration(cell, solver, "exact", seed, options), data_root=options.data_root)
    for name in named:
        config = task.config = configuration(cell, solver, name, seed, options)  # the same digits, read once
        model, spent = by_steps(task)
        assert isinstance(model, jiio.EquilibriumModel)
        if exact is None:  # the first one
            exact, seconds = model, spent

        head = {"cell": cell, "forward": solver, "adjoint": name, "seed": seed}
        trained = {"accuracy": accuracy(task, model), "seconds / exact": spent / seconds}
        rows.append(head | alignment(config, task, exact) | trained)
    return rows


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All cells, solvers and seeds."""
    for cell in options.cells:
        found: list[Row] = []
        for solver in options.forward:
            keys = [(f"{cell}/{solver}/{seed}", seed) for seed in range(options.seeds)]
            found += [row for key, s in keys for row in rows.each(key, one_seed, cell, solver, s, options)]
        lines = over_seeds(found, "forward", "adjoint")
        show(f"{cell}, {options.seeds} seed(s): median (range) over seeds", lines)


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    fast = {"seeds": 1, "steps": 40, "multiscale_steps": 5}
    made = Parser(__doc__, __file__, seeds=3, fast=fast)
    made.number("--steps", 40, "training steps of the dense network")
    made.number("--multiscale-steps", 20, "training steps of the multiscale network")
    made.chosen("--cells", ["dense"], list(CELLS), "networks")
    made.chosen("--forward", list(SOLVERS), list(SOLVERS), "forward solvers; Broyden is the paper's")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
