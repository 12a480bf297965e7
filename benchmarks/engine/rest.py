"""What does a solve save that goes on without the samples that have ended? And what does a long solve hold in memory?

    python -m benchmarks.engine.rest --output rest.json
    # about 6 minutes; --fast: 2

A mixed batch of 256: targets (or images) over two orders of magnitude, easy and hard samples side by side. Each problem
is solved twice, in a form that can be taken apart and in one that cannot; counted are calls of the cell, and calls
times samples, with what claims cost. The answers have to be the same. Memory: the largest sum of tensors alive at once,
counted storage by storage, in a solve of 200 and in one of 20 steps.
"""

from __future__ import annotations

import argparse
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from jiio.holding import module_of
from jiio.layout import Tree, leaves
from jiio.models import DenseConfig, classifier, decoder
from jiio.persample import rows_of

NEVER = jiio.Tolerance(1e-30, 1e-30)


class Counted:
    """The cell ``cell`` of samples; counts calls, and samples that were in them, wherever the solve takes it."""

    def __init__(self, cell: Any, divisible: bool, counts: list[int] | None = None) -> None:
        self.cell, self.module, self.divisible = cell, module_of(cell), divisible
        self.counts = [0, 0] if counts is None else counts

    def __call__(self, z: Tree, x: Tree) -> Tree:
        self.counts[0] += 1
        self.counts[1] += len(leaves(z)[0])
        return self.cell(z, x)

    def initial_state(self, x: Tree) -> Tree:
        return self.cell.initial_state(x)

    def rows(self, index: Tensor) -> Counted | None:
        part = rows_of(self.cell, index) if self.divisible else None
        return None if part is None else Counted(part, True, self.counts)


