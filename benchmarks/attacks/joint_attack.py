"""The joint attack against gradient attacks that know the same tricks, on trained equilibrium networks.

    JIIO_DATA=DIR python -m benchmarks.attacks.joint_attack --cache FOLDER --output joint_attack.json
    # hours for everything, most of it attacks to full tolerance; --fast: 3 minutes

For MNIST and CIFAR-10, multiscale and (in Linf) small dense and convolutional ones, a few of each: the joint attack;
PGD and Auto-PGD with solves that start at the last state and stop early (rtol 3e-2, at most 8 steps: what a careful
user would do); and PGD with every solve to the tolerance of the model. What counts is the same for all: the prediction
at a fresh equilibrium. Costs are those of the attack with its verification: evaluations of the cell and vector-Jacobian
products per batch, seconds of the processor. "fewer calls" is relative to the loose warm PGD-20. Every example is
checked to be inside ball and bounds to rounding.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from benchmarks.trainings import classifier
from jiio import attacks
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.load import build

LARGE = {"expansion": 2, "halvings": 1, "groups": 4, "fusion_groups": 4, "final_channels": 64}


def multiscale(channels: list[int], heads: list[int]) -> dict[str, Any]:
    """A cell of these widths, as a configuration has it."""
    return {"name": "Multiscale", "options": {"channels": channels, "head_channels": heads} | LARGE}


def convolutional(channels: int, halvings: int) -> dict[str, Any]:
    """A cell of one map at a half or a quarter of the size of the images: minutes of training."""
    return {"name": "Conv", "options": {"channels": channels, "head_channels": [8], "halvings": halvings}}


DIGITS = {"family": "mnist", "size": 28, "batch_size": 64}
COLOURS = {"family": "cifar10", "size": 32, "channels": 3, "batch_size": 64, "mirror": True, "shift": 2}
SETS: dict[str, dict[str, Any]] = {
    "mnist-dense": {
        "data": DIGITS,
        "model": {"name": "Dense", "options": {"features": 64, "gain": 0.7}},
        "warm": 0,
        "steps": 300,
        "threats": (("linf", 0.1),),
    },
    "mnist-conv": {
        "data": DIGITS,
        "model": convolutional(16, 1),
        "warm": 150,
        "steps": 40,
        "threats": (("linf", 0.1),),
    },
    "mnist": {
        "data": DIGITS,
        "model": multiscale([8, 16], [4, 8]),
        "warm": 500,
        "threats": (("l2", 1.0), ("linf", 0.1)),
    },
    "cifar10-dense": {
        "data": COLOURS,
        "model": {"name": "Dense", "options": {"features": 64, "gain": 0.7}},
        "warm": 0,
        "steps": 300,
        "threats": (("linf", 2 / 255),),
    },
    "cifar10-conv": {
        "data": COLOURS,
        "model": convolutional(24, 2),
        "warm": 200,
        "steps": 25,
        "threats": (("linf", 2 / 255),),
    },
    "cifar10": {
        "data": COLOURS,
        "model": multiscale([16, 32], [8, 16]),
        "warm": 600,
        "threats": (("l2", 0.25), ("linf", 2 / 255)),
    },
}
STEPS = 120  # of the equilibrium, after the warm ones
MARGIN = attacks.Margin()
LOOSE: dict[str, Any] = {"warm": True, "tolerance": 3e-2, "objective": MARGIN}
BASE = "PGD-20, warm, loose"
EUCLID: dict[str, Any] = {"rule": jiio.GradientStep(), "solver": jiio.Anderson(), "objective": MARGIN}
ATTACKS: dict[str, Any] = {
    "joint, 40 steps": attacks.JointAttack(steps=40, objective=MARGIN),
    "joint, 80 steps": attacks.JointAttack(steps=80, objective=MARGIN),
    "joint, 80 gradient steps": attacks.JointAttack(steps=80, **EUCLID),  # the rule of the other norms, in Linf too
    "joint, 80 steps, 5 starts": attacks.JointAttack(steps=80, restarts=5, objective=MARGIN),
    BASE: attacks.PGD(steps=20, **LOOSE),
    "PGD-50, warm, loose": attacks.PGD(steps=50, **LOOSE),
    "APGD-25, warm, loose": attacks.APGD(steps=25, **LOOSE),
    "APGD-50, warm, loose": attacks.APGD(steps=50, **LOOSE),
} | {
    f"PGD-{steps}, {'warm' if warm else 'cold'}": attacks.PGD(steps=steps, warm=warm, objective=MARGIN)
    for steps in (20, 50)
    for warm in (True, False)
}


def trained(name: str, seed: int, options: argparse.Namespace) -> tuple[Classify, jiio.EquilibriumModel]:
    """The network, trained without a defence: first five layers of the same weights, then the equilibrium."""
    chosen = SETS[name]
    warm = min(4, chosen["warm"]) if options.fast else chosen["warm"]
    values = {
        "output": str(options.cache / f"{name}-{seed}"),
        "seed": seed,
        # As layers first, which is cheaper; then as what is attacked, so that its equilibria are good ones.
        "steps": warm + (4 if options.fast else chosen.get("steps", STEPS)),
        "threads": options.threads,
        "warm": {"steps": warm, "layers": 5},
        "data": chosen["data"] | {"train_limit": 10_000, "test_limit": options.samples},
        "model": {"cell": chosen["model"]},
        "defence": [{"name": "JacobianPenalty", "options": {"weight": 0.5}}],
        "optimiser": {"rate": 0.004, "warmup": 2},
    }

    config = build(ClassifyConfig, values)
    model = classifier(config, options.data_root)
    return Classify(config, data_root=options.data_root), model


def measure(task: Classify, model: jiio.EquilibriumModel, threat: attacks.ThreatModel, one: Any) -> Row:
    """One attack on the first test images, as one batch."""
    x, y = task.data.test, task.data.test_labels
    target = attacks.Target(model)
    begin = time.process_time()
    result = one(target, x, y, threat, generator=torch.Generator().manual_seed(0))
    seconds = time.process_time() - begin

    # Robust is what the attack could not break *and* whose equilibrium was found; the rest is told beside it.
    robust = ~result.success & result.settled
    return {
        "samples": len(x),
        "clean %": 100 * float((result.clean_margin <= 0).float().mean()),
        "robust %": 100 * float(robust.float().mean()),
        "unsettled": int((~result.success & ~result.settled).sum()),
        "mean margin": float(result.margin.mean()),
        "evaluations": result.cost["evaluations"],
        "VJPs": result.cost["vjps"],
        "seconds": seconds,
        "outside": int((threat.violation(result.x, x) > threat.slack(x)).sum()),
    }


def attacked(ready: Callable, name: str, seed: int, threat: attacks.ThreatModel, one: Any) -> Row:
    """One attack on one network of one set, which is trained when its first row is asked for."""
    task, model = ready(name, seed)
    return measure(task, model, threat, one)


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Every attack on every network of every set."""
    ready = cache(lambda name, seed: trained(name, seed, options))
    cases = [(name, *threat) for name in options.sets for threat in SETS[name]["threats"] if threat[0] in options.norms]
    found = []
    for name, norm, radius in cases:
        threat = attacks.ThreatModel(norm, radius)
        for label, seed in itertools.product(options.attacks, range(options.seeds)):
            head = {"set": name, "norm": norm, "radius": radius, "attack": label, "seed": seed}
            key = f"{name}/{norm}/{label}/{seed}"
            found.append(head | rows.each(key, attacked, ready, name, seed, threat, ATTACKS[label]))
    lines = over_seeds([compared(row, found) for row in found], "set", "norm", "radius", "attack")
    show("Attacks on equilibrium networks", lines)


def compared(row: Row, rows: list[Row]) -> Row:
    """A row, with its cost relative to the loose warm PGD-20 on the same network, where that was run."""
    names = ("set", "norm", "seed")
    same = [r for r in rows if r["attack"] == BASE and all(r[name] == row[name] for name in names)]
    return row | {"calls": calls(row), "fewer calls": calls(same[0]) / calls(row) if same else math.nan}


def calls(row: Row) -> float:
    """Evaluations and vector-Jacobian products."""
    return row["evaluations"] + row["VJPs"]


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"samples": 4, "sets": ["mnist"], "seeds": 1})
    made.chosen("--sets", list(SETS), list(SETS), "data sets")
    made.chosen("--norms", ["l2", "linf"], ["l2", "linf"], "norms")
    made.chosen("--attacks", list(ATTACKS), list(ATTACKS), "attacks")
    made.number("--samples", 256, "test images, one batch")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
