"""What does one joint step cost beside what it cannot avoid?

    python -m benchmarks.engine.overhead --output overhead.json
    # about 10 minutes; --fast: 2

A step must evaluate the cell and the objective and pull one vector back through both: ``bare`` is just that, on
detached leaves, with the weights held fixed as in a solve. ``joint`` is the whole step of ``jiio.solve`` with a full
Anderson memory: packing, residuals, mixing, safeguards, masks. ``published`` is a straightforward implementation of the
published scheme (ring buffers, full Gram matrix, bordered solve), see ``published.py``. Blocks of each are timed in
turn, in one process; the figures are medians over steps.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import jiio
from benchmarks.engine.clocked import Clock, Clocked
from benchmarks.engine.published import Scheme, published
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show, spread
from jiio.holding import held_fixed
from jiio.layout import Spec, leaves, map_tree
from jiio.models import DenseConfig, classifier, decoder

NEVER = jiio.Tolerance(1e-30, 1e-30)
MEMORY = 10


@dataclass(frozen=True)
class Case:
    """One problem on random data; how a step is spent does not depend on what the numbers mean."""

    name: str
    problem: jiio.Problem
    x0: Tensor


def attack(name: str, cell: Any, image: tuple[int, int, int], batch: int, draw: torch.Generator) -> Case:
    """An untrained classifier, its cross-entropy in an L2 ball."""
    torch.manual_seed(0)
    model = classifier(cell, image=image, classes=10).eval().requires_grad_(False)
    x, y = torch.rand(batch, *image, generator=draw), torch.arange(batch) % 10
    problem = model.problem(lambda s, _: -F.cross_entropy(s, y, reduction="none"), jiio.L2Ball(1.0, center=x))
    return Case(f"{name}, attack", problem, x)


def fit(name: str, cell: Any, image: tuple[int, int, int], batch: int, draw: torch.Generator) -> Case:
    """An untrained decoder, and images that it should make."""
    torch.manual_seed(0)
    model = decoder(cell, image=image, latent=32, squash="none").eval().requires_grad_(False)
    y = torch.rand(batch, *image, generator=draw)
    problem = model.problem(lambda p, x: (p - y).square().flatten(1).sum(1) + 1e-2 * x.square().sum(1))
    return Case(f"{name}, latent fit", problem, torch.zeros(batch, 32))


def cases(fast: bool) -> list[Case]:
    """Small networks, and the large one of CIFAR-10."""
    draw = torch.Generator().manual_seed(0)
    made = [
        fit("tiny 1x24x24", "tiny", (1, 24, 24), 16, draw),
        attack("tiny 1x28x28", "tiny", (1, 28, 28), 16, draw),
        attack("cifar-tiny 3x32x32", "cifar-tiny", (3, 32, 32), 8, draw),
    ]
    if not fast:
        made.append(attack("cifar-large 3x32x32", "cifar-large", (3, 32, 32), 4, draw))
        made.append(fit("dense 96, 1x24x24", DenseConfig(96), (1, 24, 24), 32, draw))
    return made


def bare(case: Case, clock: Clock, repeats: int) -> list[float]:
    """Durations of cell + objective + one reverse pass to (z, x)."""
    problem, durations = case.problem, []
    with held_fixed(problem.cell):
        # A state and a multiplier of the right shapes: how long a step takes does not depend on where it is taken.
        z0 = problem.cell.initial_state(case.x0)  # type: ignore[attr-defined]
        z = map_tree(lambda leaf: 0.1 * torch.randn_like(leaf), z0)
        mu = map_tree(lambda leaf: 0.1 * torch.randn_like(leaf), z0)
        ones = torch.ones(len(case.x0))

        for _ in range(repeats):
            begin = clock()
            zs = map_tree(lambda leaf: leaf.detach().requires_grad_(), z)
            x = case.x0.detach().requires_grad_()
            out = problem.cell(zs, x)
            value = problem.objective(zs, x)
            torch.autograd.grad([*leaves(out), value], [*leaves(zs), x], [*leaves(mu), ones], allow_unused=True)
            durations.append(clock() - begin)

    return durations


def joint(case: Case, clock: Clock, repeats: int) -> list[float]:
    """Durations of the steps of one solve, once the memory is full."""
    cell = Clocked(case.problem.cell, clock)
    settled = 2 + MEMORY + 1
    jiio.solve(
        replace(case.problem, cell=cell),
        case.x0,
        solver=jiio.Anderson(memory=MEMORY),
        adjoint=jiio.Detached(),
        tolerance=NEVER,
        max_steps=settled + repeats,
        on_failure="ignore",
    )
    return cell.steps(settled)


def straightforward(case: Case, clock: Clock, repeats: int) -> list[float]:
    """The same for the published scheme."""
    cell = Clocked(case.problem.cell, clock)
    settled = MEMORY + 1
    attack = case.problem.prox.__class__.__name__ != "Identity"
    settings = Scheme((1e-3, 1e-3), steps=settled + repeats, memory=MEMORY, normalised=attack)
    published(replace(case.problem, cell=cell), case.x0, settings)
    return cell.steps(settled)


def measure(case: Case, rounds: int, repeats: int, clock: Clock) -> Row:
    """Medians over all steps (ms), and the ratio of every round, so that its spread is known."""
    kinds = {"bare": bare, "joint": joint, "published": straightforward}
    taken: dict[str, list[list[float]]] = {name: [] for name in kinds}
    # In turn, so that whatever else the machine does at the time weighs on all three.
    for function in kinds.values():
        function(case, clock, 3)  # warm up
    for _ in range(rounds):
        for name, function in kinds.items():
            taken[name].append(function(case, clock, repeats))

    medians = {name: statistics.median(itertools.chain(*blocks)) for name, blocks in taken.items()}
    of_round = {name: [statistics.median(block) for block in blocks] for name, blocks in taken.items()}
    row: Row = {"batch": len(case.x0), "size of v": size(case)}
    row |= {f"{name} ms": 1e3 * value for name, value in medians.items()}
    for name in ("joint", "published"):
        ratios = [a / b for a, b in zip(of_round[name], of_round["bare"], strict=True)]
        row[f"{name} / bare"] = medians[name] / medians["bare"]
        row[f"{name} / bare, rounds"] = spread(ratios)
    return row


def size(case: Case) -> int:
    """Unknowns of a sample: state, multiplier and input."""
    z0 = case.problem.cell.initial_state(case.x0)  # type: ignore[attr-defined]
    return 2 * Spec.of(z0).size + Spec.of(case.x0).size


def run(options: argparse.Namespace, rows: Rows) -> Row:
    """Every case."""
    clock = time.perf_counter if options.wall else time.process_time
    repeats = 10 if options.fast else 20
    found = []
    for case in cases(options.fast):
        few = repeats if "large" not in case.name else 5
        row = rows.each(case.name, measure, case, options.rounds, few, clock)
        found.append({"problem": case.name, **row})

    which = "wall clock" if options.wall else "processor time"
    show(f"One step at memory {MEMORY}, {torch.get_num_threads()} thread(s), {which}", found)
    return {"threads": torch.get_num_threads(), "clock": which, "memory": MEMORY}


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=1, fast={"rounds": 3})
    made.number("--rounds", 7, "blocks of steps that are timed of every kind")
    made.add_argument("--wall", action="store_true", help="wall clock instead of the process's own processor time")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
