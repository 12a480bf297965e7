"""Adversaries in the space of embeddings: the joint solve against PGD through the converged implicit gradient.

    strength   on a model trained without one: the surprise (nats per token) that each adversary reaches at the same
               radius, at equilibria solved anew and tightly, and the evaluations and VJPs it took. PGD has the best
               of two step lengths and starts every solve at the last equilibrium
    training   the same steps on the same small text without an adversary, with PGD and with the joint one:
               perplexity of held-out text as it is, and after adversaries that are stronger than those of the training

Rows that stand in the folder of --cache are not computed again, so an interrupted run is continued by the same command.

    python benchmarks/embedding_adversary.py --cache FOLDER
    JIIO_DATA=DIR python benchmarks/embedding_adversary.py --family ptb --cache FOLDER
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import harness
import torch

import jiio
from jiio.models import TransformerModel
from jiio.outputs.seeds import derive
from jiio.tasks.frame.load import build
from jiio.tasks.frame.loop import build_optimiser, training_step
from jiio.tasks.language.adversaries import AbstractAdversary, JointAdversary, PGDAdversary, Unperturbed
from jiio.tasks.language.config import LanguageConfig
from jiio.tasks.language.model import LanguageModel
from jiio.tasks.language.task import Language
from jiio.tasks.language.text import lay_out

TEXTS, SEGMENT = 16, 64  # of the comparison of strengths
TIGHT = jiio.Tolerance(1e-6, 1e-5)


def ways(radius: float) -> dict[str, list[AbstractAdversary]]:
    """The adversaries whose strength is compared; of several under one name the strongest counts."""
    made: dict[str, list[AbstractAdversary]] = {f"joint, {n}": [JointAdversary(radius, n)] for n in (6, 12, 20, 40)}
    for n in (1, 3, 10, 20):
        made[f"PGD-{n}"] = [PGDAdversary(radius, n), PGDAdversary(radius, n, 1.0)]
    return made


def trainings(radius: float) -> dict[str, list[dict[str, Any]]]:
    """What stands under ``adversary`` in the configuration of each training."""
    return {
        "none": [],
        "PGD-3": [{"name": "PGDAdversary", "options": {"radius": radius, "steps": 3}}],
        "joint, 12": [{"name": "JointAdversary", "options": {"radius": radius, "steps": 12}}],
    }


def trained(options: argparse.Namespace, adversary: list[dict[str, Any]], seed: int) -> tuple[Language, LanguageModel]:
    """The task, and the model after its training."""
    data = {"family": options.family, "batch_size": 8, "train_limit": options.train, "valid_limit": options.valid}
    values = {"seed": seed, "steps": options.steps, "data": data, "model": {"inner": 256}, "adversary": adversary}
    values["optimiser"] = {"rate": 0.004, "warmup": max(1, options.steps // 12), "clip": 0.5}
    config = build(LanguageConfig, values)
    task = Language(config, data_root=options.data_root)
    torch.manual_seed(derive(seed, "model"))
    model = task.model().train()
    assert isinstance(model, LanguageModel)
    optimiser = build_optimiser(model, config.optimiser)
    for step in range(options.steps):
        training_step(config, task, model, optimiser, step)
    return task, model.eval()


def strengths(task: Language, model: LanguageModel, radius: float) -> harness.Row:
    """Of every adversary, on the second segment of a few held-out texts."""
    body = model.body
    assert isinstance(body, TransformerModel)
    laid = lay_out(task.vocabulary.encode(task.text)[: TEXTS * (2 * SEGMENT + 1)], TEXTS)
    targets = laid[:, SEGMENT + 1 :]
    with torch.no_grad():
        memory = model.read(laid[:, :SEGMENT], None).memory
        x = model.embed(laid[:, SEGMENT:-1])

    @torch.no_grad()
    def surprise(point: torch.Tensor) -> float:
        solution = body.at(memory).solve(point, tolerance=TIGHT, max_steps=200, on_failure="ignore")
        return float(body.tokens.surprise(body.last(solution.z), targets).mean())

    rows = {"none": {"nats": surprise(x), "calls": 0, "seconds": 0.0}}
    for name, adversaries in ways(radius).items():
        tried = []
        for adversary in adversaries:
            begin = time.process_time()
            found = adversary.find(model.body, x, memory, targets)
            seconds = time.process_time() - begin
            tried.append({"nats": surprise(found.x), "calls": found.evaluations + found.vjps, "seconds": seconds})
        rows[name] = max(tried, key=lambda row: row["nats"])
    return rows


def row_of(options: argparse.Namespace, name: str, seed: int) -> harness.Row:
    """One training, and what its model is worth; without an adversary also the strengths."""
    begin = time.process_time()
    task, model = trained(options, trainings(options.radius)[name], seed)
    row: harness.Row = {"training seconds": time.process_time() - begin}
    judges = {
        "as it is": Unperturbed(),
        "PGD-10": PGDAdversary(options.radius, 10),
        "joint, 40": JointAdversary(options.radius, 40),
    }
    for judge, adversary in judges.items():
        row[judge] = task.measured(model, adversary)["perplexity per character"]
    if name == "none":
        row["strength"] = {f"{radius:g}": strengths(task, model, radius) for radius in (0.1, 0.3)}
    harness.say(f"{name}, seed {seed}: {row}")
    return row


def run(options: argparse.Namespace) -> harness.Row:
    if options.fast:
        options.steps, options.valid, options.train = 10, 600, 4000
    names = tuple(trainings(options.radius))
    about = f"{options.family.replace('/', '_')}-{options.train}-{options.steps}-{options.valid}-{options.radius:g}"
    rows: dict[str, list[harness.Row]] = {name: [] for name in names}
    for seed in range(options.seeds):
        for name in names:
            key = f"{about}-{name.replace(', ', '-')}-{seed}"
            rows[name].append(
                harness.kept(options.cache, key, lambda name=name, seed=seed: row_of(options, name, seed))
            )
    for radius in ("0.1", "0.3"):
        found = [row["strength"][radius] for row in rows["none"]]
        harness.show(
            f"Surprise reached, radius {radius} of the mean length: median (lowest to highest seed)",
            [
                {"adversary": way} | {key: harness.spread([row[way][key] for row in found]) for key in found[0][way]}
                for way in found[0]
            ],
        )
    keys = [key for key in rows[names[0]][0] if key != "strength"]
    harness.show(
        f"Perplexity per character of held-out text, after adversaries of radius {options.radius:g}",
        [
            {"trained with": name} | {key: harness.spread([r[key] for r in rows[name]], 4) for key in keys}
            for name in names
        ],
    )
    return {"rows": rows}


if __name__ == "__main__":
    made = harness.parser(__doc__, seeds=3)
    made.add_argument("--family", default="python-docs", help="the text, by characters (default python-docs)")
    made.add_argument("--steps", type=harness.positive, default=120, help="training steps (default 120)")
    made.add_argument("--train", type=harness.positive, default=10_000, help="training characters (default 10000)")
    made.add_argument("--valid", type=harness.positive, default=2000, help="held-out characters (default 2000)")
    made.add_argument(
        "--radius", type=float, default=0.1, help="of the trainings, share of the mean length (default 0.1)"
    )
    sys.exit(harness.main(made, run))
