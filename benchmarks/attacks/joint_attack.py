"""The joint attack against PGD through a converged implicit gradient, on trained multiscale equilibrium networks.

    JIIO_DATA=DIR python -m benchmarks.attacks.joint_attack --cache FOLDER --output joint_attack.json
    # about an hour, most of it training; --fast: 3 minutes

For MNIST and CIFAR-10, L2 and Linf: PGD-20 and PGD-50, each with every solve from a cold start and from the last state,
and the joint attack. What counts is the same for all: the prediction at a fresh equilibrium. Costs are those of the
attack with its verification: evaluations of the cell and vector-Jacobian products per batch, seconds of the processor.
Every example is checked to be inside ball and bounds to rounding.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show
from benchmarks.trainings import classifier
from jiio import attacks
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.load import build

CELL = {"expansion": 2, "halvings": 1, "groups": 4, "fusion_groups": 4, "final_channels": 64}
SETS: dict[str, dict[str, Any]] = {
    "mnist": {
        "data": {"family": "mnist", "size": 28, "batch_size": 64},
        "cell": {"channels": [8, 16], "head_channels": [4, 8]} | CELL,
        "warm": 500,
        "threats": (("l2", 1.0), ("linf", 0.1)),
    },
    "cifar10": {
        "data": {"family": "cifar10", "size": 32, "channels": 3, "batch_size": 64, "mirror": True, "shift": 2},
        "cell": {"channels": [16, 32], "head_channels": [8, 16]} | CELL,
        "warm": 1500,
        "threats": (("l2", 0.25), ("linf", 2 / 255)),
    },
}
STEPS = 120  # of the equilibrium, after the warm ones
PGD = {
    f"PGD-{steps}, {'warm' if warm else 'cold'}": attacks.PGD(steps=steps, warm=warm, objective=attacks.Margin())
    for steps in (20, 50)
    for warm in (False, True)
}
JOINT = {
    "joint, 40 steps": attacks.JointAttack(steps=40, objective=attacks.Margin()),
    "joint, 80 steps": attacks.JointAttack(steps=80, objective=attacks.Margin()),
    "joint, 80 steps, 5 starts": attacks.JointAttack(steps=80, restarts=5, objective=attacks.Margin()),
}
BASE = "PGD-20, cold"


def trained(name: str, options: argparse.Namespace) -> tuple[Classify, jiio.EquilibriumModel]:
    """The network, trained without a defence: first five layers of the same weights, then the equilibrium."""
    chosen = SETS[name]
    warm = 4 if options.fast else chosen["warm"]
    values = {
        "output": str(options.cache / name),
        # As layers first, which is cheaper; then as what is attacked, so that its equilibria are good ones.
        "steps": warm + (4 if options.fast else STEPS),
        "threads": options.threads,
        "warm": {"steps": warm, "layers": 5},
        "data": chosen["data"] | {"train_limit": 10_000, "test_limit": options.samples},
        "model": {"cell": {"name": "Multiscale", "options": chosen["cell"]}},
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


def attacked(ready: Callable, name: str, threat: attacks.ThreatModel, one: Any) -> Row:
    """One attack on the network of one set, which is trained when its first row is asked for."""
    task, model = ready(name)
    return measure(task, model, threat, one)


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Every attack on the network of every set."""
    ready = cache(lambda name: trained(name, options))
    found = []
    for name in options.sets:
        for norm, radius in SETS[name]["threats"]:
            threat = attacks.ThreatModel(norm, radius)
            for label, one in (JOINT | PGD).items():
                head = {"set": name, "norm": norm, "radius": radius, "attack": label}
                figures = rows.each(f"{name}/{norm}/{label}", attacked, ready, name, threat, one)
                found.append(head | figures)
    show("Attacks on equilibrium networks", [compared(row, found) for row in found])


def compared(row: Row, rows: list[Row]) -> Row:
    """A line of the table, with costs relative to PGD-20 from cold starts."""
    same = [r for r in rows if (r["set"], r["norm"], r["attack"]) == (row["set"], row["norm"], BASE)]
    line = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in row.items()}
    line["fewer calls"] = f"{calls(same[0]) / calls(row):.1f}"
    return line | {"faster": f"{same[0]['seconds'] / row['seconds']:.1f}"}


def calls(row: Row) -> float:
    """Evaluations and vector-Jacobian products."""
    return row["evaluations"] + row["VJPs"]


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=1, fast={"samples": 4, "sets": ["mnist"]})
    made.chosen("--sets", list(SETS), list(SETS), "data sets")
    made.number("--samples", 64, "test images")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
