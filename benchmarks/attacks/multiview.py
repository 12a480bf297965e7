"""Are several views harder to attack than one? UCI multiple features (six views of 2,000 digits), TSA and ETEA.

    python -m benchmarks.attacks.multiview --data-root FOLDER --output multiview.json
    # about 10 minutes; --fast: 1

Per seed: a split into 1,400 training and 600 test samples, every view scaled to [0, 1] by the training part, one
equilibrium network per view and one that fuses all six. Accuracies:

- own: each single-view network under an attack on itself (ETEA with one view);
- TSA: the views attacked on their own networks, handed to the fused one (Sun and Sun, two-stage);
- ETEA: the fused network attacked end to end, in all views, and in the worst single view.

The radius is one per view: ``r`` times the root of its number of features (L2), so that every feature may move by the
same amount in the mean. "Equal radius" has two readings, and both are shown: the same radius in every view, and the
same radius in total (L2 over all views together).
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, percent, say, show
from benchmarks.trainings import Course, Steps, constant, descend
from jiio.attacks import (
    PGD,
    JointAttack,
    Margin,
    MultiViewThreat,
    SingleViewAttack,
    Target,
    ThreatModel,
    TwoStageAttack,
    multi_view_classifier,
)
from jiio.tasks.images.sources import find_data

VIEWS = ("fac", "fou", "kar", "mor", "pix", "zer")
TRAIN = 1400
STEPS = 10
OPTIONS: dict[str, Any] = {"tolerance": jiio.Tolerance(1e-5, 1e-3), "solver": jiio.Picard(), "on_failure": "ignore"}
RADII = (0.05, 0.1)


def load(root: Path | None, seed: int) -> tuple[tuple[int, ...], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Sizes of the views, training and test samples with labels; features in [0, 1]."""
    path = find_data(root, "mfeat/mfeat.npz", "the UCI multiple features", argument="--data-root")
    with np.load(path, allow_pickle=False) as file:
        parts = [torch.from_numpy(file[name].astype(np.float32)) for name in VIEWS]
        y = torch.from_numpy(file["label"].astype(np.int64))

    # Split, then scaled by the training part alone.
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    x = torch.cat(parts, dim=1)[order]
    low, high = x[:TRAIN].amin(0), x[:TRAIN].amax(0)
    x = ((x - low) / (high - low).clamp_min(1e-6)).clamp(0.0, 1.0)
    y = y[order] - y.min()
    return tuple(part.shape[1] for part in parts), (x[:TRAIN], y[:TRAIN]), (x[TRAIN:], y[TRAIN:])


def fit(sizes: tuple[int, ...], x: Tensor, y: Tensor, seed: int, steps: int) -> jiio.EquilibriumModel:
    """A network on these views, trained on clean samples."""
    torch.manual_seed(seed)
    model = multi_view_classifier(sizes, 10, features=48, **OPTIONS)
    draw = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Tensor:
        chosen = torch.randint(len(x), (100,), generator=draw)
        return F.cross_entropy(model(x[chosen]), y[chosen])

    descend(model.parameters(), loss, Course(constant(2e-2), clip=math.inf, decay=1e-4), Steps(steps))
    return model.eval()


def left(model: jiio.EquilibriumModel, attack: Any, x: Tensor, y: Tensor, threat: ThreatModel, seed: int) -> float:
    """Accuracy under the attack."""
    result = attack(model, x, y, threat, generator=torch.Generator().manual_seed(seed))
    return 1.0 - float(result.success.float().mean())


def accuracy(model: jiio.EquilibriumModel, x: Tensor, y: Tensor) -> float:
    """On untouched samples."""
    return float((Target(model).predict(x).label == y).float().mean())


@dataclass(frozen=True)
class Trained:
    """One network per view, one for all, and the test samples. parts: columns of each view."""

    singles: list[jiio.EquilibriumModel]
    fused: jiio.EquilibriumModel
    sizes: tuple[int, ...]
    parts: list[slice]
    x: Tensor
    y: Tensor


