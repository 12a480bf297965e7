"""Several runs of one attack: restarts and targets, each on the samples that resisted the runs before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from .base import rows
from .objectives import AbstractObjective, likeliest_targets, margin
from .target import Target
from .threat import ThreatModel


@dataclass
class Best:
    """The strongest point that a run has seen, per sample: by margin, and misclassified before all else."""

    x: Tensor
    margin: Tensor

    @classmethod
    def empty(cls, x: Tensor) -> Best:
        return cls(x.clone(), torch.full((len(x),), float("-inf"), dtype=x.dtype, device=x.device))

    def offer(self, x: Tensor, logits: Tensor, y: Tensor) -> None:
        gap = margin(logits, y)
        better = gap > self.margin
        self.x = torch.where(rows(better, x), x, self.x)
        self.margin = torch.where(better, gap, self.margin)


class Restarted(Protocol):
    """What an attack that is run several times says about it."""

    @property
    def objective(self) -> AbstractObjective: ...
    @property
    def targets(self) -> int: ...
    @property
    def restarts(self) -> int: ...
    @property
    def random_start(self) -> bool: ...


@dataclass(frozen=True)
class Run:
    """One run: on which samples, towards which classes (B,), from where."""

    model: Target
    x: Tensor
    y: Tensor
    threat: ThreatModel
    target: Tensor | None = None
    point: Tensor | None = None

    @property
    def start(self) -> Tensor:
        """The point (B, ...) to start from."""
        return self.x if self.point is None else self.point

    def part(self, index: Tensor) -> Run:
        """The same run on some of the samples."""
        target = None if self.target is None else self.target[index]
        return replace(self, x=self.x[index], y=self.y[index], threat=self.threat.select(index), target=target)


def restarted(attack: Restarted, once: Callable[[Run], Tensor], whole: Run, generator: torch.Generator) -> Tensor:
    """Candidates (B, ...) from all runs of ``attack``: ``restarts`` of them, for each target where it has targets."""
    targets: list[Tensor | None] = [None]
    if attack.objective.targeted:
        logits = whole.model.predict(whole.x).logits
        targets = [*likeliest_targets(logits, whole.y, attack.targets)]
    best, left = Best.empty(whole.x), torch.arange(len(whole.x), device=whole.x.device)
    single = len(targets) * attack.restarts == 1
    for target in targets:
        for number in range(attack.restarts):
            run = replace(whole, target=target).part(left)
            if attack.random_start or number:
                run = replace(run, point=run.threat.random_start(run.x, generator))
            found = once(run)
            if single:
                return found  # there is nothing to compare it with
            gap = margin(whole.model.predict(found).logits, run.y)
            better = gap > best.margin[left]
            best.x[left[better]], best.margin[left[better]] = found[better], gap[better]
            left = torch.nonzero(best.margin <= 0)[:, 0]
            if not len(left):
                return best.x
    return best.x
