"""Does any attack ever succeed inside a certified radius? A monotone network on MNIST, 1,000 test images.

The network (Winston and Kolter's monotone cell, linear injection and head) is trained on MNIST at 14 x 14 and certified
image by image (L2). Every image is then attacked at exactly its own certified radius, by the whole suite, and again at
multiples of it, where attacks must begin to succeed or the test would say nothing.

    python benchmarks/certified.py --cache FOLDER --output certified.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from harness import Row, kept, main, parser, positive, say, show, spread

import jiio
from jiio import attacks
from jiio.attacks import APGD, PGD, Margin, TargetedMargin, ThreatModel, certify
from jiio.tasks.classify.data import ClassifyDataConfig, load_labelled
from jiio.tasks.classify.networks import NetworkConfig
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.config import OptimiserConfig
from jiio.tasks.frame.loop import train

FACTORS = (1.0, 4.0)
ASKED = (0.1, 0.25, 0.5, 1.0)


def suite(fast: bool) -> list[attacks.AbstractAttack]:
    """The deq suite with fewer steps, and AutoAttack's two Auto-PGD losses in our own hands (it takes one radius for
    all images, and here every image has its own).
    """
    return [
        attacks.JointAttack(objective=TargetedMargin(), targets=2),
        attacks.IntermediateAttack(states=(1, 5), unrolled=(5,)),
        attacks.SimultaneousAttack(),
        PGD(steps=10, objective=Margin()),
        APGD(steps=5 if fast else 20, objective=TargetedMargin(), targets=2),
        attacks.Square(queries=20 if fast else 50),
    ]


def measure(seed: int, options: argparse.Namespace) -> Row:
    """One network."""
    folder = options.cache / f"monotone-{seed}"
    config = ClassifyConfig(
        output=str(folder),
        seed=seed,
        steps=50 if options.fast else 200,
        checkpoint_every=100,
        optimiser=OptimiserConfig(rate=5e-3, warmup=20, weight_decay=0.1),
        data=ClassifyDataConfig("mnist", 14, batch_size=100, train_limit=20_000, test_limit=options.samples),
        model=NetworkConfig(Choice("Monotone", {"features": 32, "m": 1.0}), max_steps=100),
    )
    model = Classify.network(train(config, resume=True, data_root=options.data_root, report=lambda line: None))
    assert isinstance(model, jiio.EquilibriumModel)
    # The residual that the solver leaves is taken off the gap: solve well.
    model = jiio.EquilibriumModel(
        model.inject, model.cell, model.head, tolerance=jiio.Tolerance(1e-6, 1e-5), on_failure="ignore", max_steps=200
    ).eval()
    data = load_labelled(config.data, data_root=options.data_root)
    x, y = data.test, data.test_labels
    certificate = certify(model, x, y, ThreatModel("l2", 1.0))
    assert certificate is not None
    radius = certificate.radius
    right = radius > 1e-4  # below, the ball is of the size of rounding
    row: Row = {"seed": seed, "images": len(x), "certified": int(right.sum()), "lipschitz": certificate.lipschitz}
    row["clean"] = float((attacks.Target(model).predict(x).label == y).float().mean())
    row["median radius"] = float(radius[right].median())
    row |= {f"certified at {r:g}": float((radius >= r).float().mean()) for r in ASKED}
    x, y, radius = x[right], y[right], radius[right].float()
    for factor in FACTORS:
        broken = torch.zeros(len(x), dtype=torch.bool)
        for attack in suite(options.fast):
            left = torch.nonzero(~broken)[:, 0]
            threat = ThreatModel("l2", (radius * factor)[left])
            draws = torch.Generator().manual_seed(seed)
            broken[left] |= attack(model, x[left], y[left], threat, generator=draws).success
        row[f"broken at {factor:g} x"] = int(broken.sum())
        say(f"seed {seed}: {int(broken.sum())} of {len(x)} broken at {factor:g} times their certified radius")
    return row


def run(options: argparse.Namespace) -> Row:
    """All seeds."""
    options.cache = options.cache or Path("certified")
    rows = [kept(options.cache, f"seed-{s}", lambda s=s: measure(s, options)) for s in range(options.seeds)]
    show(f"{options.samples} test images, every one at its own radius (L2)", rows)
    inside = [row[f"broken at {FACTORS[0]:g} x"] for row in rows]
    show("broken inside the certified radius", [{"seeds": len(rows), "broken": spread([float(n) for n in inside])}])
    return {"rows": rows}


if __name__ == "__main__":
    made = parser(__doc__, seeds=1)
    made.add_argument("--samples", type=positive, default=1000, help="test images (default 1000)")
    sys.exit(main(made, run))
