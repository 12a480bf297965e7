"""What is the descent guard for? A joint attack with it and without, by either type of Anderson's method.

    JIIO_DATA=DIR python -m benchmarks.engine.guard --output guard.json    # about 3 minutes; --fast: 20 seconds

Acceleration is drawn to any stationary point, and an image that is classified confidently is nearly one. The guard
takes the plain step wherever the accelerated one would move the input uphill. There is no option that leaves it out;
here it is taken out of the engine. MNIST at 14 x 14, a dense network of 64 units, 200 steps of training; L2 balls of
two radii; cross-entropy at an equilibrium solved anew, in the mean over the images (higher is stronger), after 40 joint
steps, and by PGD with the converged implicit gradient and 100 steps, every solve to the tolerance of the network.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

import jiio
from benchmarks.attacks.digits import digits
from benchmarks.harness import Parser, above_zero, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from benchmarks.trainings import classifier
from jiio import attacks
from jiio.operators import JointMap
from jiio.tasks.classify.networks import NetworkConfig
from jiio.tasks.classify.task import Classify
from jiio.tasks.frame.choices import Choice

RADII = (0.5, 1.0)
Kind = Literal["II", "I", "PGD-100"]
KINDS: tuple[Kind, ...] = ("II", "I")
PGD: Kind = "PGD-100"


@contextmanager
def unguarded() -> Iterator[None]:
    """The engine without its guard."""

    def onward(operator: JointMap, v: Tensor, following: Tensor, point: Any) -> Tensor:
        return following

    with patch.object(JointMap, "descend", onward):
        yield


def trained(seed: int, options: argparse.Namespace) -> tuple[Classify, jiio.EquilibriumModel]:
    """The network that is attacked."""
    dense = NetworkConfig(Choice("Dense", {"features": 64, "gain": 0.7}))
    config = digits(
        options.cache / f"guard-{seed}", dense, seed=seed, steps=options.steps, test=options.samples, threads=1
    )
    return Classify(config, data_root=options.data_root), classifier(config, options.data_root)


def attack(kind: Kind, rate: float, steps: int) -> attacks.AbstractAttack:
    """By its name, or by the type of acceleration."""
    loss = attacks.CrossEntropy()
    if kind == PGD:
        return attacks.PGD(steps=100, objective=loss)
    solver, rule = jiio.Anderson(memory=10, kind=kind), jiio.GradientStep(rate)
    return attacks.JointAttack(steps=steps, objective=loss, rule=rule, solver=solver)


def reached(ready: Any, seed: int, radius: float, one: attacks.AbstractAttack) -> Row:
    """What an attack makes of the test images."""
    task, model = ready(seed)
    x, y = task.data.test, task.data.test_labels
    threat = attacks.ThreatModel("l2", radius)
    result = one(attacks.Target(model), x, y, threat, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = float(F.cross_entropy(model(result.x), y))
    return {"loss": loss, "robust %": 100 * float((~result.success).float().mean()), **result.cost}


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Every attack at every radius."""
    ready = cache(lambda seed: trained(seed, options))
    found = []
    for seed, radius in itertools.product(range(options.seeds), RADII):
        head = {"radius": radius, "seed": seed}
        key = f"{radius}/{seed}"
        found.append(
            head | {"attack": PGD} | rows.each(f"{PGD}/{key}", reached, ready, seed, radius, attack(PGD, 0.0, 0))
        )
        for kind in KINDS:
            for rate in options.rates:
                one, name = attack(kind, rate, options.attack_steps), f"type {kind}, rate {rate:g}"
                with unguarded():
                    bare = rows.each(f"{name}, no guard/{key}", reached, ready, seed, radius, one)
                kept = rows.each(f"{name}, guard/{key}", reached, ready, seed, radius, one)
                found += [head | {"attack": f"{name}, no guard"} | bare, head | {"attack": f"{name}, guard"} | kept]
    show("Cross-entropy reached", over_seeds(found, "radius", "attack"))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"samples": 20, "seeds": 1, "steps": 40})
    made.number("--samples", 100, "test images")
    made.number("--steps", 200, "training steps")
    made.number("--attack-steps", 40, "joint steps")
    made.add_argument("--rates", type=above_zero, nargs="+", default=[1.0, 0.3], help="of the input (default 1 0.3)")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
