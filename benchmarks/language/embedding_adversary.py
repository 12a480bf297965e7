"""Adversaries in the space of embeddings: the joint solve against PGD through the converged implicit gradient.

python -m benchmarks.language.embedding_adversary --output embeddings.json
JIIO_DATA=DIR python -m benchmarks.language.embedding_adversary --family ptb --output embeddings.json
# about 30 minutes; --fast: 2

strength   on a model trained without one: the surprise (nats per token) that each adversary reaches at the same
           radius, at equilibria solved anew and tightly, and the evaluations and VJPs it took. PGD has the best
           of two step lengths and starts every solve at the last equilibrium
training   the same steps on the same small text without an adversary, with PGD and with the joint one:
           perplexity of held-out text as it is, and after adversaries that are stronger than those of the training
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from benchmarks.trainings import by_steps
from jiio.models import TransformerModel
from jiio.tasks.frame.load import build
from jiio.tasks.language.adversaries import AbstractAdversary, JointAdversary, PGDAdversary, Unperturbed
from jiio.tasks.language.config import LanguageConfig
from jiio.tasks.language.model import LanguageModel
from jiio.tasks.language.task import Language
from jiio.tasks.language.text import lay_out

RADII = (0.1, 0.3)  # of the strengths, shares of the mean length
TEXTS, SEGMENT = 16, 64  # of the comparison of strengths
TIGHT = jiio.Tolerance(1e-6, 1e-5)


def ways(radius: float) -> dict[str, list[AbstractAdversary]]:
    """The adversaries whose strength is compared; of several under one name the strongest counts."""
    made: dict[str, list[AbstractAdversary]] = {f"joint, {n}": [JointAdversary(radius, n)] for n in (6, 12, 20, 40)}
    for n in (1, 3, 10, 20):
        made[f"PGD-{n}"] = [PGDAdversary(radius, n), PGDAdversary(radius, n, 1.0)]
    return made


def defences(radius: float) -> dict[str, list[dict[str, Any]]]:
    """What stands under ``adversary`` in the configuration of each training."""
    return {
        "none": [],
        "PGD-3": [{"name": "PGDAdversary", "options": {"radius": radius, "steps": 3}}],
        "joint, 12": [{"name": "JointAdversary", "options": {"radius": radius, "steps": 12}}],
    }


def trained(
    options: argparse.Namespace, adversary: list[dict[str, Any]], seed: int
) -> tuple[Language, LanguageModel, float]:
    """The task, the model after its training, and the processor seconds of that."""
    data = {"family": options.family, "batch_size": 8, "train_limit": options.train, "valid_limit": options.valid}
    values = {"seed": seed, "steps": options.steps, "data": data, "model": {"inner": 256}, "adversary": adversary}
    values["optimiser"] = {"rate": 0.004, "warmup": max(1, options.steps // 12), "clip": 0.5}
    task = Language(build(LanguageConfig, values), data_root=options.data_root)
    model, seconds = by_steps(task)
    assert isinstance(model, LanguageModel)
    return task, model, seconds


def strengths(task: Language, model: LanguageModel, radius: float) -> Row:
    """Of every adversary, on the second segment of a few held-out texts."""
    body = model.body
    assert isinstance(body, TransformerModel)
    laid = lay_out(task.vocabulary.encode(task.text)[: TEXTS * (2 * SEGMENT + 1)], TEXTS)
    targets = laid[:, SEGMENT + 1 :]
    with torch.no_grad():
        memory = model.read(laid[:, :SEGMENT], None).memory
        x = model.embed(laid[:, SEGMENT:-1])  # (TEXTS, SEGMENT, width)

    @torch.no_grad()
    def surprise(point: torch.Tensor) -> float:
        # Solved anew and tightly: no adversary is credited for a state that has not arrived.
        solution = body.at(memory).solve(point, tolerance=TIGHT, max_steps=200, on_failure="ignore")
        return float(body.tokens.surprise(body.last(solution.z), targets).mean())

    rows: Row = {"none": {"nats": surprise(x), "calls": 0, "seconds": 0.0}}
    for name, adversaries in ways(radius).items():
        tried = []
        for adversary in adversaries:
            begin = time.process_time()
            found = adversary.find(model.body, x, memory, targets)
            seconds = time.process_time() - begin
            tried.append({"nats": surprise(found.x), "calls": found.evaluations + found.vjps, "seconds": seconds})
        rows[name] = max(tried, key=lambda row: row["nats"])
    return rows


def row_of(name: str, seed: int, options: argparse.Namespace) -> Row:
    """One training, and what its model is worth; without an adversary also the strengths."""
    task, model, seconds = trained(options, defences(options.radius)[name], seed)
    row: Row = {"trained with": name, "training seconds": seconds}
    judges = {
        "as it is": Unperturbed(),
        "PGD-10": PGDAdversary(options.radius, 10),
        "joint, 40": JointAdversary(options.radius, 40),
    }
    for judge, adversary in judges.items():
        row[judge] = task.measured(model, adversary)["perplexity per character"]
    if name == "none":
        row["strength"] = {f"{radius:g}": strengths(task, model, radius) for radius in RADII}
    return row


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All trainings of one seed, then the next seed."""
    names = tuple(defences(options.radius))
    found = [
        rows.each(f"{name}/{seed}", row_of, name, seed, options) for seed in range(options.seeds) for name in names
    ]

    for radius in (f"{radius:g}" for radius in RADII):
        reached = [row["strength"][radius] for row in found if "strength" in row]
        lines = [{"adversary": way} | figures for row in reached for way, figures in row.items()]
        title = f"Surprise reached, radius {radius} of the mean length: median (lowest to highest seed)"
        show(title, over_seeds(lines, "adversary"))
    title = f"Perplexity per character of held-out text, after adversaries of radius {options.radius:g}"
    show(title, over_seeds(found, "trained with", digits=4))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "steps": 10, "valid": 600, "train": 4000})
    made.add_argument("--family", default="python-docs", help="the text, by characters (default python-docs)")
    made.number("--steps", 120, "training steps")
    made.number("--train", 10_000, "training characters")
    made.number("--valid", 2000, "held-out characters")
    made.seconds("--radius", 0.1, "of the trainings, share of the mean length")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
