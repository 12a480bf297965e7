"""One climb of a gradient attack: what is asked at every point, what has been found, and who is still at work."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from jiio.layout import map_tree

from .aims import AbstractAim
from .objectives import AbstractObjective, margin
from .runs import Best, Run
from .target import Slope, Target
from .threat import ThreatModel


class Way(Protocol):
    """Where a climb is: a record of tensors with a row for every sample still at work, with the threat to just them.

    point: (B, ...) the points reached. slope: what was found there.
    """

    point: Tensor
    slope: Slope


W = TypeVar("W", bound=Way)


class Guide(Protocol):
    """What a climb asks at every point, and who keeps the best: an :class:`Ascent`, or another view of a model."""

    best: Best

    def slope(self, point: Tensor) -> Slope:
        """Objective, gradient and scores at ``point`` (B, ...)."""
        ...

    def keep(self, way: W) -> W:
        """Enter the points of this way; the way of the samples that go on."""
        ...

    def look(self, point: Tensor) -> None:
        """Enter points without asking for a gradient."""
        ...


def part(value: Any, index: Tensor) -> Any:
    """Of whatever is kept per sample (tensors, threats, records and trees of them), that of these samples."""

    def of(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf[index]
        if isinstance(leaf, ThreatModel):
            return leaf.select(index)
        if not dataclasses.is_dataclass(leaf) or isinstance(leaf, type):
            return leaf
        names = [entry.name for entry in dataclasses.fields(leaf)]
        return dataclasses.replace(leaf, **{name: part(getattr(leaf, name), index) for name in names})

    return map_tree(of, value)


@dataclass
class Ascent:
    """The objective of one run, to be asked point by point about the samples that are still at work.

    model: with the solves of the run. judge: the model that a break has to be confirmed by, from a fresh start, where
    those solves are not its own (None: they are). y: (B,) and aimed: (B,) the classes to reach, where the objective has
    a target. at: (B,) the places of the samples in the whole batch, for which ``best`` has the strongest points.
    """

    model: Target
    judge: Target | None
    objective: AbstractObjective
    aim: AbstractAim
    warm: bool
    y: Tensor
    aimed: Tensor | None
    best: Best
    at: Tensor
    state: Any = field(default=None)

    @classmethod
    def of(cls, run: Run, inner: Target, objective: AbstractObjective, aim: AbstractAim, warm: bool) -> Self:
        """For all samples of a run. inner: the model with the solves of the run."""
        judge = run.model if warm or inner is not run.model else None
        everyone = torch.arange(len(run.x), device=run.x.device)
        return cls(inner, judge, objective, aim, warm, run.y, run.aimed, Best.empty(run.x), everyone)

    def slope(self, point: Tensor) -> Slope:
        """Objective, gradient and scores at ``point`` (B, ...)."""
        found = self.model.slope(point, self.value, self.start())
        self.state = found.state
        return found

    def value(self, logits: Tensor) -> Tensor:
        """(B,) the objective for scores of the samples at work."""
        return self.objective(logits, self.y, self.aimed)

    def start(self) -> Any:
        """The state to start a solve from."""
        return self.state if self.warm else None

    def keep(self, way: W) -> W:
        """Enter the points of this way; the way of the samples that go on."""
        through = self._enter(way.point, way.slope.logits)
        if not bool(through.any()):
            return way
        left = torch.nonzero(~through)[:, 0]

        self.y, self.aimed, self.state, self.at = (part(v, left) for v in (self.y, self.aimed, self.state, self.at))
        return part(way, left)

    @torch.no_grad()
    def look(self, point: Tensor) -> None:
        """Enter points without asking for a gradient: the last ones of a climb."""
        if len(point):
            self._enter(point, self.model.forward(point, self.start())[0])

    def _enter(self, point: Tensor, logits: Tensor) -> Tensor:
        """Offer points with these scores to ``best``; (B,) who is through."""
        gap, through = margin(logits, self.y), self.aim.reached(logits, self.y)
        asked = torch.nonzero(through)[:, 0]

        # Solves that start at the last state or stop early may be wrong about that.
        if self.judge is not None and len(asked):
            fresh = self.judge.predict(point[asked]).logits
            gap[asked] = margin(fresh, self.y[asked])
            through[asked] = self.aim.reached(fresh, self.y[asked])
        self.best.enter(point, gap, self.at)
        return through
