"""Which published robustness survives a proper evaluation: LyaDEQ (Chu et al. 2024), regularised dynamics (Yang et al.
2023), beside a plain equilibrium network and adversarial training.

MNIST at 14 x 14, a dense cell of 64 units (a contraction, or free by --scaling none) or a small multiscale one (--cell
Multiscale, which begins with 400 steps as five layers), threat Linf. Every model is
attacked twice: as the papers do (FGSM, I-FGSM and PGD-20 on the cross-entropy, three radii; regularised dynamics with
the defence bypassed, PGD-10 on the undefended network), and then by AutoAttack, the attacks made for equilibria and
adaptive ones, with the audit on. Adaptive against regularised dynamics: Auto-PGD through the defence, through its
smoothed twin, and AutoAttack on the undefended network. Against LyaDEQ AutoAttack works on the network without the
projection, whose equilibria and gradients are the same (`test_lyapunov.py`) and several times cheaper; what it
finds is predicted anew by the projected one.

Every finished (model, seed) is a file in --cache, and the next call goes on after it.

    python benchmarks/robustness_claims.py --cache FOLDER --output robustness_claims.json [--minutes 14]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from harness import Row, kept, main, parser, positive, say, show, spread
from torch import Tensor
from torch.nn.utils.parametrize import remove_parametrizations

import jiio
from jiio import attacks
from jiio.attacks import APGD, DLR, PGD, Audit, Margin, SurrogateAttack, TargetedMargin, ThreatModel
from jiio.models import LyapunovCell, RegulatedModel
from jiio.tasks.classify.data import ClassifyDataConfig, in_batches, load_labelled
from jiio.tasks.classify.networks import NetworkConfig
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.config import OptimiserConfig, WarmConfig
from jiio.tasks.frame.loop import train

RADIUS = 0.1
RADII = (0.05, 0.1, 0.2)
UPDATES = 3  # of the input per round; 10 in the paper, but already 4 rounds of 3 steps cross the ball three times
ADVERSARY = Choice(
    "PGDTraining",
    {
        "norm": "linf",
        "radius": RADIUS,
        "steps": 5,
        "warm": True,
        "adjoint": {"name": "Phantom", "options": {"steps": 3}},
    },
)
ORTHOGONAL = Choice("Lyapunov", {"weight": 0.0})  # the projection moves no equilibrium, so this is what is left
STABLE, FEATURE, STATES = Choice("Lyapunov"), Choice("LyapunovFeature"), Choice("RegulatedDynamics")
PENALTY = Choice("JacobianPenalty", {"weight": 0.5})
SIZES = {"channels": [8, 16], "expansion": 2, "groups": 4, "fusion_groups": 4, "head_channels": [4, 8]}
MULTISCALE = Choice("Multiscale", {**SIZES, "final_channels": 64})
# name -> how it is trained, and whether its input is regulated in the end
RECIPES: dict[str, tuple[tuple[Choice, ...], bool]] = {
    "plain": ((), False),
    "LyaDEQ": ((STABLE,), False),
    "orthogonal layer alone": ((ORTHOGONAL,), False),
    "adversarial": ((ADVERSARY,), False),
    "plain, input regulated": ((), True),
    "adversarial, input regulated": ((ADVERSARY,), True),
    "LyaDEQ + adversarial": ((ADVERSARY, STABLE), False),
    "adversarial, random states": ((ADVERSARY, STATES), False),
    "adversarial, random states, input regulated": ((ADVERSARY, STATES), True),
    "LyaDEQ, as a flow on features": ((FEATURE,), False),
}
PUBLISHED: dict[str, attacks.AbstractAttack] = {
    "FGSM": PGD(steps=1, step=1.0, random_start=False, best=False),
    "I-FGSM": PGD(steps=10, step=0.1, random_start=False, best=False),
    "PGD-20": PGD(steps=20, best=False),
}
BYPASS = PGD(steps=10, step=0.25, best=False)


def configuration(defences: tuple[Choice, ...], seed: int, folder: Path, options: argparse.Namespace) -> ClassifyConfig:
    """A training of a few minutes at most."""
    multiscale = options.cell == "Multiscale"
    steps = 50 if options.fast else options.steps
    warm = WarmConfig(min(400, 8 * steps) if multiscale else 0, 5)
    dense = Choice("Dense", {"features": 64, "gain": 0.8, "scaling": options.scaling})
    plain = options.scaling == "spectral" and not multiscale
    return ClassifyConfig(
        output=str(folder),
        seed=seed,
        steps=warm.steps + steps,
        checkpoint_every=100,
        optimiser=OptimiserConfig(rate=5e-3, warmup=20),
        data=ClassifyDataConfig("mnist", 14, batch_size=100, train_limit=20_000, test_limit=options.samples),
        model=NetworkConfig(MULTISCALE if multiscale else dense, solver=Choice("Picard" if plain else "Anderson")),
        defence=(*defences, PENALTY) if multiscale else defences,
        warm=warm,
    )


def trained(name: str, seed: int, options: argparse.Namespace) -> tuple[jiio.EquilibriumModel, list[Any]]:
    """The network and the test batches; a training that was cut short goes on."""
    defences, _ = RECIPES[name]
    place = next(i for i, (other, _) in enumerate(RECIPES.values()) if other == defences)  # trained once
    config = configuration(defences, seed, options.cache / f"model-{place}-{seed}", options)
    done = train(config, resume=True, data_root=options.data_root, report=lambda line: None)
    model = Classify.network(done)
    assert isinstance(model, jiio.EquilibriumModel)
    model.adjoint = jiio.Implicit(solver=model.solver, tolerance=model.tolerance)
    if options.scaling == "spectral" and options.cell == "Dense":
        inner = model.cell.cell if isinstance(model.cell, LyapunovCell) else model.cell
        remove_parametrizations(inner, "weight")  # training is over: no singular values at every call any more
    data = load_labelled(config.data, data_root=options.data_root)
    return model.eval(), in_batches(data, len(data.test), torch.device("cpu"))


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
    auto: attacks.AbstractAttack = attacks.AutoAttack(queries=100 if fast else 300)
    shared: list[attacks.AbstractAttack] = [
        attacks.JointAttack(steps=40, objective=TargetedMargin(), targets=3),
        attacks.IntermediateAttack(),
        attacks.Square(queries=50),
    ]
    if isinstance(base.cell, LyapunovCell):
        settings = {name: getattr(base, name) for name in ("solver", "adjoint", "tolerance", "max_steps")}
        auto = SurrogateAttack(jiio.EquilibriumModel(base.inject, base.cell.cell, base.head, **settings), auto, "twin")
    if regulated is None:
        return [
            *shared,
            attacks.SimultaneousAttack(),
            attacks.AdjointEnsemble(objective=DLR()),
            APGD(steps=30, objective=Margin()),
            auto,
        ]
    return [
        *shared,
        SurrogateAttack(base, auto, "undefended"),
        SurrogateAttack(regulated.smoothed(), PGD(steps=6, objective=Margin()), "smoothed"),
        APGD(steps=20, objective=Margin()),
    ]


def measure(name: str, seed: int, options: argparse.Namespace) -> Row:
    """One model under both evaluations."""
    begin = time.process_time()
    base, batches = trained(name, seed, options)
    regulated = RegulatedModel.of(base, radius=RADIUS, updates=UPDATES) if RECIPES[name][1] else None
    model = base if regulated is None else regulated
    (x, y), _ = batches[0], say(f"{name}, seed {seed}: {time.process_time() - begin:.0f} s for the training")
    row: Row = {"model": name, "seed": seed, "training seconds": time.process_time() - begin}
    row |= as_published(model, base, x, y, seed)
    report = attacks.evaluate(
        model,
        batches,
        ThreatModel("linf", RADIUS),
        proper(base, regulated, options.fast),
        generator=torch.Generator().manual_seed(seed),
        curve=(0.5,),
        audit=Audit(samples=24, steps=20, queries=50),
        pictures=0,
    )
    row |= {"clean": report.clean.share, "unconverged": report.unconverged}
    row |= {f"proper {RADIUS * point['factor']:g}": point["robust"]["share"] for point in report.curve}
    row |= {"broken by": {line["name"]: line["broken"] for line in report.attacks}}
    row |= {"findings": report.findings, "trusted": report.trusted, "seconds": time.process_time() - begin}
    say(f"{name}, seed {seed}: clean {row['clean']:.1%}, proper {report.robust.share:.1%}, {row['seconds']:.0f} s")
    return row


def run(options: argparse.Namespace) -> Row:
    """All models of one seed, then the next seed, until the time is up."""
    options.cache = options.cache or Path("robustness-claims")
    begin, rows, left = time.monotonic(), [], 0
    for seed in range(options.seeds):
        for number, name in enumerate(RECIPES):
            if name not in options.models:
                continue
            known = f"result-{number}-{seed}"
            late = time.monotonic() - begin > 60 * options.minutes
            if late and not (options.cache / f"{known}.json").exists():
                left += 1
            else:
                rows.append(kept(options.cache, known, lambda name=name, seed=seed: measure(name, seed, options)))
    if left:
        say(f"{left} of {options.seeds * len(options.models)} are left: run the same command again.")
    tables(rows)
    return {"rows": rows, "left": left, "radius": RADIUS, "samples": options.samples}


def tables(rows: list[Row]) -> None:
    """Percentages: median over the seeds, lowest and highest."""
    for radius in (RADIUS / 2, RADIUS):
        shown = []
        for name in RECIPES:
            own = [row for row in rows if row["model"] == name]
            keys = [key for key in own[0] if key.endswith(f" {radius:g}")] if own else []
            if not own:
                continue
            papers = [min(row[key] for key in keys if not key.startswith("proper")) for row in own]
            full = [row[f"proper {radius:g}"] for row in own]
            line: Row = {"model": name, "seeds": len(own), "clean": percent([row["clean"] for row in own])}
            line |= {"as published": percent(papers), "proper": percent(full)}
            line |= {"lost": percent([a - b for a, b in zip(papers, full, strict=True)])}
            names = sorted({f["name"] for row in own for f in row["findings"] if f["severity"] == "error"})
            shown.append(line | {"errors of the audit": ", ".join(names) or "none"})
        show(f"accuracy in %, Linf {radius:g}; as published: the strongest of the papers' attacks", shown)
    for radius in RADII:
        curve = []
        for name in RECIPES:
            own = [row for row in rows if row["model"] == name]
            keys = [key for key in own[0] if key.endswith(f" {radius:g}")] if own else []
            if own:
                curve.append({"model": name} | {k.rsplit(" ", 1)[0]: percent([r[k] for r in own]) for k in keys})
        show(f"all attacks, Linf {radius:g}", curve)


def percent(shares: list[float]) -> str:
    """Median and range."""
    return spread([round(100 * share, 4) for share in shares])


if __name__ == "__main__":
    made = parser(__doc__, seeds=3)
    made.add_argument("--minutes", type=positive, default=1000, help="begin no other model after so many minutes")
    made.add_argument("--samples", type=positive, default=200, help="test images (default 200)")
    made.add_argument("--steps", type=positive, default=300, help="training steps (default 300)")
    made.add_argument("--cell", choices=("Dense", "Multiscale"), default="Dense", help="of the network (default Dense)")
    made.add_argument("--models", nargs="+", choices=list(RECIPES), default=list(RECIPES), help="which (default all)")
    made.add_argument(
        "--scaling", choices=("spectral", "none"), default="spectral", help="of the cell (default spectral)"
    )
    sys.exit(main(made, run))
