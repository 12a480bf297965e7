"""Which published robustness survives a proper evaluation: LyaDEQ (Chu et al. 2024), regularised dynamics (Yang et al.
2023), beside a plain equilibrium network and adversarial training.

    python -m benchmarks.attacks.robustness_claims --cache FOLDER --output robustness_claims.json [--minutes 14]
    # about 5 minutes a model and seed; --fast: 2

MNIST at 14 x 14, a dense cell of 64 units (a contraction, or free by --scaling none) or a small multiscale one (--cell
Multiscale, which begins with 400 steps as five layers), threat Linf. Every model is
attacked twice: as the papers do (FGSM, I-FGSM and PGD-20 on the cross-entropy, three radii; regularised dynamics with
the defence bypassed, PGD-10 on the undefended network), and then by AutoAttack, the attacks made for equilibria and
adaptive ones, with the audit on. Adaptive against regularised dynamics: Auto-PGD through the defence, through its
smoothed twin, and AutoAttack on the undefended network. Against LyaDEQ AutoAttack works on the network without the
projection, whose equilibria and gradients are the same (`test_lyapunov.py`) and several times cheaper; what it
finds is predicted anew by the projected one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import jiio
from benchmarks.attacks.contestants import RADIUS, RECIPES, trained
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, percent, say, show
from jiio import attacks
from jiio.attacks import APGD, DLR, PGD, Audit, Margin, SurrogateAttack, TargetedMargin, ThreatModel
from jiio.models import LyapunovCell, RegulatedModel

RADII = (0.05, 0.1, 0.2)
UPDATES = 3  # of the input per round; 10 in the paper, but already 4 rounds of 3 steps cross the ball three times
PUBLISHED: dict[str, attacks.AbstractAttack] = {
    "FGSM": PGD(steps=1, step=1.0, random_start=False, best=False),
    "I-FGSM": PGD(steps=10, step=0.1, random_start=False, best=False),
    "PGD-20": PGD(steps=20, best=False),
}
BYPASS = PGD(steps=10, step=0.25, best=False)


def as_published(model: jiio.EquilibriumModel, base: jiio.EquilibriumModel, x: Tensor, y: Tensor, seed: int) -> Row:
    """Accuracy left by each attack of the papers at each radius; for a regulated network with the defence bypassed."""
    named = {"PGD-10, bypassing": SurrogateAttack(base, BYPASS)} if model is not base else PUBLISHED
    found: Row = {}
    for name, attack in named.items():
        for radius in RADII:
            draws = torch.Generator().manual_seed(seed)
            result = attack(model, x, y, ThreatModel("linf", radius), generator=draws)
            found[f"{name} {radius:g}"] = 1.0 - float(result.success.float().mean())
    return found


def proper(base: jiio.EquilibriumModel, regulated: RegulatedModel | None, fast: bool) -> list[attacks.AbstractAttack]:
    """The attacks of the second evaluation, cheap ones first."""
    auto = unprojected(base, attacks.AutoAttack(queries=100 if fast else 300))
    shared: list[attacks.AbstractAttack] = [
        attacks.JointAttack(steps=40, objective=TargetedMargin(), targets=3),
        attacks.IntermediateAttack(),
        attacks.Square(queries=50),
    ]

    if regulated is None:
        return [
            *shared,
            attacks.SimultaneousAttack(),
            attacks.AdjointEnsemble(objective=DLR()),
            APGD(steps=30, objective=Margin()),
            auto,
        ]
    # Adaptive: on the undefended network, through a smoothed twin, and through the defence itself.
    return [
        *shared,
        SurrogateAttack(base, auto, "undefended"),
        SurrogateAttack(regulated.smoothed(), PGD(steps=6, objective=Margin()), "smoothed"),
        APGD(steps=20, objective=Margin()),
    ]


def unprojected(base: jiio.EquilibriumModel, auto: attacks.AbstractAttack) -> attacks.AbstractAttack:
    """The projection of LyaDEQ moves no equilibrium and no gradient of one: attack the network without it."""
    if not isinstance(base.cell, LyapunovCell):
        return auto
    settings = {name: getattr(base, name) for name in ("solver", "adjoint", "tolerance", "max_steps")}
    twin = jiio.EquilibriumModel(base.inject, base.cell.cell, base.head, **settings)
    return SurrogateAttack(twin, auto, "twin")


def measure(name: str, seed: int, options: argparse.Namespace) -> Row:
    """One model under both evaluations."""
    begin = time.process_time()
    base, [(x, y), *_] = trained(name, seed, options)
    regulated = RegulatedModel.of(base, radius=RADIUS, updates=UPDATES) if RECIPES[name][1] else None
    model = base if regulated is None else regulated
    row: Row = {"model": name, "seed": seed, "training seconds": time.process_time() - begin}
    row |= as_published(model, base, x, y, seed)
    # The second evaluation, with the audit: an attack that was lamed by accident proves nothing.
    report = attacks.evaluate(
        model,
        [(x, y)],
        ThreatModel("linf", RADIUS),
        proper(base, regulated, options.fast),
        generator=torch.Generator().manual_seed(seed),
        curve=(0.5,),
        audit=Audit(samples=24, steps=20, queries=50),
        pictures=0,
    )
    return row | told(report) | {"seconds": time.process_time() - begin}


def told(report: Any) -> Row:
    """What an evaluation says: what is left at each radius of its curve, and what the audit found."""
    row: Row = {"clean": report.clean.share, "unconverged": report.unconverged}
    row |= {f"proper {RADIUS * point['factor']:g}": point["robust"]["share"] for point in report.curve}
    row |= {"broken by": {line["name"]: line["broken"] for line in report.attacks}}
    return row | {"findings": report.findings, "trusted": report.trusted}


def run(options: argparse.Namespace, rows: Rows) -> Row:
    """All models of one seed, then the next seed, until the time is up."""
    found, left = [], 0
    # Seed by seed, so that a run that ends early has every model.
    for seed in range(options.seeds):
        for name in options.models:
            key = f"{name}/{seed}"
            if rows.late(key, options.minutes):
                left += 1
            else:
                found.append(rows.each(key, measure, name, seed, options))
    if left:
        say(f"{left} of {options.seeds * len(options.models)} are left: run the same command again.")
    tables(sorted(found, key=lambda row: list(RECIPES).index(row["model"])))
    return {"left": left, "radius": RADIUS}


def tables(found: list[Row]) -> None:
    """Per cent: median over the seeds, lowest and highest."""
    for radius in (RADIUS / 2, RADIUS):
        title = f"accuracy in %, Linf {radius:g}; as published: the strongest of the papers' attacks"
        show(title, [claim(name, mine, radius) for name, mine in by_model(found)])

    for radius in RADII:
        lines = over_seeds([at(row, radius) for row in found], "model", said=percent)
        show(f"all attacks, Linf {radius:g}", lines)


def by_model(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """The rows of each model, of all seeds."""
    names = dict.fromkeys(row["model"] for row in rows)
    return [(name, [row for row in rows if row["model"] == name]) for name in names]


def at(row: Row, radius: float) -> Row:
    """Of a row the figures at one radius, by attack."""
    ending = f" {radius:g}"
    return {"model": row["model"]} | {k.removesuffix(ending): v for k, v in row.items() if k.endswith(ending)}


def claim(name: str, mine: list[Row], radius: float) -> Row:
    """A line: what the papers' attacks leave of a model, and what a proper evaluation does."""
    figures = [{k: v for k, v in at(row, radius).items() if k != "model"} for row in mine]
    papers = [min(value for key, value in found.items() if key != "proper") for found in figures]
    full = [found["proper"] for found in figures]
    line: Row = {"model": name, "seeds": len(mine), "clean": percent([row["clean"] for row in mine])}
    line |= {"as published": percent(papers), "proper": percent(full)}
    line |= {"lost": percent([a - b for a, b in zip(papers, full, strict=True)])}

    names = sorted({f["name"] for row in mine for f in row["findings"] if f["severity"] == "error"})
    return line | {"errors of the audit": ", ".join(names) or "none"}


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "samples": 8, "models": ["plain", "LyaDEQ"]})
    made.minutes()
    made.number("--samples", 200, "test images")
    made.number("--steps", 300, "training steps")
    made.add_argument("--cell", choices=("Dense", "Multiscale"), default="Dense", help="default Dense")
    made.chosen("--models", list(RECIPES), list(RECIPES), "which")
    made.add_argument("--scaling", choices=("spectral", "none"), default="spectral", help="of the cell's weights")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
