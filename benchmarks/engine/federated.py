"""Does a federation of equilibria need less traffic, and what do clients cost that can take few solver steps?

    JIIO_DATA=DIR python -m benchmarks.engine.federated --output federated.json      # about 15 minutes; --fast: 1

Needs the extra `federated`. Six clients share 2,000 images by a Dirichlet distribution of the classes. An equilibrium
(`--cell Dense`, or `Conv`, one convolutional block), all clients with the recipe's solver steps, or with 2 to 12 of
them, averaged by their examples or by their steps; beside it explicit networks of the same kind, of equal size and of
four times as many parameters, with the same training steps. Figures: accuracy of the averaged weights on test images
(the equilibrium solved in full) half way, at the end, and when as many megabytes had travelled as the smallest network
needs for half of its rounds; the megabytes of all rounds; and the processor seconds of a client in a round.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, say, show
from jiio.outputs.seeds import derive
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.federate.client import everybody
from jiio.tasks.federate.flower import gathered
from jiio.tasks.federate.plan import Federation
from jiio.tasks.federate.rounds import Rounds
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.load import build
from jiio.tasks.solving.networks import ReferenceConfig, nearest, reference

BUDGETS = (2, 2, 3, 6, 12, 12)
IMAGES = {"mnist": {"size": 14, "channels": 1}, "cifar10": {"size": 16, "channels": 3}}
CELLS = {"Dense": {"features": 64}, "Conv": {"channels": 16}}
ARMS = ("equilibrium", "budgets, by examples", "budgets, by steps", "explicit, equal size", "explicit, 4 x")


class Explicit(Classify):
    """The same training of an ordinary network of about ``parameters`` parameters."""

    parameters: int = 0

    def model(self) -> nn.Module:
        if self.config.model.cell.name == "Conv":
            return reference(ReferenceConfig(self.parameters), self.config.data.channels, 10)
        return nearest(ReferenceConfig(self.parameters), self.layers)

    def layers(self, width: int) -> nn.Module:
        """Two hidden layers, which is what one step of the dense equilibrium is."""
        pixels = math.prod(self.config.data.shape)
        hidden = (nn.Linear(pixels, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, 10))


def recipe(family: str, seed: int, options: argparse.Namespace) -> ClassifyConfig:
    """What everybody trains."""
    cell = {"name": options.cell, "options": CELLS[options.cell]}
    data = {"family": family, "batch_size": 16, "train_limit": options.images, "test_limit": 500, **IMAGES[family]}
    model = {"cell": cell, "max_steps": 12, "atol": 1e-4, "rtol": 1e-2}
    values = {"task": "classify", "seed": seed, "threads": 1, "data": data, "model": model}
    return build(ClassifyConfig, values | {"optimiser": {"rate": options.rate, "warmup": 3}})


def task_of(arm: str, config: ClassifyConfig, options: argparse.Namespace) -> Classify:
    """The equilibrium, or an explicit network of its size or four times that."""
    if not arm.startswith("explicit"):
        return Classify(config, data_root=options.data_root)
    task = Explicit(config, data_root=options.data_root)
    task.parameters = size(config.build()) * (4 if arm.endswith("4 x") else 1)
    return task


def size(model: nn.Module) -> int:
    """Its parameters."""
    return sum(p.numel() for p in model.parameters())


def plan_of(arm: str, options: argparse.Namespace) -> Federation:
    """Who trains it, and how it is averaged."""
    told: Row = {"clients": 6, "rounds": options.rounds, "local_steps": options.local_steps, "alpha": options.alpha}
    if arm.startswith("budgets"):
        told["budgets"] = BUDGETS
    if arm.endswith("by steps"):
        told["weighting"] = Choice("IterationAware")
    return Federation(**told)


def one_run(family: str, arm: str, seed: int, options: argparse.Namespace) -> Row:
    """The course of one federation: accuracy in per cent and megabytes of all rounds so far, where it was measured."""
    plan = plan_of(arm, options)
    config = plan.course(recipe(family, seed, options))
    assert isinstance(config, ClassifyConfig)
    task = task_of(arm, config, options)
    torch.manual_seed(derive(seed, "model"))

    # All clients in this process, one after the other: the same weights as over gRPC, and seconds that mean something.
    rounds = Rounds(plan, config, task, task.model(), report=say, evaluate_every=options.every)
    course: list[Row] = []
    rounds.run(gathered(everybody(plan, config, task), plan.digest(config)), 0, lambda number, row: course.append(row))
    seen = [row for row in course if "accuracy" in row]
    return {
        "parameters": size(rounds.model),
        "rounds": [row["round"] for row in seen],
        "accuracy": [100 * row["accuracy"] for row in seen],
        "megabytes": [row["megabytes"] for row in seen],
        "client_seconds": [row["client_seconds"] for row in course],
    }


def summary(family: str, arm: str, seed: int, found: Row, least: float) -> Row:
    """One line of the table. least: megabytes at which all are compared."""
    early = [a for a, m in zip(found["accuracy"], found["megabytes"], strict=True) if m <= least * 1.01]
    half = len(found["accuracy"]) // 2 - 1
    return {
        "arm": f"{family}: {arm}",
        "seed": seed,
        "parameters": found["parameters"],
        "half way": found["accuracy"][max(half, 0)],
        "end": found["accuracy"][-1],
        "equal traffic": early[-1] if early else float("nan"),
        "megabytes": found["megabytes"][-1],
        "client s a round": sum(found["client_seconds"]) / len(found["client_seconds"]),
    }


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All sets, arms and seeds."""
    for family in options.sets:
        found: dict[tuple[str, int], Any] = {}
        for seed in range(options.seeds):
            for arm in ARMS:
                key = f"{family} {arm} {seed}"
                found[arm, seed] = rows.each(key, one_run, family, arm, seed, options)

        # Compared where the leanest arm is half way, so that every arm has measured on both sides of it.
        least = min(one["megabytes"][-1] for one in found.values()) / 2
        lines = [summary(family, arm, seed, one, least) for (arm, seed), one in found.items()]
        title = f"{family}, {options.seeds} seed(s), equal traffic: {least:.1f} MB; median (range)"
        show(title, over_seeds(lines, "arm"))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "rounds": 2, "local_steps": 2, "images": 300})
    made.number("--rounds", 16, "of averaging")
    made.number("--local-steps", 8, "training steps of a client in a round")
    made.number("--images", 2000, "to train on")
    made.number("--every", 2, "rounds between two measurements")
    made.seconds("--rate", 0.004, "learning rate")
    made.seconds("--alpha", 0.3, "of the Dirichlet distribution")
    made.add_argument("--cell", choices=list(CELLS), default="Dense", help="of the equilibrium (default Dense)")
    made.chosen("--sets", tuple(IMAGES), tuple(IMAGES), "images")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
