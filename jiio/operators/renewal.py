"""Looking once more at the units of a joint solve where a sample says that it is done.

The units are measured at the start. Where the curvature of the objective falls on the way down (an exponential of a
distance, say), a residual in those units is small long before the bottom. The measurement here costs gradients of the
objective and no call of the cell. What else may hide a slope is asked in :mod:`jiio.operators.claims`.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..rules import AbstractRule
from .base import Point
from .packed import PackedProblem
from .scales import Local, Scales

FALLEN = 1 / 30  # of the multiplier, in its units, against the largest it was: only then it is worth to look
OTHER = 10.0  # fall of a curvature that makes it another unit


class HasUnits(Protocol):
    """A joint map, as far as its units go. steep (B,): the largest multiplier so far, in its units."""

    rule: AbstractRule
    packed: PackedProblem
    scales: Scales
    steep: Tensor

    def parts(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]: ...


@torch.no_grad()
def suspicious(operator: HasUnits, point: Point) -> Tensor:
    """(B,) whose units may no longer be right, as far as what was measured anyway can tell."""
    if operator.rule.curvature is not None:
        return torch.zeros_like(point.scale[:, 0], dtype=torch.bool)
    return point.scale[:, 1] <= FALLEN * operator.steep


def renewed(
    operator: HasUnits, v: Tensor, point: Point, asked: Tensor, allowed: Tensor, here: Local
) -> tuple[Tensor, Tensor]:
    """v (B, D) in new units for those of ``asked`` (B,) that need them, and who did (B,); keeps the new units.

    allowed (B,): RMS that the tolerance leaves the state. here: what the objective says at v.
    """
    old = operator.scales
    other = asked & (here.curvature * OTHER < old.sigma)[:, 0]
    if not bool(other.any()):  # mostly, and then the rest need not be measured
        return v, other
    z, mu, x, memory = operator.parts(v)
    new = _units(old, point, here)
    changed = other & _pays(point, mu.detach(), new, allowed)
    if not bool(changed.any()):
        return v, changed
    keep = ~changed[:, None]
    operator.scales = Scales(torch.where(keep, old.sigma, new.sigma), torch.where(keep, old.kappa, new.kappa))
    operator.steep = operator.steep.masked_fill(changed, 0.0)
    return torch.where(keep, v, operator.scales.pack(z, mu, x, memory)), changed


@torch.no_grad()
def _pays(point: Point, mu: Tensor, new: Scales, allowed: Tensor) -> Tensor:
    """(B,) whether the objective would fall, in a step of the new units, by more than the state's allowance hides.

    Of a quadratic objective the curvature along its gradient falls on the way down too: from the steepest directions to
    the flattest, of which next to nothing is left.
    """
    assert point.gradient is not None
    fall = 0.5 * point.gradient.square().sum(1) / (new.sigma * new.kappa)[:, 0]
    return fall > hidden(point, mu, new.sigma, allowed)


@torch.no_grad()
def hidden(point: Point, mu: Tensor, sigma: Tensor, allowed: Tensor) -> Tensor:
    """(B,) change of the objective that none can tell from the allowance of the state, or from rounding."""
    assert point.value is not None
    delta = allowed * mu.shape[1] ** 0.5
    rounding = torch.finfo(mu.dtype).eps * point.value.abs()
    return mu.norm(dim=1) * delta + sigma[:, 0] * delta.square() + rounding


@torch.no_grad()
def _units(old: Scales, point: Point, here: Local) -> Scales:
    """The units as they are measured now."""
    assert point.gradient is not None
    sigma = here.curvature
    return Scales(sigma, old.kappa + here.own_curvature(point.gradient) / sigma)
