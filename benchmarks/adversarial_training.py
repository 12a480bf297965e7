"""Adversarial training by the joint attack against PGD: what robust accuracy costs.

Per data set (MNIST at L2 radius 1.0, CIFAR-10 at 0.5) and seed the same network is trained for the same number of
epochs without a defence, by PGD-10 through the converged implicit gradient, and by JointTraining; then each faces the
same attacks. On CIFAR-10 the network is a multiscale one, which every method takes over from the same training on clean
images, unrolled. Costs are those of a training step: evaluations of the cell, vector-Jacobian products, seconds of the
processor. Where the parts of a step are equal by construction (the pass that the weights learn from), they are included
on both sides.

A run that was cut off goes on: trainings from their checkpoints in --cache, finished rows from --output.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from harness import Row, main, parser, plain, say, show, spread

from jiio import attacks
from jiio.checks import JiioError, fail
from jiio.outputs.atomic import write_whole
from jiio.tasks import train
from jiio.tasks.classify.data import in_batches
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.load import build

METHODS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "PGD-10": [{"name": "PGDTraining", "options": {"steps": 10}}],
    "PGD-10, warm": [{"name": "PGDTraining", "options": {"steps": 10, "warm": True}}],
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


def configuration(name: str, method: str, seed: int, options: argparse.Namespace, folder: Path) -> ClassifyConfig:
    """One training."""
    chosen = SETS[name]
    images, epochs = (640, 1) if options.fast else (chosen["images"], options.epochs or chosen["epochs"])
    batch = chosen["data"]["batch_size"]
    defence = [{**d, "options": {"radius": chosen["radius"], **d["options"]}} for d in METHODS[method]]
    if "penalty" in chosen:
        defence.append({"name": "JacobianPenalty", "options": {"weight": chosen["penalty"]}})
    values = {
        "output": str(folder / f"{name}-{method.replace(', ', '-')}-{seed}"),
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
    if "warm" in chosen:
        values["start"] = warmed(name, seed, options, folder)
    return build(ClassifyConfig, values)


def warmed(name: str, seed: int, options: argparse.Namespace, folder: Path) -> str:
    """The folder of the training that every method goes on from: clean images, five layers of the same weights."""
    chosen = SETS[name]
    steps = 4 if options.fast else chosen["warm"]
    values = {
        "output": str(folder / f"{name}-warm-{seed}"),
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


def measure(name: str, method: str, seed: int, options: argparse.Namespace, folder: Path) -> Row:
    """Train, and attack what came out."""
    config = configuration(name, method, seed, options, folder)
    done = train(config, resume=True, data_root=options.data_root, report=say)
    task = Classify(config, data_root=options.data_root)
    model = Classify.network(done).eval()
    log = [json.loads(line) for line in (Path(config.output) / "log.jsonl").read_text().splitlines()]
    row: Row = {"set": name, "method": method, "seed": seed, "steps": config.steps}
    for key in ("evaluations", "vjps", "processor_seconds", "attack_processor_seconds"):
        row[f"{key}_per_epoch"] = statistics.mean(line[key] for line in log) * task.epoch
    row["converged_in_training"] = statistics.mean(line["converged"] for line in log)
    batches = in_batches(task.data, options.samples, torch.device("cpu"))
    threat = attacks.ThreatModel("l2", SETS[name]["radius"])
    draws = torch.Generator().manual_seed(0)
    report = attacks.evaluate(model, batches, threat, suite(options.fast), generator=draws, audit=None, pictures=0)
    row |= {"clean": report.clean.share, "robust": report.robust.share, "unconverged": report.unconverged}
    row |= {"robust_low": report.robust.low, "robust_high": report.robust.high}
    if options.autoattack:
        few = [(x[: options.autoattack], y[: options.autoattack]) for x, y in batches[:1]]
        tool = attacks.AutoAttack(queries=1000)
        report = attacks.evaluate(model, few, threat, [tool], generator=draws, audit=None, pictures=0)
        row |= {"autoattack": report.robust.share, "autoattack_samples": report.total}
    return row


def run(options: argparse.Namespace) -> Row:
    folder = options.cache
    if folder is None:
        fail("--cache", "a folder for the trainings", "none", "They can then be continued.", JiioError)
    rows: list[Row] = []
    settings = {"fast": options.fast, "samples": options.samples, "epochs": options.epochs}
    if options.output is not None and options.output.exists():
        found = json.loads(options.output.read_text())
        if found.get("settings") != settings:
            fail("--output", "a file of the same settings", f"{options.output} of others", "Name another.", JiioError)
        rows = found["rows"]
    for seed in range(options.seeds):
        for name in options.sets:
            for method in options.methods:
                if any((r["set"], r["method"], r["seed"]) == (name, method, seed) for r in rows):
                    continue
                rows.append(measure(name, method, seed, options, folder))
                say(json.dumps(plain(rows[-1])))
                if options.output is not None:
                    body = {"settings": settings, "rows": rows}
                    write_whole(options.output, json.dumps(plain(body), indent=1).encode() + b"\n")
    for name in options.sets:
        show(f"{name}, L2 radius {SETS[name]['radius']}", summary([r for r in rows if r["set"] == name]))
    return {"settings": settings, "rows": rows}


def summary(rows: list[Row]) -> list[Row]:
    """Median (range) over the seeds, one line per method; costs relative to PGD-10 of the same seed."""
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        base = {row["seed"]: row for row in rows if row["method"] == "PGD-10"}
        line: Row = {"method": method}
        for key in ("clean", "robust"):
            line[f"{key} %"] = spread([100 * row[key] for row in mine])
        told = [100 * row["autoattack"] for row in mine if "autoattack" in row]
        line["AutoAttack %"] = spread(told) if told else "-"
        line["seconds / epoch"] = spread([row["processor_seconds_per_epoch"] for row in mine])
        for key in ("evaluations", "vjps"):
            line[f"{key} / epoch"] = spread([row[f"{key}_per_epoch"] for row in mine], 4)
        pairs = [(base[row["seed"]], row) for row in mine if row["seed"] in base]
        line["cheaper, s"] = spread(
            [b["processor_seconds_per_epoch"] / r["processor_seconds_per_epoch"] for b, r in pairs]
        )
        line["cheaper, calls"] = spread([calls(b) / calls(r) for b, r in pairs])
        lines.append(line)
    return lines


def calls(row: Row) -> float:
    """Evaluations and vector-Jacobian products of an epoch."""
    return row["evaluations_per_epoch"] + row["vjps_per_epoch"]


if __name__ == "__main__":
    made = parser(__doc__, seeds=3)
    made.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="data sets")
    made.add_argument("--methods", nargs="+", choices=METHODS, default=["none", "PGD-10", "JIIO"], help="trainings")
    made.add_argument("--samples", type=int, default=200, help="test images (default 200)")
    made.add_argument("--epochs", type=int, help="epochs of every training (default 4, CIFAR-10 3)")
    made.add_argument("--autoattack", type=int, default=0, help="AutoAttack too, on so many samples")
    sys.exit(main(made, run))
