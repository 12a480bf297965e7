"""Forward and backward of an equilibrium network beside those of torchdeq, at equal true residual.

    python -m benchmarks.engine.beside_torchdeq --output torchdeq.json    (needs torchdeq)
    # about 5 minutes; --fast: 1

Both get the same cell, input and start, and Anderson's method. What a library calls its residual
is not asked: it is computed again from outside, |f(z) - z| / |f(z)| of the worst sample. For each library the loosest
tolerance of a ladder is taken with which it is at most the one that is wanted, and then, the forward pass fixed, the
loosest one for the backward solve with which the gradient of the weights is within ten times that of the exact one.
Then both are timed in turn: processor time of forward and backward, medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from jiio.layout import Spec, leaves, map_tree
from jiio.models import EquilibriumModel
from jiio.tasks.classify.task import Classify
from jiio.tasks.frame import checkpoint
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.restore.imagespace import ImageRestorer
from jiio.tasks.restore.latent import Restore
from jiio.tasks.restore.load import load_restorer
from jiio.tasks.solving.latent import LatentRestorer

LADDER = [10 ** (-k / 3) for k in range(1, 19)]  # tolerances, loosest first
LIMIT = 200  # steps of a solve
GRADIENT = 10.0  # times the residual: what a gradient may be off
CELLS = ("classifier of faces", "decoder of faces", "image prior")

Run = Callable[[float, float], tuple[Any, list[Tensor]]]


class Task:
    """One network on one batch; a run is forward and backward with two tolerances -> z and the gradients."""

    def __init__(self, name: str, seed: int, batch: int) -> None:
        torch.manual_seed(seed)
        model, x = shipped_model(name, batch)
        model.eval().requires_grad_()
        self.cell: Any = model.cell
        self.weights = list(model.cell.parameters())
        with torch.no_grad():
            self.u = model.inject(x)
        self.z0 = map_tree(torch.zeros_like, self.cell.initial_state(self.u))
        self.calls = 0

    def f(self, z: Any) -> Any:
        self.calls += 1
        return self.cell(z, self.u)

    def gradients(self, z: Any) -> list[Tensor]:
        total = torch.stack([leaf.square().mean() for leaf in leaves(z)]).sum()
        found = torch.autograd.grad(total, self.weights, allow_unused=True)
        return [torch.zeros_like(w) if g is None else g for g, w in zip(found, self.weights, strict=True)]

    def ours(self, forward: float, backward: float) -> tuple[Any, list[Tensor]]:
        adjoint = jiio.Implicit(tolerance=jiio.Tolerance(0.0, backward), max_steps=LIMIT)
        cell = jiio.PerSample(lambda z, u: self._counted(z, u))
        options: dict[str, Any] = {"adjoint": adjoint, "on_failure": "ignore", "max_steps": LIMIT}
        z = jiio.equilibrium(cell, self.u, self.z0, tolerance=jiio.Tolerance(0.0, forward), **options).z
        return z, self.gradients(z)

    def _counted(self, z: Any, u: Any) -> Any:
        self.calls += 1
        return self.cell(z, u)

    def theirs(self, forward: float, backward: float) -> tuple[Any, list[Tensor]]:
        from torchdeq import get_deq  # pyright: ignore[reportMissingImports]

        limits = {"f_max_iter": LIMIT, "b_max_iter": LIMIT, "f_tol": forward, "b_tol": backward}
        deq = get_deq(f_solver="anderson", b_solver="anderson", ift=True, **limits)  # its default is one phantom step
        tree = _pytree.tree_structure(self.z0)
        found, _ = deq(lambda *z: tuple(leaves(self.f(_pytree.tree_unflatten(list(z), tree)))), tuple(leaves(self.z0)))
        z = _pytree.tree_unflatten(list(found[-1]), tree)
        return z, self.gradients(z)

    @torch.no_grad()
    def residual(self, z: Any) -> float:
        """Of the worst sample, relative."""
        spec = Spec.of(z)
        image = spec.pack(self.cell(z, self.u))
        return float(((image - spec.pack(z)).norm(dim=1) / image.norm(dim=1)).max())


def shipped_model(name: str, batch: int) -> tuple[EquilibriumModel, Tensor]:
    """A trained model that comes with the package, and inputs for it: noise, so that no data are needed."""
    if name == "classifier of faces":
        model = Classify.trained(checkpoint.load(shipped("weights", "classify-faces", "weights", ".safetensors")))
        assert isinstance(model, EquilibriumModel)
        return model, torch.rand(batch, *model.config.input)
    if name == "decoder of faces":
        restorer = Restore.trained(checkpoint.load(shipped("weights", "restore-faces", "weights", ".safetensors")))
        assert isinstance(restorer, LatentRestorer)
        return restorer.decoder, torch.randn(batch, *restorer.decoder.config.input)
    prior = load_restorer("prior", "prior-grey")
    assert isinstance(prior, ImageRestorer)
    return prior.prior.at(0.1), torch.rand(batch, 1, 24, 24)


def away(found: list[Tensor], exact: list[Tensor]) -> float:
    """Relative distance of all gradients together."""
    a, b = (torch.cat([g.flatten() for g in many]) for many in (found, exact))
    return float((a - b).norm() / b.norm())


def loosest(good: Callable[[float], bool]) -> float | None:
    """The first tolerance of the ladder that is good; None where none is."""
    return next((tolerance for tolerance in LADDER if good(tolerance)), None)


def tuned(task: Task, run: Run, wanted: float, exact: list[Tensor]) -> tuple[float, float] | None:
    """The loosest tolerances with which a library meets what is wanted."""
    forward = loosest(lambda tolerance: task.residual(run(tolerance, 0.5)[0]) <= wanted)
    if forward is None:
        return None
    backward = loosest(lambda tolerance: away(run(forward, tolerance)[1], exact) <= GRADIENT * wanted)
    return None if backward is None else (forward, backward)


def measure(name: str, seed: int, wanted: float, batch: int, rounds: int) -> Row:
    """Both libraries on one network."""
    task = Task(name, seed, batch)
    exact = task.ours(1e-7, 1e-7)[1]
    runs: dict[str, Run] = {"ours": task.ours, "torchdeq": task.theirs}

    chosen = {word: tuned(task, run, wanted, exact) for word, run in runs.items()}
    ready = {word: partial(runs[word], *pair) for word, pair in chosen.items() if pair is not None}

    # What each reaches with the tolerances that were found for it, asked of the answer itself.
    row: Row = {}
    for word, run in ready.items():
        task.calls = 0
        z, gradients = run()
        row |= {f"{word} residual": task.residual(z), f"{word} gradient": away(gradients, exact)}
        row[f"{word} forward calls"] = task.calls

    # In turn, so that whatever else the machine does weighs on both.
    taken: dict[str, list[float]] = {word: [] for word in ready}
    for _ in range(rounds):
        for word, run in ready.items():
            begin = time.process_time()
            run()
            taken[word].append(time.process_time() - begin)
    row |= {f"{word} ms": 1e3 * statistics.median(times) for word, times in taken.items()}
    if len(ready) == 2:
        row["ours / torchdeq"] = row["ours ms"] / row["torchdeq ms"]
    return row


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Every network, residual and seed."""
    found = []
    for seed in range(options.seeds):
        for name in options.cells:
            for wanted in (1e-2, 1e-3):
                key = f"{name}/{wanted:g}/{seed}"
                row = rows.each(key, measure, name, seed, wanted, options.batch, options.rounds)
                found.append({"cell": name, "residual at most": wanted, "seed": seed, **row})
    show("Forward and backward", over_seeds(found, "cell", "residual at most"))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"rounds": 3})
    made.chosen("--cells", list(CELLS), list(CELLS), "networks")
    made.number("--batch", 16, "samples")
    made.number("--rounds", 7, "times that both are timed in turn")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
