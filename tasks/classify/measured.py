"""What an evaluation says of a classifier: untouched, and under a quick attack; several ranks share the work."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jiio import attacks
from jiio.attacks import Target, ThreatModel
from jiio.tasks.frame.dealing import dealt, present

Row = dict[str, str | float]


def quick(model: nn.Module) -> list[attacks.AbstractAttack]:
    """Attacks for a figure in passing; ``jiio attack`` has those for a figure to be defended."""
    pgd = attacks.PGD(steps=20, objective=attacks.Margin())
    return [attacks.JointAttack(objective=attacks.Margin()), pgd] if Target(model).implicit else [pgd]


def clean_row(target: Target, batches: Sequence[tuple[Tensor, Tensor]]) -> Row:
    """The accuracy on untouched images with its 95 % interval, the share of equilibria reached, and mean evaluations
    per image.
    """
    begin = time.perf_counter()

    def seen(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Which are right, which equilibria were reached, and in how many steps."""
        said = target.predict(batch[0])
        return tuple(t.cpu() for t in (said.label == batch[1], said.converged, said.steps))

    # Every batch by one of the ranks; the figures are those of all.
    with target.held():
        right, converged, steps = map(torch.cat, zip(*dealt(batches, seen), strict=True))
    low, high = attacks.interval(int(right.sum()), len(right))
    row: Row = {"images": "test, untouched", "accuracy": float(right.float().mean()), "low": low, "high": high}
    if target.implicit:
        row["converged"] = float(converged.float().mean())
        row["evaluations"] = float(steps.float().mean())
    return row | {"seconds": time.perf_counter() - begin}


def divided_attack(
    model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], threat: ThreatModel, seed: int
) -> attacks.Report:
    """The quick attack. Several ranks share the batches through a folder, from which the first makes the report; where
    it does not see what another one wrote, on another machine, it attacks those once more.
    """

    def attack(**settings: Any) -> attacks.Report:
        draws = torch.Generator().manual_seed(seed)
        return attacks.evaluate(
            model, batches, threat, quick(model), generator=draws, audit=None, pictures=0, **settings
        )

    ranks = present()
    if ranks.count == 1:
        return attack()
    with tempfile.TemporaryDirectory() as own:
        folder, workers = Path(ranks.told(own)), min(ranks.count, len(batches))
        if ranks.index < workers:
            attack(state_path=folder, shard=(ranks.index, workers))
        ranks.gathered(None)  # everybody is done
        return ranks.first(lambda: attack(state_path=folder))


def attacked_row(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], threat: ThreatModel, seed: int) -> Row:
    """What a quick attack leaves of the accuracy, with its 95 % interval."""
    begin = time.perf_counter()
    report = divided_attack(model, batches, threat, seed)
    row: Row = {"images": f"attacked, {threat.norm} {threat.radius:g}"}
    row |= {"accuracy": report.robust.share, "low": report.robust.low, "high": report.robust.high}
    if report.solver:
        row |= {"converged": report.solver["attacked"]["converged"]}
        row |= {"evaluations": report.solver["attacked"]["mean steps"]}
    return row | {"seconds": time.perf_counter() - begin}
