"""Adversarial training by the joint attack against PGD: what robust accuracy costs.

    JIIO_DATA=DIR python -m benchmarks.attacks.adversarial_training --cache FOLDER --output adversarial.json
    # MNIST 10 minutes a seed, CIFAR-10 an hour; --fast: 1 minute

Per data set (MNIST at L2 radius 1.0, CIFAR-10 at 0.5) and seed the same network is trained for the same number of
epochs without a defence, by PGD-10 through the converged implicit gradient, and by JointTraining; then each faces the
same attacks. On CIFAR-10 the network is a multiscale one, which every method takes over from the same training on clean
images, unrolled. Costs are those of a training step: evaluations of the cell, vector-Jacobian products, seconds of the
processor. Where the parts of a step are equal by construction (the pass that the weights learn from), they are included
on both sides.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import jiio
from benchmarks.harness import Parser, main, positive
from benchmarks.rows import Rows
from benchmarks.tables import Row, percent, say, show, spread
from benchmarks.trainings import classifier
from jiio import attacks
from jiio.tasks import train
from jiio.tasks.classify.data import in_batches
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.load import build

METHODS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "PGD-10": [{"name": "PGDTraining", "options": {"steps": 10}}],
    "PGD-10, warm": [{"name": "PGDTraining", "options": {"steps": 10, "warm": True}}],
    "PGD-10, warm, loose": [{"name": "PGDTraining", "options": {"steps": 10, "warm": True, "tolerance": 3e-2}}],
    "JIIO": [{"name": "JointTraining", "options": {}}],
}
SMALL = {"channels": [16, 32], "expansion": 2, "halvings": 1, "groups": 4, "fusion_groups": 4}
SMALL |= {"head_channels": [8, 16], "final_channels": 64}
SETS: dict[str, dict[str, Any]] = {
    "mnist": {
        "radius": 1.0,
        "data": {"family": "mnist", "size": 28, "batch_size": 128},
        "model": {"cell": {"name": "Dense", "options": {"features": 96}}},
        "images": 4000,
        "epochs": 4,
    },
    "cifar10": {
        "radius": 0.5,
        "data": {"family": "cifar10", "size": 32, "channels": 3, "batch_size": 64, "mirror": True, "shift": 2},
        "model": {"cell": {"name": "Multiscale", "options": SMALL}},
        "images": 4000,
        "epochs": 3,
        "rate": 0.002,
        "penalty": 0.5,
        "warm": 1500,
    },
}


def configuration(name: str, method: str, seed: int, options: argparse.Namespace) -> ClassifyConfig:
    """One training."""
    chosen = SETS[name]
    images, epochs = (640, 1) if options.fast else (chosen["images"], options.epochs or chosen["epochs"])
    batch = chosen["data"]["batch_size"]
    defence = [{**d, "options": {"radius": chosen["radius"], **d["options"]}} for d in METHODS[method]]
    if "penalty" in chosen:
        defence.append({"name": "JacobianPenalty", "options": {"weight": chosen["penalty"]}})

    values = {
        "output": str(options.cache / f"{name}-{method.replace(', ', '-')}-{seed}"),
        "seed": seed,
        "steps": max(3, epochs * images // batch),
        "threads": options.threads,
        "checkpoint_every": 20,
        "data": chosen["data"] | {"train_limit": images, "test_limit": options.samples},
        "model": chosen["model"],
        "defence": defence,
        "threat": {"norm": "l2", "radius": chosen["radius"]},
        "optimiser": {"rate": chosen.get("rate", 0.004), "warmup": 2},
    }
    # The multiscale network is taken over from one training on clean images, the same for every method.
    if "warm" in chosen:
        values["start"] = warmed(name, seed, options)
    return build(ClassifyConfig, values)


def warmed(name: str, seed: int, options: argparse.Namespace) -> str:
    """The folder of the training that every method goes on from: clean images, five layers of the same weights."""
    chosen = SETS[name]
    steps = 4 if options.fast else chosen["warm"]
    # No step of it is one of an equilibrium, so its steps and layers are all that is said of it.
    values = {
        "output": str(options.cache / f"{name}-warm-{seed}"),
        "seed": seed,
        "steps": steps,
        "threads": options.threads,
        "data": chosen["data"] | {"train_limit": 10_000, "test_limit": options.samples},
        "model": chosen["model"],
        "warm": {"steps": steps, "layers": 5},
        "optimiser": {"rate": 0.004, "warmup": 2},
    }

    train(build(ClassifyConfig, values), resume=True, data_root=options.data_root, report=say)
    return values["output"]


def suite(fast: bool) -> list[attacks.AbstractAttack]:
    """The joint attack and Auto-PGD, the strongest of the suite `deq` for these models, on every sample."""
    if fast:
        return [attacks.JointAttack(steps=30, objective=attacks.Margin())]
    return [
        attacks.JointAttack(objective=attacks.TargetedMargin(), targets=9),
        attacks.APGD(steps=50),
        attacks.APGD(steps=40, objective=attacks.TargetedMargin(), targets=4),
    ]


def measure(name: str, method: str, seed: int, options: argparse.Namespace) -> Row:
    """Train, and attack what came out."""
    config = configuration(name, method, seed, options)
    model = classifier(config, options.data_root)
    task = Classify(config, data_root=options.data_root)
    row: Row = {"method": method, "seed": seed, "steps": config.steps}
    row |= costs(Path(config.output) / "log.jsonl", task.epoch)
    return row | strength(model, task, name, options)


def costs(log: Path, epoch: float) -> Row:
    """Of an epoch of ``epoch`` steps, from the log of the training."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    keys = ("evaluations", "vjps", "processor_seconds", "attack_processor_seconds")
    row: Row = {f"{key}_per_epoch": statistics.mean(line[key] for line in lines) * epoch for key in keys}
    return row | {"converged_in_training": statistics.mean(line["converged"] for line in lines)}


