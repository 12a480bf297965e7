"""Are several views harder to attack than one? UCI multiple features (six views of 2,000 digits), TSA and ETEA.

Per seed: a split into 1,400 training and 600 test samples, every view scaled to [0, 1] by the training part, one
equilibrium network per view and one that fuses all six. Accuracies:

- own: each single-view network under an attack on itself (ETEA with one view);
- TSA: the views attacked on their own networks, handed to the fused one (Sun and Sun, two-stage);
- ETEA: the fused network attacked end to end, in all views, and in the worst single view.

The radius is one per view: ``r`` times the root of its number of features (L2), so that every feature may move by the
same amount in the mean. "Equal radius" has two readings, and both are shown: the same radius in every view, and the
same radius in total (L2 over all views together).

    python benchmarks/multiview.py --data-root FOLDER --cache FOLDER --output multiview.json
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from harness import Row, kept, main, parser, say, show, spread
from torch import Tensor

import jiio
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
OPTIONS = {"tolerance": jiio.Tolerance(1e-5, 1e-3), "solver": jiio.Picard(), "on_failure": "ignore"}
RADII = (0.05, 0.1)


def load(root: Path | None, seed: int) -> tuple[tuple[int, ...], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Sizes of the views, training and test samples with labels; features in [0, 1]."""
    path = find_data(root, "mfeat/mfeat.npz", "the UCI multiple features", argument="--data-root")
    with np.load(path, allow_pickle=False) as file:
        parts = [torch.from_numpy(file[name].astype(np.float32)) for name in VIEWS]
        y = torch.from_numpy(file["label"].astype(np.int64))
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    x = torch.cat(parts, dim=1)[order]
    low, high = x[:TRAIN].amin(0), x[:TRAIN].amax(0)
    x = ((x - low) / (high - low).clamp_min(1e-6)).clamp(0.0, 1.0)
    y = y[order] - y.min()
    return tuple(part.shape[1] for part in parts), (x[:TRAIN], y[:TRAIN]), (x[TRAIN:], y[TRAIN:])


def fit(sizes: tuple[int, ...], x: Tensor, y: Tensor, seed: int, steps: int) -> jiio.EquilibriumModel:
    """A network on these views, trained on clean samples."""
    torch.manual_seed(seed)
    model = multi_view_classifier(sizes, 10, features=48, **OPTIONS)  # type: ignore[arg-type]
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-2, weight_decay=1e-4)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(x), (100,), generator=draw)
        optimiser.zero_grad()
        F.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimiser.step()
    return model.eval()


def left(model: jiio.EquilibriumModel, attack: Any, x: Tensor, y: Tensor, threat: ThreatModel, seed: int) -> float:
    """Accuracy under the attack."""
    result = attack(model, x, y, threat, generator=torch.Generator().manual_seed(seed))
    return 1.0 - float(result.success.float().mean())


def measure(seed: int, options: argparse.Namespace) -> list[Row]:
    """All accuracies of one seed."""
    sizes, (x, y), (tx, ty) = load(options.data_root, seed)
    if options.fast:
        tx, ty = tx[:100], ty[:100]
    steps = 30 if options.fast else 60
    slices = [slice(a, b) for a, b in itertools.pairwise((0, *itertools.accumulate(sizes)))]
    singles = [fit((n,), x[:, part], y, seed, steps) for n, part in zip(sizes, slices, strict=True)]
    fused = fit(sizes, x, y, seed, steps)
    say(f"seed {seed}: trained")
    pgd = PGD(steps=STEPS, objective=Margin())
    clean = {name: accuracy(m, tx[:, part], ty) for name, m, part in zip(VIEWS, singles, slices, strict=True)}
    rows = []
    for r in options.radii or RADII:
        radii = tuple(r * n**0.5 for n in sizes)
        row: Row = {"seed": seed, "r": r, "clean, fused": accuracy(fused, tx, ty), "clean, views": clean}
        row["own"] = {
            name: left(m, pgd, tx[:, part].contiguous(), ty, ThreatModel("l2", radius), seed)
            for name, m, part, radius in zip(VIEWS, singles, slices, radii, strict=True)
        }
        threat = MultiViewThreat("l2", radii, sizes=sizes)  # type: ignore[arg-type]
        row["TSA"] = left(fused, TwoStageAttack(tuple(singles), pgd), tx, ty, threat, seed)
        row["ETEA"] = left(fused, pgd, tx, ty, threat, seed)
        row["ETEA, joint"] = left(fused, JointAttack(steps=40, objective=Margin()), tx, ty, threat, seed)
        row["ETEA, worst view"] = left(fused, SingleViewAttack(pgd), tx, ty, threat, seed)
        # The same total: what a single view gets alone, the fused network gets for all views together.
        row["total"] = {
            name: left(fused, pgd, tx, ty, ThreatModel("l2", radius), seed)
            for name, radius in zip(VIEWS, radii, strict=True)
        }
        rows.append(row)
        say(f"seed {seed}, r {r:g}: TSA {row['TSA']:.1%}, ETEA {row['ETEA']:.1%}")
    return rows


def accuracy(model: jiio.EquilibriumModel, x: Tensor, y: Tensor) -> float:
    """On untouched samples."""
    return float((Target(model).predict(x).label == y).float().mean())


def run(options: argparse.Namespace) -> Row:
    """All seeds, and what speaks for and against the claim."""
    found = [kept(options.cache, f"seed-{s}", lambda s=s: measure(s, options)) for s in range(options.seeds)]
    rows = [row for one in found for row in one]
    lines, pairs = [], []
    for r in options.radii or RADII:
        own = [row for row in rows if row["r"] == r]
        line: Row = {"r": r, "clean": spread([100 * row["clean, fused"] for row in own])}
        keys = ("TSA", "ETEA", "ETEA, joint", "ETEA, worst view")
        lines.append(line | {key: spread([100 * row[key] for row in own]) for key in keys})
        for name in VIEWS:
            single, total = ([100 * row[key][name] for row in own] for key in ("own", "total"))
            each = [100 * row["ETEA"] for row in own]
            pair: Row = {"r": r, "view": name, "clean": spread([100 * row["clean, views"][name] for row in own])}
            pair |= {"single": spread(single), "fused, each view": spread(each), "fused, in total": spread(total)}
            pair["sturdier, each"] = sum(a > b for a, b in zip(each, single, strict=True))
            pair["sturdier, total"] = sum(a > b for a, b in zip(total, single, strict=True))
            pairs.append(pair)
    show("fused network, accuracy in %", lines)
    show("single views against the fused network at equal radius, accuracy in %; sturdier: in how many seeds", pairs)
    return {"rows": rows}


if __name__ == "__main__":
    made = parser(__doc__, seeds=3)
    made.add_argument("--radii", type=float, nargs="+", help="multiples r (default 0.05 0.1)")
    sys.exit(main(made, run))
