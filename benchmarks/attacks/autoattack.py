"""The suite ``standard`` beside AutoAttack called by hand: what each leaves of five networks, and at what cost.

    JIIO_DATA=DIR python -m benchmarks.attacks.autoattack --cache FOLDER --output autoattack.json
    # about half an hour of one core, trainings included; --fast: 1 minute

Two small CNNs, one trained against PGD, a residual network and a dense equilibrium, in Linf and L2, the first test
images in parts. Of every part both evaluators see the same images as one batch, one right after the other, the first
of the two in turns; seconds are those of the processor. AutoAttack is pyautoattack's ``standard`` version with all its
defaults; ours is ``evaluate(model, images, norm, radius)`` without the audit, to which the other has no counterpart.
Both are judged by one more prediction of what they returned, which has to lie inside ball and box (to 1e-5 of the
radius, as the other computes in single precision).
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.attacks.judged import NETWORKS, trained
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, say, show, show_line
from jiio.attacks import ThreatModel, evaluate

THEIRS = {"linf": "Linf", "l2": "L2"}  # how they spell the norms
Evaluator = Callable[[nn.Module, Tensor, Tensor, ThreatModel, int], Tensor]


def ours(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """The images that the suite ``standard`` leaves, (B, ...)."""
    draws = torch.Generator().manual_seed(seed)
    report = evaluate(model, [(x, y)], threat, "standard", generator=draws, audit=None, pictures=0)
    assert report.adversarial is not None
    return report.adversarial.images


def theirs(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """The images that AutoAttack leaves, (B, ...)."""
    from pyautoattack import AutoAttack  # the extra attacks

    what: dict[str, Any] = {"norm": THEIRS[threat.norm], "eps": threat.radius, "version": "standard"}
    tool = AutoAttack(model, seed=seed, device="cpu", **what)
    tool.verbose = False
    return tool.run_standard_evaluation(x, y, batch_size=len(x))[0]


EVALUATORS: dict[str, Evaluator] = {"ours": ours, "AutoAttack": theirs}


def measure(ready: Callable, name: str, norm: str, number: int, seed: int, options: argparse.Namespace) -> Row:
    """Both evaluators on one part of the test images."""
    model, data = ready(name, seed)
    part = slice(number * options.part, min((number + 1) * options.part, options.samples))
    x, y = data.test[part], data.test_labels[part]
    threat = ThreatModel(norm, NETWORKS[name].radii[norm])
    row: Row = {"samples": len(x), "clean": right(model, x, y)}

    # In turns, so that neither always meets a colder machine.
    for label in list(EVALUATORS)[:: 1 if number % 2 == 0 else -1]:
        begin = time.process_time()
        found = EVALUATORS[label](model, x, y, threat, number)
        row[f"{label} s"] = time.process_time() - begin
        row[label] = right(model, found, y)
        row[f"{label} outside"] = int((threat.violation(found, x) > 1e-5 * threat.radius).sum())
    return row


@torch.no_grad()
def right(model: nn.Module, x: Tensor, y: Tensor) -> int:
    """How many images are classified rightly."""
    return int((model(x).argmax(1) == y).sum())


def run(options: argparse.Namespace, rows: Rows) -> Row:
    """Every part of every case, until the time is up; a line for every case that is whole."""
    ready = cache(lambda name, seed: trained(name, seed, options.cache, options.data_root, options.fast))
    found: dict[tuple, list[Row]] = {}
    left, numbers = 0, range(-(-options.samples // options.part))

    # Part by part, so that a run that ends early has every network.
    for seed, number in itertools.product(range(options.seeds), numbers):
        for name, norm in itertools.product(options.networks, options.norms):
            key = f"{name}/{norm}/{seed}/{number}"
            if rows.late(key, options.minutes):
                left += 1
                continue
            row = rows.each(key, measure, ready, name, norm, number, seed, options)
            found.setdefault((name, norm, seed), []).append(row)
    if left:
        say(f"{left} parts are left: run the same command again.")
    return tables([named(*case) | told(parts) for case, parts in found.items()]) | {"left": left}


def named(name: str, norm: str, seed: int) -> Row:
    """The head of a line."""
    return {"network": name, "norm": norm, "radius": NETWORKS[name].radii[norm], "seed": seed}


def told(parts: list[Row]) -> Row:
    """One line for all parts of a case, accuracies in per cent."""
    whole = {key: sum(part[key] for part in parts) for key in parts[0]}
    line: Row = {"samples": whole["samples"]}
    line |= {key: 100 * whole[key] / whole["samples"] for key in ("clean", *EVALUATORS)}
    line |= {"points above": line["ours"] - line["AutoAttack"]}
    line |= {f"{label} s": whole[f"{label} s"] for label in EVALUATORS}
    line |= {"time ratio": whole["ours s"] / whole["AutoAttack s"]}
    return line | {"outside": whole["ours outside"] + whole["AutoAttack outside"]}


def tables(lines: list[Row]) -> Row:
    """What is printed, and the worst figures."""
    if not lines:
        return {}
    show("robust accuracy in %, seconds of the processor", lines)
    worst = {
        "points above": max(line["points above"] for line in lines),
        "time ratio": max(line["time ratio"] for line in lines),
        "time ratio in all": sum(line["ours s"] for line in lines) / sum(line["AutoAttack s"] for line in lines),
    }

    show_line("most points above AutoAttack", f"{worst['points above']:.2f} (aim: at most 0.5)")
    show_line("largest time ratio", f"{worst['time ratio']:.2f} (aim: at most 0.5)")
    show_line("time ratio over all", f"{worst['time ratio in all']:.2f}")
    return {"worst": worst}


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    fast = {"samples": 20, "part": 10, "networks": ["CNN, MNIST", "equilibrium, MNIST"]}
    made = Parser(__doc__, __file__, seeds=1, fast=fast)
    made.minutes()
    made.chosen("--networks", list(NETWORKS), list(NETWORKS), "which")
    made.chosen("--norms", list(THEIRS), list(THEIRS), "norms")
    made.number("--samples", 500, "test images")
    made.number("--part", 125, "images in one batch")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
