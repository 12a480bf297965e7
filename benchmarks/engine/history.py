"""Would a history in half precision do? Steps and residuals where the differences of Anderson's and Broyden's methods
are rounded.

    python -m benchmarks.engine.history --output history.json
    # about 3 minutes; --fast: 1

The methods keep some twenty vectors of the length of the whole iterate, most of the memory of a solve. Here each is
rounded to bfloat16 or float16 when it is written, and all sums stay in single precision: what a history in that type
would do to the convergence, whatever it does to time and memory. Latent fits, attacks and forward passes of untrained
networks, as in ``rest.py``; the tolerance is 1e-6 + 1e-5 times the size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import jiio
from benchmarks.engine.rest import CASES
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from jiio.models import DenseConfig, classifier

CLOSE = jiio.Tolerance(1e-6, 1e-5)
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class RoundedAnderson(jiio.Anderson):
    """Anderson's method whose new differences are rounded to ``kept``."""

    kept: torch.dtype = torch.float32

    def _differences(self, v: Tensor, fv: Tensor, state: Any, slot: int) -> tuple[Tensor, Tensor, Tensor]:
        s, y, pair = super()._differences(v, fv, state, slot)
        for history in (s, y):
            history[:, slot] = history[:, slot].to(self.kept)
        pair[:, 0] = y[:, slot]
        return s, y, pair


@dataclass(frozen=True)
class RoundedBroyden(jiio.Broyden):
    """Broyden's method whose new factors are rounded to ``kept`` once they have been used."""

    kept: torch.dtype = torch.float32

    def step(self, v: Tensor, fv: Tensor, state: Any) -> tuple[Tensor, Any]:
        following, after = super().step(v, fv, state)
        for factors in (after.u, after.w):
            factors.copy_(factors.to(self.kept))
        return following, after


SOLVERS = {"Anderson": RoundedAnderson, "Broyden": RoundedBroyden}


def measure(problem: str, solver: str, kept: str, seed: int, batch: int) -> Row:
    """One solve."""
    method = SOLVERS[solver](kept=TYPES[kept])
    options: dict[str, Any] = {"solver": method, "adjoint": jiio.Detached(), "tolerance": CLOSE, "max_steps": 400}
    options["on_failure"] = "ignore"

    # Forward passes of small networks, and the joint solves of the other benchmark.
    if problem == "forward pass":
        torch.manual_seed(seed)
        model = classifier("tiny", image=(1, 16, 16), classes=10).eval().requires_grad_(False)
        with torch.no_grad():
            solution = model.solve(torch.rand(batch, 1, 16, 16), **options)
    elif problem == "forward pass, dense":
        torch.manual_seed(seed)
        model = classifier(DenseConfig(96, gain=1.5), image=(1, 16, 16), classes=10).eval().requires_grad_(False)
        with torch.no_grad():
            solution = model.solve(torch.rand(batch, 1, 16, 16) * 3, **options)
    else:
        case = CASES[problem](seed, batch)
        solution = jiio.solve(case.problem, case.x0, **options)

    steps = solution.steps.double()
    return {
        "converged": float(solution.converged.double().mean()),
        "steps, median": float(steps.median()),
        "steps, most": float(steps.max()),
        "residual, worst": float(solution.residual.amax()),
    }


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Every problem, method, type and seed."""
    found = []
    for problem in ("forward pass", "forward pass, dense", *CASES):
        for solver in SOLVERS:
            for kept in TYPES:
                for seed in range(options.seeds):
                    key = f"{problem}/{solver}/{kept}/{seed}"
                    row = rows.each(key, measure, problem, solver, kept, seed, options.batch)
                    found.append({"problem": problem, "method": solver, "history": kept, "seed": seed, **row})
    show("Histories", over_seeds(found, "problem", "method", "history"))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "batch": 8})
    made.number("--batch", 16, "samples")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
