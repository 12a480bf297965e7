"""The joint attack against PGD through a converged implicit gradient, on trained multiscale equilibrium networks.

For MNIST and CIFAR-10, L2 and Linf: PGD-20 and PGD-50, each with every solve from a cold start and from the last state,
and the joint attack. What counts is the same for all: the prediction at a fresh equilibrium. Costs are those of the
attack with its verification: evaluations of the cell and vector-Jacobian products per batch, seconds of the processor.
Every example is checked to be inside ball and bounds to rounding.

A run that was cut off goes on: trainings from their checkpoints in --cache, finished rows from --output.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from harness import Row, main, parser, plain, say, show

import jiio
from jiio import attacks
from jiio.checks import JiioError, fail
from jiio.outputs.atomic import write_whole
from jiio.tasks import train
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
    config = build(
        ClassifyConfig,
        {
            "output": str(options.cache / name),
            "steps": warm + (4 if options.fast else STEPS),
            "threads": options.threads,
            "warm": {"steps": warm, "layers": 5},
            "data": chosen["data"] | {"train_limit": 10_000, "test_limit": options.samples},
            "model": {"cell": {"name": "Multiscale", "options": chosen["cell"]}},
            "defence": [{"name": "JacobianPenalty", "options": {"weight": 0.5}}],
            "optimiser": {"rate": 0.004, "warmup": 2},
        },
    )
    done = train(config, resume=True, data_root=options.data_root, report=say)
    model = Classify.network(done).eval()
    assert isinstance(model, jiio.EquilibriumModel)
    return Classify(config, data_root=options.data_root), model


def measure(task: Classify, model: jiio.EquilibriumModel, threat: attacks.ThreatModel, one: Any) -> Row:
    """One attack on the first test images, as one batch."""
    x, y = task.data.test, task.data.test_labels
    target = attacks.Target(model)
    begin = time.process_time()
    result = one(target, x, y, threat, generator=torch.Generator().manual_seed(0))
    seconds = time.process_time() - begin
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


def run(options: argparse.Namespace) -> Row:
    if options.cache is None:
        fail("--cache", "a folder for the trainings", "none", "They can then be continued.", JiioError)
    rows: list[Row] = []
    settings = {"fast": options.fast, "samples": options.samples}
    if options.output is not None and options.output.exists():
        found = json.loads(options.output.read_text())
        if found.get("settings") != settings:
            fail("--output", "a file of the same settings", f"{options.output} of others", "Name another.", JiioError)
        rows = found["rows"]
    for name in options.sets:
        task, model = trained(name, options)
        for norm, radius in SETS[name]["threats"]:
            for label, one in (JOINT | PGD).items():
                if any((r["set"], r["norm"], r["attack"]) == (name, norm, label) for r in rows):
                    continue
                figures = measure(task, model, attacks.ThreatModel(norm, radius), one)
                rows.append({"set": name, "norm": norm, "radius": radius, "attack": label, **figures})
                say(json.dumps(plain(rows[-1])))
                if options.output is not None:
                    body = {"settings": settings, "rows": rows}
                    write_whole(Path(options.output), json.dumps(plain(body), indent=1).encode() + b"\n")
    show("Attacks on equilibrium networks", [compared(row, rows) for row in rows])
    return {"settings": settings, "rows": rows}


def compared(row: Row, rows: list[Row]) -> Row:
    """A line of the table, with costs relative to PGD-20 from cold starts."""
    same = [r for r in rows if (r["set"], r["norm"], r["attack"]) == (row["set"], row["norm"], BASE)]
    line = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in row.items()}
    if same:
        line["fewer calls"] = f"{calls(same[0]) / calls(row):.1f}"
        line["faster"] = f"{same[0]['seconds'] / row['seconds']:.1f}"
    return line


def calls(row: Row) -> float:
    """Evaluations and vector-Jacobian products."""
    return row["evaluations"] + row["VJPs"]


if __name__ == "__main__":
    made = parser(__doc__, seeds=1)
    made.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="data sets")
    made.add_argument("--samples", type=int, default=64, help="test images (default 64)")
    sys.exit(main(made, run))