def strength(model: jiio.EquilibriumModel, task: Classify, name: str, options: argparse.Namespace) -> Row:
    """Accuracy on clean images, and what the suite leaves of it; on a few samples also what AutoAttack leaves."""
    batches = in_batches(task.data, options.samples, torch.device("cpu"))
    threat = attacks.ThreatModel("l2", SETS[name]["radius"])
    settings: dict[str, Any] = {"generator": torch.Generator().manual_seed(0), "audit": None, "pictures": 0}
    report = attacks.evaluate(model, batches, threat, suite(options.fast), **settings)
    row: Row = {"clean": report.clean.share, "robust": report.robust.share, "unconverged": report.unconverged}
    row |= {"robust_low": report.robust.low, "robust_high": report.robust.high}

    # Thousands of forward solves for each image: not for all of them.
    if options.autoattack:
        few = [(x[: options.autoattack], y[: options.autoattack]) for x, y in batches[:1]]
        report = attacks.evaluate(model, few, threat, [attacks.AutoAttack(queries=1000)], **settings)
        row |= {"autoattack": report.robust.share, "autoattack_samples": report.total}
    return row


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All methods of one seed on all sets, then the next seed."""
    found: dict[str, list[Row]] = {name: [] for name in options.sets}
    for seed in range(options.seeds):
        for name in options.sets:
            for method in options.methods:
                row = rows.each(f"{name}/{method}/{seed}", measure, name, method, seed, options)
                found[name].append(row)
    for name, mine in found.items():
        show(f"{name}, L2 radius {SETS[name]['radius']}", summary(mine))


def summary(rows: list[Row]) -> list[Row]:
    """Median (range) over the seeds, one line per method; costs relative to PGD-10 of the same seed."""
    base = {row["seed"]: row for row in rows if row["method"] == "PGD-10"}
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        line: Row = {"method": method}
        for word in ("clean", "robust", "AutoAttack"):
            line[f"{word} %"] = percent([row[word.lower()] for row in mine if word.lower() in row])

        # What the weights learn from is the same on both sides, and counted on both.
        line["seconds / epoch"] = spread([row["processor_seconds_per_epoch"] for row in mine])
        for key in ("evaluations", "vjps"):
            line[f"{key} / epoch"] = spread([row[f"{key}_per_epoch"] for row in mine], 4)
        pairs = [(base[row["seed"]], row) for row in mine if row["seed"] in base]
        for word, price in (("s", seconds), ("calls", calls)):
            line[f"cheaper, {word}"] = spread([price(b) / price(r) for b, r in pairs])
        lines.append(line)
    return lines


def seconds(row: Row) -> float:
    """Of the processor, for an epoch."""
    return row["processor_seconds_per_epoch"]


def calls(row: Row) -> float:
    """Evaluations and vector-Jacobian products of an epoch."""
    return row["evaluations_per_epoch"] + row["vjps_per_epoch"]


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "sets": ["mnist"], "samples": 12})
    made.chosen("--sets", list(SETS), list(SETS), "data sets")
    made.chosen("--methods", ("none", "PGD-10", "JIIO"), list(METHODS), "trainings")
    made.number("--samples", 200, "test images")
    made.add_argument("--epochs", type=positive, help="epochs of every training (default 4, CIFAR-10 3)")
    made.add_argument("--autoattack", type=int, default=0, help="AutoAttack too, on so many samples")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
