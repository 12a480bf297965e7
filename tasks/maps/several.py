"""Several maps, one after the other: a scene that was blurred, of which pixels are missing, that became a JPEG file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jiio.checks import fail

from .base import LinearMap


@dataclass(frozen=True, eq=False)
class Composed(LinearMap):
    """``then(first(x))``. The noise is that of ``then``: noise between the two is noise behind both.

    first: a map of images to images. then: of those images to the measurement.
    """

    first: LinearMap
    then: LinearMap
    sigma: float = 0.0

    def of_samples(self, index: Tensor, batch: int) -> Composed | None:
        first, then = self.first.of_samples(index, batch), self.then.of_samples(index, batch)
        return (
            Composed(first, then, self.sigma) if isinstance(first, LinearMap) and isinstance(then, LinearMap) else None
        )

    def A(self, x: Tensor) -> Tensor:
        return self.then.A(self.first.A(x))

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self.first.A_adjoint(self.then.A_adjoint(y))

    def measure(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.then.measure(self.first.A(x), generator)

    @property
    def diagonal(self) -> Tensor | None:
        d, e = self.first.diagonal, self.then.diagonal
        return None if d is None or e is None else d * e

    def start(self, y: Tensor) -> Tensor:
        return self.first.start(self.then.start(y))

    def about(self, x: Tensor, step: Tensor) -> Tensor:
        return self.first.about(x, step)

    def window(self, top: int, left: int, height: int, width: int) -> Composed:
        inside = self.first.seen(top, left, height, width)
        return dataclasses.replace(
            self, first=self.first.window(top, left, height, width), then=self.then.window(*inside)
        )

    def window_of(self, y: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
        return self.then.window_of(y, *self.first.seen(top, left, height, width))


def composed(*maps: LinearMap) -> LinearMap:
    """The maps in the order in which they happened; the noise is that of the last."""
    found = maps[0]
    for then in maps[1:]:
        found = Composed(found, then, then.sigma)
    return found


def chained(steps: Any) -> Callable[[Tensor], Any]:
    """A sequence of functions, or of objects with ``A``, as one function of images."""
    if not len(steps):
        fail("physics", "at least one map in the sequence", "none")
    calls = [getattr(step, "A", step) for step in steps]
    for call in calls:
        if not callable(call):
            fail("physics", "maps in the order in which they happened", call)

    def through(x: Tensor) -> Any:
        for call in calls:
            x = call(x)
        return x

    return through
