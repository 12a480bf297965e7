"""What the suite ``deq`` costs on a dense equilibrium, beside the same attacks with nobody spared.

    JIIO_DATA=DIR python -m benchmarks.attacks.equilibrium_suite --cache FOLDER --output equilibrium_suite.json
    # 10 minutes, nearly all of it the second row; --fast: 1 minute

"as shipped": samples that are broken leave the batch inside every attack, gradient attacks start every solve at the
last state and stop it early, and what they break is confirmed from a fresh start. "nobody spared": PGD, Auto-PGD and
the ensemble of adjoints go on to the last step for every sample, and every solve of PGD and Auto-PGD is a fresh one to
the tolerance of the model. Calls of the cell are counted per sample, by a hook: those of the forward solves and of the
graphs of backward passes; the reports' own counts are per batch.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from benchmarks.attacks.judged import NETWORKS, trained
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show, show_line
from jiio.attacks import AbstractAttack, AdjointEnsemble, Target, ThreatModel, evaluate
from jiio.attacks.suites import deq, standard

NAME = "equilibrium, MNIST"


@dataclass(frozen=True)
class Unsparing(AbstractAttack):
    """``attack`` with all its steps for every sample, broken or not."""

    attack: AbstractAttack

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        return self.attack.run(model, x, y, threat, generator)


def unsparing() -> list[AbstractAttack]:
    """The attacks of ``deq`` with nobody spared."""
    own = [one for one in deq() if one.needs_equilibrium]
    *gradients, search = standard()
    wrapped = [Unsparing(one) if isinstance(one, AdjointEnsemble) else one for one in own]
    return [*wrapped, *(Unsparing(one) for one in gradients), search]


SUITES = {"as shipped": deq, "nobody spared": unsparing}


def measure(ready: Any, label: str, options: argparse.Namespace) -> Row:
    """One suite on the first test digits, as one batch."""
    model, data = ready()
    x, y = data.test[: options.samples], data.test_labels[: options.samples]
    calls: list[int] = []
    hook = model.cell.register_forward_hook(lambda cell, inputs, image: calls.append(len(image)))

    begin, draws = time.process_time(), torch.Generator().manual_seed(0)
    threat = ThreatModel("linf", NETWORKS[NAME].radii["linf"])
    report = evaluate(model, [(x, y)], threat, SUITES[label](), generator=draws, audit=None, pictures=0)
    seconds = time.process_time() - begin
    hook.remove()

    total = {name: sum(line["cost"].get(name, 0) for line in report.attacks) for name in ("evaluations", "vjps")}
    row: Row = {"samples": len(x), "clean": report.clean.count, "robust": report.robust.count}
    row |= {"unconverged": report.unconverged, "seconds": seconds, "calls per sample": sum(calls) / len(x)}
    return row | {f"{name} of the batch": count for name, count in total.items()} | {"attacks": report.attacks}


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Both suites."""
    ready = cache(lambda: trained(NAME, 0, options.cache, options.data_root, options.fast))
    found = {label: rows.each(label, measure, ready, label, options) for label in options.suites}
    show("the suite deq, Linf 0.05", [{"": label} | _figures(row) for label, row in found.items()])
    if len(found) == 2:
        shipped, other = found.values()
        for key in ("seconds", "calls per sample"):
            show_line(f"{key}, times fewer", f"{other[key] / shipped[key]:.1f}")


def _figures(row: Row) -> Row:
    return {key: value for key, value in row.items() if key != "attacks"}


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=1, fast={"samples": 4, "suites": ["as shipped"]})
    made.chosen("--suites", list(SUITES), list(SUITES), "which")
    made.number("--samples", 100, "test digits")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
