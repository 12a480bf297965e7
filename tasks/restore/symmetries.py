"""A restorer averaged over the symmetries of the square: turns by quarters, and mirror images of them.

A mirrored photograph is as likely as the photograph, but a trained network says so only nearly. The mean over n of the
eight symmetries takes its taste for directions away (for the gradient step it is the gradient step of the averaged
energy), at n times the price. Known as self-ensemble in super-resolution (Timofte, Rothe and Van Gool, "Seven ways to
improve example-based single image super resolution", CVPR 2016).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jiio.checks import fail
from jiio.tasks.maps.base import Denoise, Inpaint, LinearMap
from jiio.tasks.maps.forward import AbstractMap

from .base import AbstractRestorer, Restoration

# 2: as it is, and mirrored at a diagonal; 4: the quarter turns; 8: all.
SYMMETRIES = {1: (0,), 2: (0, 5), 4: (0, 1, 2, 3), 8: tuple(range(8))}


def check_symmetries(argument: str, count: int) -> int:
    """A number of symmetries that can be averaged over."""
    if count not in SYMMETRIES:
        fail(argument, "1, 2, 4 or 8 symmetries", count)
    return count


def turn(x: Tensor, which: int) -> Tensor:
    """Symmetry 0 (x itself) to 7 of the last two dimensions: ``which % 4`` quarter turns, from 4 on mirrored."""
    x = torch.rot90(x, which % 4, (-2, -1))
    return x.flip(-1) if which >= 4 else x


def turn_back(x: Tensor, which: int) -> Tensor:
    """The inverse of :func:`turn`."""
    x = x.flip(-1) if which >= 4 else x
    return torch.rot90(x, -(which % 4), (-2, -1))


@dataclass(frozen=True, eq=False)
class Turned(LinearMap):
    """The map of a measurement, as a map of the turned image: ``A`` after turning back."""

    operator: LinearMap
    which: int

    @property
    def sigma(self) -> float:  # type: ignore[override]
        return self.operator.sigma

    @property
    def level(self) -> float | None:  # type: ignore[override]
        return self.operator.level

    def nearest(self, x: Tensor, y: Tensor, step: Tensor) -> Tensor:
        return turn(self.operator.nearest(turn_back(x, self.which), y, step), self.which)

    def A(self, x: Tensor) -> Tensor:
        return self.operator.A(turn_back(x, self.which))

    def A_adjoint(self, y: Tensor) -> Tensor:
        return turn(self.operator.A_adjoint(y), self.which)

    def start(self, y: Tensor) -> Tensor:
        return turn(self.operator.start(y), self.which)

    def keep(self, y: Tensor, x: Tensor) -> Tensor:
        return turn(self.operator.keep(y, turn_back(x, self.which)), self.which)

    def norm_bound(self, image: Tensor, *, rounds: int = 30) -> float:
        return self.operator.norm_bound(turn_back(image, self.which), rounds=rounds)


def turned(y: Tensor, operator: AbstractMap, which: int) -> tuple[Tensor, LinearMap]:
    """The same restoration, asked about the turned image; a restorer that knows the kind of map still sees it."""
    if not isinstance(operator, LinearMap):
        fail("operator", "a linear map, for a mean over symmetries", operator, "Restore without symmetries.")
    if isinstance(operator, Denoise):
        return turn(y, which), operator
    if isinstance(operator, Inpaint):
        return turn(y, which), Inpaint(turn(operator.mask, which), operator.sigma)
    return y, Turned(operator, which)


class SymmetricRestorer(AbstractRestorer):
    """The mean of what a restorer makes of ``count`` (1, 2, 4 or 8) symmetries.

    Its account is of all of them: calls are summed, it has converged where all have, the residual is the largest. The
    solution, and so the trace, is that of the image as it is.
    """

    def __init__(self, restorer: AbstractRestorer, count: int) -> None:
        super().__init__()
        self.restorer, self.channels = restorer, restorer.channels
        self.which = SYMMETRIES[check_symmetries("count", count)]

    def restore(self, y: Tensor, operator: AbstractMap, **settings: Any) -> Restoration:
        done = []
        for which in self.which:
            one = self.restorer.restore(*turned(y, operator, which), **settings)
            done.append(dataclasses.replace(one, image=turn_back(one.image, which)))
        return dataclasses.replace(
            done[0],
            image=torch.stack([one.image for one in done]).mean(0),
            converged=torch.stack([one.converged for one in done]).all(0),
            residual=torch.stack([one.residual for one in done]).amax(0),
            evaluations=sum(one.evaluations for one in done),
            vjps=sum(one.vjps for one in done),
        )
