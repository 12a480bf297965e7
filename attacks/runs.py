"""Several runs of one attack: restarts and targets, each on the samples that resisted the runs before it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from jiio.checks import check_integer, fail
from jiio.outputs import seeds
from jiio.outputs.digest import fingerprint

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
        """Nothing seen yet: whatever is offered first is kept."""
        return cls(x.clone(), torch.full((len(x),), float("-inf"), dtype=x.dtype, device=x.device))

    def offer(self, x: Tensor, logits: Tensor, y: Tensor) -> None:
        """Keep of the points x (B, ...), with these scores, those that are stronger."""
        gap = margin(logits, y)
        better = gap > self.margin
        self.x = torch.where(rows(better, x), x, self.x)
        self.margin = torch.where(better, gap, self.margin)

    def enter(self, x: Tensor, gap: Tensor, at: Tensor) -> None:
        """Offer points with these margins for the samples with the indices ``at`` alone."""
        better = gap > self.margin[at]
        self.x[at[better]], self.margin[at[better]] = x[better], gap[better]


class Starts:
    """Random allowed points that belong to the sample: a seed, the image and the number of the run decide them, neither
    its batch mates nor its place among them. What leaves the batch changes nothing for those that stay.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))

    def __call__(self, x: Tensor, threat: ThreatModel, number: int = 0) -> Tensor:
        """Points (B, ...) to start the run with this number from."""
        pixels, order = x.detach().cpu(), torch.arange(len(x), device=x.device)

        found = []
        for i in range(len(x)):
            draws = seeds.generator(self.seed, "start", number, fingerprint(pixels[i]))
            found.append(threat.select(order[i : i + 1]).random_start(x[i : i + 1], draws))
        return torch.cat(found)


class Restarted(Protocol):
    """What an attack that is run several times says about it."""

    @property
    def objective(self) -> AbstractObjective: ...
    @property
    def targets(self) -> int | tuple[int, ...]: ...
    @property
    def restarts(self) -> int: ...
    @property
    def random_start(self) -> bool: ...


@dataclass(frozen=True)
class Run:
    """One run: on which samples, from where. aimed: (B,) the classes to reach, for a targeted objective."""

    model: Target
    x: Tensor
    y: Tensor
    threat: ThreatModel
    aimed: Tensor | None = None
    point: Tensor | None = None

    @property
    def start(self) -> Tensor:
        """The point (B, ...) to start from."""
        return self.x if self.point is None else self.point

    def part(self, index: Tensor) -> Run:
        """The same run on some of the samples."""
        aimed = None if self.aimed is None else self.aimed[index]
        return replace(self, x=self.x[index], y=self.y[index], threat=self.threat.select(index), aimed=aimed)


def restarted(attack: Restarted, once: Callable[[Run], Tensor], whole: Run, generator: torch.Generator) -> Tensor:
    """Candidates (B, ...) from all runs of ``attack``: ``restarts`` of them, for each aim where it has aims."""
    aims = _aims(attack, whole)
    single = len(aims) * attack.restarts == 1
    best, left = Best.empty(whole.x), torch.arange(len(whole.x), device=whole.x.device)
    starts, runs = Starts(generator), itertools.product(aims, range(attack.restarts))

    for place, (aimed, number) in enumerate(runs):
        run = replace(whole, aimed=aimed).part(left)
        if attack.random_start or number:
            run = replace(run, point=starts(run.x, run.threat, place))
        found = once(run)
        if single:
            return found  # there is nothing to compare it with

        # What is broken is left out of the runs to come.
        best.enter(found, margin(whole.model.predict(found).logits, run.y), left)
        left = torch.nonzero(best.margin <= 0)[:, 0]
        if not len(left):
            break
    return best.x


def _aims(attack: Restarted, whole: Run) -> list[Tensor | None]:
    """The classes to reach, (B,) each, the likeliest first; None alone for an objective without a target."""
    if not attack.objective.targeted:
        return [None]
    logits = whole.model.predict(whole.x).logits
    if isinstance(attack.targets, int):
        return [*likeliest_targets(logits, whole.y, attack.targets)]
    return [_chosen(target, logits, whole.y) for target in attack.targets]


def _chosen(target: int, logits: Tensor, y: Tensor) -> Tensor:
    """The same class to reach for all samples (B,); for those whose own class it is, the likeliest wrong one."""
    if target >= logits.shape[1]:
        fail("targets", f"classes from 0 to {logits.shape[1] - 1}, as the model has", f"{target}")
    (likeliest,) = likeliest_targets(logits, y, 1)
    return torch.where(y == target, likeliest, torch.full_like(y, target))


def check_targets(name: str, targets: Any) -> None:
    """Raise unless it is how many of the likeliest classes are tried, or a tuple of classes."""
    if not isinstance(targets, (tuple, list)):
        check_integer(name, targets, 1)
        return
    if not targets:
        fail(name, "a whole number, or a tuple of classes", "an empty one")
    for target in targets:
        check_integer(name, target, 0)