def trained(seed: int, options: argparse.Namespace) -> Trained:
    """All seven networks."""
    sizes, (x, y), (tx, ty) = load(options.data_root, seed)
    if options.fast:
        tx, ty = tx[:100], ty[:100]
    steps = 30 if options.fast else 60
    parts = [slice(a, b) for a, b in itertools.pairwise((0, *itertools.accumulate(sizes)))]
    singles = [fit((n,), x[:, part], y, seed, steps) for n, part in zip(sizes, parts, strict=True)]
    return Trained(singles, fit(sizes, x, y, seed, steps), sizes, parts, tx, ty)


def measure(seed: int, options: argparse.Namespace) -> list[Row]:
    """All accuracies of one seed."""
    made = trained(seed, options)
    say(f"seed {seed}: trained")
    clean = {name: accuracy(m, made.x[:, part], made.y) for name, m, part in each_view(made)}
    head = {"seed": seed, "clean, fused": accuracy(made.fused, made.x, made.y), "clean, views": clean}
    return [head | {"r": r} | at_radius(made, r, seed) for r in options.radii]


def each_view(made: Trained) -> list[tuple[str, jiio.EquilibriumModel, slice]]:
    """Name, network and columns."""
    return list(zip(VIEWS, made.singles, made.parts, strict=True))


def at_radius(made: Trained, r: float, seed: int) -> Row:
    """What the attacks leave at ``r`` times the root of the number of features."""
    pgd, x, y, fused = PGD(steps=STEPS, objective=Margin()), made.x, made.y, made.fused
    radii = tuple(r * n**0.5 for n in made.sizes)
    threats = {name: ThreatModel("l2", radius) for name, radius in zip(VIEWS, radii, strict=True)}
    row: Row = {
        "own": {n: left(m, pgd, x[:, part].contiguous(), y, threats[n], seed) for n, m, part in each_view(made)}
    }

    every = MultiViewThreat("l2", radii, sizes=made.sizes)
    row["TSA"] = left(fused, TwoStageAttack(tuple(made.singles), pgd), x, y, every, seed)
    row["ETEA"] = left(fused, pgd, x, y, every, seed)
    row["ETEA, joint"] = left(fused, JointAttack(steps=40, objective=Margin()), x, y, every, seed)
    row["ETEA, worst view"] = left(fused, SingleViewAttack(pgd), x, y, every, seed)
    # The same total: what a single view gets alone, the fused network gets for all views together.
    row["total"] = {name: left(fused, pgd, x, y, threat, seed) for name, threat in threats.items()}
    return row


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All seeds, and what speaks for and against the claim."""
    found = [row for seed in range(options.seeds) for row in rows.each(str(seed), measure, seed, options)]
    found.sort(key=lambda row: row["r"])
    show("fused network, accuracy in %", over_seeds([fused_row(row) for row in found], "r", said=percent))

    pairs = [pair(row, name) for row in found for name in VIEWS]
    lines = over_seeds(pairs, "r", "view", said=percent)
    for line in lines:
        mine = [one for one in pairs if (one["r"], one["view"]) == (line["r"], line["view"])]
        line["sturdier, each"] = sum(one["fused, each view"] > one["single"] for one in mine)
        line["sturdier, total"] = sum(one["fused, in total"] > one["single"] for one in mine)
    show("single views against the fused network at equal radius, accuracy in %; sturdier: in how many seeds", lines)


def fused_row(row: Row) -> Row:
    """Of a row what concerns the fused network."""
    keys = ("TSA", "ETEA", "ETEA, joint", "ETEA, worst view")
    return {"r": row["r"], "clean": row["clean, fused"]} | {key: row[key] for key in keys}


def pair(row: Row, name: str) -> Row:
    """One view against the fused network."""
    head: Row = {"r": row["r"], "view": name, "clean": row["clean, views"][name]}
    return head | {
        "single": row["own"][name],
        "fused, each view": row["ETEA"],
        "fused, in total": row["total"][name],
    }


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "radii": [0.05]})
    made.add_argument("--radii", type=float, nargs="+", default=list(RADII), help="multiples r (default 0.05 0.1)")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
