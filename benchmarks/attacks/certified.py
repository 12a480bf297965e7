"""Does any attack ever succeed inside a certified radius? A monotone network on MNIST, 1,000 test images.

    python -m benchmarks.attacks.certified --cache FOLDER --output certified.json
    # about 20 minutes; --fast --samples 20: 1

The network (Winston and Kolter's monotone cell, linear injection and head) is trained on MNIST at 14 x 14 and certified
image by image (L2). Every image is then attacked at exactly its own certified radius, by the whole suite, and again at
multiples of it, where attacks must begin to succeed or the test would say nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

import jiio
from benchmarks.attacks.digits import digits
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, say, show, spread
from benchmarks.trainings import classifier
from jiio import attacks
from jiio.attacks import APGD, PGD, Margin, TargetedMargin, ThreatModel, certify
from jiio.tasks.classify.data import load_labelled
from jiio.tasks.classify.networks import NetworkConfig
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.config import OptimiserConfig

FACTORS = (1.0, 4.0)
ASKED = (0.1, 0.25, 0.5, 1.0)
TIGHT = {"tolerance": jiio.Tolerance(1e-6, 1e-5), "on_failure": "ignore", "max_steps": 200}


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


def broken_at(
    model: jiio.EquilibriumModel,
    x: Tensor,
    y: Tensor,
    radius: Tensor,
    seed: int,
    attempts: list[attacks.AbstractAttack],
) -> int:
    """How many images some attack breaks, each within its own L2 radius (B,)."""
    broken = torch.zeros(len(x), dtype=torch.bool)
    # What one attack has broken the next one need not try.
    for attack in attempts:
        left = torch.nonzero(~broken)[:, 0]
        if len(left) == 0:
            break  # an attack on no image is refused

        draws = torch.Generator().manual_seed(seed)
        broken[left] |= attack(model, x[left], y[left], ThreatModel("l2", radius[left]), generator=draws).success
    return int(broken.sum())


def measure(seed: int, options: argparse.Namespace) -> Row:
    """One network."""
    network = NetworkConfig(Choice("Monotone", {"features": 32, "m": 1.0}), max_steps=100)
    steps, learning = 50 if options.fast else 200, OptimiserConfig(rate=5e-3, warmup=20, weight_decay=0.1)
    folder = options.cache / f"monotone-{seed}"
    config = digits(folder, network, seed=seed, steps=steps, test=options.samples, optimiser=learning)
    model = classifier(config, options.data_root)
    # The residual that the solver leaves is taken off the gap: solve well.
    model = jiio.EquilibriumModel(model.inject, model.cell, model.head, **TIGHT).eval()  # type: ignore[arg-type]

    data = load_labelled(config.data, data_root=options.data_root)
    return {"seed": seed} | attacked(model, data.test, data.test_labels, seed, options.fast)


def attacked(model: jiio.EquilibriumModel, x: Tensor, y: Tensor, seed: int, fast: bool) -> Row:
    """The certificates of all images (B, 1, 14, 14), and the attacks on those that have one."""
    certificate = certify(model, x, y, ThreatModel("l2", 1.0))
    assert certificate is not None
    radius = certificate.radius
    right = radius > 1e-4  # below, the ball is of the size of rounding
    row: Row = {"images": len(x), "certified": int(right.sum()), "lipschitz": certificate.lipschitz}
    row["clean"] = float((attacks.Target(model).predict(x).label == y).float().mean())
    row["median radius"] = float(radius[right].median())
    row |= {f"certified at {r:g}": float((radius >= r).float().mean()) for r in ASKED}

    x, y, radius = x[right], y[right], radius[right].float()
    for factor in FACTORS:
        count = broken_at(model, x, y, radius * factor, seed, suite(fast))
        row[f"broken at {factor:g} x"] = count
        say(f"seed {seed}: {count} of {len(x)} broken at {factor:g} times their certified radius")
    return row


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All seeds."""
    found = [rows.each(str(s), measure, s, options) for s in range(options.seeds)]
    show(f"{options.samples} test images, every one at its own radius (L2)", found)
    inside = [float(row[f"broken at {FACTORS[0]:g} x"]) for row in found]
    show("broken inside the certified radius", [{"seeds": len(found), "broken": spread(inside)}])


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=1)
    made.number("--samples", 1000, "test images")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