class Alive(TorchDispatchMode):
    """Bytes of all storages that were made inside and are not gone yet, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._enter(leaf.untyped_storage())
        return out

    def _enter(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.seen:
            return
        self.seen.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._leave, key, size)

    def _leave(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


@dataclass(frozen=True)
class Case:
    """A problem of a batch from easy to hard samples. settings: of the solve."""

    problem: jiio.Problem
    x0: Tensor
    settings: dict[str, Any]


def fits(seed: int, batch: int) -> Case:
    """Latent fits of images of very different contrast."""
    torch.manual_seed(seed)
    model = decoder(DenseConfig(96), image=(1, 24, 24), latent=16, squash="none").eval().requires_grad_(False)
    y = torch.rand(batch, 1, 24, 24) * torch.logspace(-2, 0.5, batch)[:, None, None, None]

    def objective(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return (image - y).square().flatten(1).sum(1) + 1.0 * x.square().sum(1)

    return Case(model.problem(jiio.PerSample(objective, y)), torch.zeros(batch, 16), {"max_steps": 200})


def attacks(seed: int, batch: int) -> Case:
    """Attacks in balls of very different size."""
    torch.manual_seed(seed)
    model = classifier(DenseConfig(96), image=(1, 28, 28), classes=10).eval().requires_grad_(False)
    x, y = torch.rand(batch, 1, 28, 28), torch.arange(batch) % 10

    def objective(scores: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return -F.cross_entropy(scores, y, reduction="none")

    ball = jiio.L2Ball(torch.logspace(-2, 0.5, batch), center=x)
    return Case(model.problem(jiio.PerSample(objective, y), ball), x, {"max_steps": 200})


def twice(make: Callable[[int, int], Case], seed: int, batch: int) -> Row:
    """One joint solve both ways."""
    found, row = [], {}
    for word, divisible in (("whole", False), ("rest", True)):
        case = make(seed, batch)
        cell = Counted(case.problem.cell, divisible)

        begin = time.process_time()
        options: dict[str, Any] = {"adjoint": jiio.Detached(), "on_failure": "ignore", **case.settings}
        found.append(jiio.solve(replace(case.problem, cell=cell), case.x0, **options))
        row |= {f"{word} s": time.process_time() - begin, f"{word} samples": cell.counts[1], "calls": cell.counts[0]}
    return row | compared(found, row)


def plainly(seed: int, batch: int) -> Row:
    """One forward pass of a classifier both ways: cells that converge at very different speeds."""
    torch.manual_seed(seed)
    model = classifier(DenseConfig(96, gain=1.5), image=(1, 28, 28), classes=10).eval().requires_grad_(False)
    u = model.inject(torch.rand(batch, 1, 28, 28) * torch.logspace(-2, 1, batch)[:, None, None, None])
    found, row = [], {}
    for word, divisible in (("whole", False), ("rest", True)):
        plain: Any = model.cell
        cell = Counted(plain, divisible)

        begin = time.process_time()
        start = plain.initial_state(u)
        options: dict[str, Any] = {"adjoint": jiio.Detached(), "on_failure": "ignore", "max_steps": 200}
        found.append(jiio.equilibrium(cell, u, start, tolerance=jiio.Tolerance(1e-6, 1e-5), **options))
        row |= {f"{word} s": time.process_time() - begin, f"{word} samples": cell.counts[1], "calls": cell.counts[0]}
    return row | compared(found, row)


def compared(found: list[jiio.Solution], row: Row) -> Row:
    """What was saved, and how far the answers are apart."""
    whole, rest = found
    steps = whole.steps.double().quantile(torch.tensor([0.25, 0.75], dtype=torch.float64)).tolist()
    return {
        "rest / whole, samples": row["rest samples"] / row["whole samples"],
        "rest / whole, s": row["rest s"] / row["whole s"],
        "steps, quarter": steps[0],
        "steps, three quarters": steps[1],
        "converged": float(rest.converged.double().mean()),
        "apart": max(float((a - b).abs().max()) for a, b in zip(leaves(whole.z), leaves(rest.z), strict=True)),
        "other steps": int((whole.steps != rest.steps).sum()),
    }


def memory(make: Callable[[int, int], Case], seed: int, batch: int) -> Row:
    """The most bytes at once in a solve of 20 and of 200 steps that no sample ends, and in a usual one."""
    case, most = make(seed, batch), {}

    # Two lengths that no sample ends, a solve as people make them, and one with half a history.
    runs = {
        "20": (NEVER, 20, jiio.Anderson()),
        "200": (NEVER, 200, jiio.Anderson()),
        "mixed": (jiio.Tolerance(), 200, jiio.Anderson()),
        "bfloat16": (NEVER, 20, jiio.Anderson(history="bfloat16")),
    }

    for word, (tolerance, steps, solver) in runs.items():
        with Alive() as alive:
            options: dict[str, Any] = {"tolerance": tolerance, "max_steps": steps, "on_failure": "ignore"}
            options["solver"] = solver
            jiio.solve(case.problem, case.x0, adjoint=jiio.Detached(), **options)
        most[word] = alive.most / 2**20

    row: Row = {f"{word} MiB": value for word, value in most.items()}
    return row | {
        "200 / 20": most["200"] / most["20"],
        "mixed / 20": most["mixed"] / most["20"],
        "bfloat16 / 20": most["bfloat16"] / most["20"],
    }


def convolved(seed: int, batch: int) -> Case:
    """Attacks on a small multiscale network."""
    torch.manual_seed(seed)
    model = classifier("tiny", image=(1, 16, 16), classes=10).eval().requires_grad_(False)
    x, y = torch.rand(batch, 1, 16, 16), torch.arange(batch) % 10

    def objective(scores: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return -F.cross_entropy(scores, y, reduction="none")

    return Case(model.problem(jiio.PerSample(objective, y), jiio.L2Ball(1.0, center=x)), x, {"max_steps": 200})


CASES = {"latent fits": fits, "attacks": attacks}
HELD = CASES | {"attacks, tiny": convolved}


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Every case and seed."""
    found: list[Row] = []
    for seed in range(options.seeds):
        for name, make in CASES.items():
            row = rows.each(f"{name}/{seed}", twice, make, seed, options.batch)
            found.append({"problem": name, "seed": seed, **row})
        row = rows.each(f"forward/{seed}", plainly, seed, options.batch)
        found.append({"problem": "forward pass", "seed": seed, **row})

    show(f"A mixed batch of {options.batch}", over_seeds(found, "problem"))

    held: list[Row] = []
    for seed in range(options.seeds):
        for name, make in HELD.items():
            held.append({"problem": name, "seed": seed, **rows.each(f"memory, {name}/{seed}", memory, make, seed, 16)})

    show("Memory of a solve, batch 16", over_seeds(held, "problem", digits=5))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1})
    made.number("--batch", 256, "samples of the mixed batch")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
