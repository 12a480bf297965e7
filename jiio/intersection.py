"""The intersection of sets: exact for boxes with one ball of each kind, else Dykstra's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .checks import ArgumentTypeError, check_integer, fail
from .constraints import Box, L1Ball, L2Ball, LinfBall
from .layout import Tree
from .nearest import clip, onto, onto_both, refuse_apart
from .prox import AbstractProx, Active


@dataclass(frozen=True)
class Intersection(AbstractProx):
    """The nearest point that lies in every set, for example ``Intersection(L2Ball(0.5, center=image), Box(0, 1))``.

    parts: two sets or more; a prior is refused. Boxes and Linf balls with at most one L1 and at most one L2 ball are
    projected onto exactly, by a search for one multiplier per sample and ball; any other mixture by Dykstra's algorithm
    (Boyle and Dykstra 1986) in at most ``rounds`` sweeps. Dykstra is only feasible in the limit, so plain alternating
    projections follow until the point is in every set to rounding.
    """

    parts: tuple[AbstractProx, ...]
    rounds: int = 2000

    def __init__(self, *parts: AbstractProx, rounds: int = 2000) -> None:
        for part in parts:
            if not isinstance(part, AbstractProx):
                fail("Intersection", "sets such as Box(0, 1) and L2Ball(1.0)", part, error=ArgumentTypeError)
            if not part.is_set:
                fail("Intersection", "constraint sets only", type(part).__name__, "Put the prior into the objective.")
        if len(parts) < 2:
            fail("Intersection", "at least two sets", f"{len(parts)}")
        flat = sum((part.parts if isinstance(part, Intersection) else (part,) for part in parts), ())
        object.__setattr__(self, "parts", flat)
        object.__setattr__(self, "rounds", check_integer("Intersection.rounds", rounds, 1))

    @property
    def separable(self) -> bool:  # type: ignore[override]
        return all(part.separable for part in self.parts)

    def bind(self, x: Tree) -> AbstractProx:
        return Intersection(*(part.bind(x) for part in self.parts), rounds=self.rounds)

    def rows(self, index: Tensor, x: Tree) -> AbstractProx | None:
        parts = [part.rows(index, x) for part in self.parts]
        found = [part for part in parts if part is not None]
        return Intersection(*found, rounds=self.rounds) if len(found) == len(parts) else None

    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        boxes = [part for part in self.parts if isinstance(part, (Box, LinfBall))]
        balls = [part for part in self.parts if isinstance(part, (L1Ball, L2Ball))]
        kinds = [type(ball) for ball in balls]
        if len(boxes) + len(balls) < len(self.parts) or len(set(kinds)) < len(kinds):
            return self._dykstra(x, step)

        interval = _common(boxes, x) if boxes else None
        if len(balls) == 2:
            (corner,) = (ball for ball in balls if isinstance(ball, L1Ball))
            (sphere,) = (ball for ball in balls if isinstance(ball, L2Ball))
            return onto_both(corner, sphere, x, interval)
        return onto(balls[0], x, *interval) if balls and interval else clip(x, *interval)  # type: ignore[misc]

    def excess(self, x: Tensor) -> Tensor:
        return torch.stack([part.excess(x) for part in self.parts]).amax(0)

    def active(self, x: Tensor, gradient: Tensor) -> Active:
        parts = [part.active(x, gradient) for part in self.parts]
        free = parts[0].free
        for part in parts[1:]:
            free = free & part.free
        normals = sum((part.normals for part in parts), ())
        return Active(free, normals, sum((part.weights for part in parts), ()), sum(part.diagonal for part in parts))

    def _dykstra(self, x: Tensor, step: Tensor | float) -> Tensor:
        """The nearest point by sweeps over all parts, then into every part to rounding."""
        tiny = 4 * torch.finfo(x.dtype).eps * (1 + x.detach().abs().amax(1, keepdim=True))
        x = self._swept(x, step, tiny)
        for _ in range(self.rounds):
            outside = self.excess(x)[:, None] > tiny
            if not bool(outside.any()):
                break
            for part in self.parts:
                x = torch.where(outside, part.apply(x, step), x)
        excess = self.excess(x)
        if bool((excess > 1e3 * tiny[:, 0]).any()):
            refuse_apart(excess)
        return x

    def _swept(self, x: Tensor, step: Tensor | float, tiny: Tensor) -> Tensor:
        """Dykstra's sweeps until nothing moves by more than ``tiny`` (B, 1)."""
        increments = [torch.zeros_like(x) for _ in self.parts]
        running = torch.ones_like(x[:, :1], dtype=torch.bool)
        for _ in range(self.rounds):
            y, change = x, torch.zeros_like(tiny)
            for i, part in enumerate(self.parts):
                moved = y + increments[i]
                y = part.apply(moved, step)
                # The point may rest for many sweeps while the increments still move; they have to rest as well.
                change = torch.maximum(change, (moved - y - increments[i]).abs().amax(1, keepdim=True))
                increments[i] = torch.where(running, moved - y, increments[i])

            # Each sample stops for itself, or it would hear of its neighbours.
            x = torch.where(running, y, x)
            running = running & (change > tiny)
            if not bool(running.any()):
                break
        return x


def _common(boxes: list[Any], x: Tensor) -> tuple[Tensor, Tensor]:
    """The bounds of every coordinate under all boxes, each (B, n)."""
    low, high = boxes[0].interval(x)
    for box in boxes[1:]:
        other = box.interval(x)
        low, high = torch.maximum(low, other[0]), torch.minimum(high, other[1])
    if len(boxes) > 1 and bool((low > high).any()):
        slack = 16 * torch.finfo(x.dtype).eps * (1 + torch.maximum(low.abs(), high.abs()))
        if bool((low > high + slack).any()):
            refuse_apart(low - high)
    return low, high
