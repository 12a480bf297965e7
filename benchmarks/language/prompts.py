"""Soft prompts for a trained language model, jointly and nested.

    JIIO_DATA=DIR python -m benchmarks.language.prompts --model runs/language-default --targets 1 --output prompts.json
    # about 2 minutes a target

Evaluations (cell calls and VJPs) until the objective is within one per cent of what the joint solve ends at: of the
joint solve, its inputs measured at equilibria solved anew, and of Adam with an equilibrium and an adjoint solve per
step, at the best of two rates and two inner tolerances; and of the joint solve until it has converged.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show, spread
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.language.config import LanguageConfig
from jiio.tasks.language.model import LanguageModel
from jiio.tasks.language.prompt import RULE, TOLERANCE, PromptProblem, nested
from jiio.tasks.language.text import load_text

# Of the nested way, all tried, the cheapest counts.
RATES = (0.1, 0.3)
INNER = (1e-3, 1e-2)
PROMPT, TARGET = 4, 24
COSTS = ("joint, converged", "joint", "nested", "ratio", "joint seconds", "nested seconds")


SOLVE: dict[str, Any] = {"rule": RULE, "adjoint": jiio.Detached(), "tolerance": TOLERANCE, "max_steps": 300}
SOLVE |= {"on_failure": "ignore", "trace": "points"}


@dataclass(frozen=True)
class Text:
    """What every target needs: the model, held, and the tokens of the held-out text."""

    model: LanguageModel
    tokens: torch.Tensor


def read(path: Path, data_root: Path | None) -> tuple[Text, int]:
    """Of a checkpoint or the folder of a training; and the number of its steps."""
    checkpoint = load(path)
    assert isinstance(checkpoint.config, LanguageConfig)
    model = LanguageModel.of(checkpoint).requires_grad_(False)
    _, text = load_text(checkpoint.config.data, data_root=data_root)
    return Text(model, model.vocabulary().encode(text)), checkpoint.step


def prompt(text: Text, number: int) -> Row:
    """One target of the held-out text."""
    piece = text.tokens[1000 * number : 1000 * number + TARGET]
    problem = PromptProblem(text.model, piece, length=PROMPT, seed=number)
    begin = time.process_time()
    solution = jiio.solve(problem.problem(), problem.start, **SOLVE)
    row: Row = {"joint seconds": time.process_time() - begin, "joint, converged": solution.evaluations.total}
    state, first = problem.measure(solution.x), problem.measure(problem.start)
    # The goal: within one per cent of where the joint solve ends.
    goal = 1.01 * float(problem.objective(state, solution.x))

    # The inputs on the way, each at an equilibrium solved anew; four evaluations and VJPs measured the scales.
    assert solution.trace is not None
    way = torch.cat(solution.trace.x)
    near = problem.objective(problem.measure(way), way) <= goal
    row["joint"] = 4.0 + 2.0 * int(near.nonzero()[0]) if bool(near.any()) else math.inf
    row |= {"nats before": float(problem.surprise(first).mean()), "nats after": float(problem.surprise(state).mean())}

    # The nested way has the same goal, and its cheapest setting counts.
    row |= one_by_one(problem, goal)
    return row | {"ratio": row["nested"] / row["joint"]}


def one_by_one(problem: PromptProblem, goal: float) -> Row:
    """The cheapest nested way to the goal; infinite where none gets there."""
    ways = []
    for rate, rtol in itertools.product(RATES, INNER):
        begin = time.process_time()
        inner = jiio.Tolerance(atol=1e-2 * rtol, rtol=rtol)
        spent, values = nested(problem, rate=rate, steps=80, tolerance=inner, goal=goal)
        seconds = time.process_time() - begin
        there = float(values[-1]) <= goal
        ways.append((spent[-1] if there else math.inf, seconds if there else math.inf, f"{rate}, {rtol}"))

    cost, seconds, best = min(ways)
    return {"nested": cost, "nested seconds": seconds, "rate, tolerance": best}


def run(options: argparse.Namespace, rows: Rows) -> Row:
    """Other targets for every seed, one start each."""
    text, step = read(options.model, options.data_root)
    numbers = [range(seed * options.targets, (seed + 1) * options.targets) for seed in range(options.seeds)]
    found = [[rows.each(f"step {step}/{n}", prompt, text, n) for n in mine] for mine in numbers]

    # Nats are means over the targets of a seed; costs are those of all targets.
    line = {}
    for key in ("nats before", "nats after"):
        line[key] = spread([sum(row[key] for row in mine) / len(mine) for mine in found])
    line |= {key: spread([row[key] for mine in found for row in mine]) for key in COSTS}
    count = options.seeds * options.targets
    show(f"Soft prompts ({PROMPT} embeddings, {TARGET} tokens, {count} targets)", [line])
    return {"step": step}


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "targets": 1})
    made.add_argument("--model", type=Path, required=True, help="a checkpoint, or the folder of a training")
    made.number("--targets", 3, "soft prompts per seed")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
