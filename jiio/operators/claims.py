"""Whether a point that meets the tolerance may be called converged: does the objective still fall from there?

The residual of x is a step in units that were measured somewhere else. Where the cell has saturated since, or began in
saturation, those units say nothing, and a residual in them is small on a slope. The question here has none:

    Within a distance R of x a convex objective falls by at most   <g, x - x'> + |x - x'| (R + |x - x'|) / a,

with x' the point that a step of length a leads to. R is the size of x, or the way that moves the state by its own
size. Nothing is called for that. Only where the bound is worth more than the tolerance leaves open in the objective
anyway, |mu| times the state's allowance, the state is followed along the gradient: two evaluations a probe.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from ..persample import placed
from ..prox import AbstractProx
from ..rules import AbstractRule
from .base import Point
from .packed import PackedProblem
from .scales import Scales, curvature

WORTH = 5.0  # times what the tolerance of the state leaves open in the objective
NEARER = 1 / 3  # of the way, for the second probe
LOOKS = 8  # times that a sample gets other units; from then on the bound alone decides
TINY = 1e-30


class Claimant(Protocol):
    """A joint map, as far as claims go. looks (B,): how often a sample got other units here."""

    rule: AbstractRule
    packed: PackedProblem
    prox: AbstractProx
    scales: Scales
    looks: Tensor
    plain: Tensor

    def rows(self, index: Tensor) -> Self | None: ...

    def adopt(self, places: Tensor, part: Self) -> None: ...

    def parts(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]: ...


class Claimed(NamedTuple):
    """Where a claim was made, packed: state, multiplier, input, gradient of the Lagrangian in x, and the value (B,).

    The objective, and what follows from it, is divided by the sigma of the solve, so that nothing underflows.
    """

    z: Tensor
    mu: Tensor
    x: Tensor
    gradient: Tensor
    value: Tensor


@torch.no_grad()
def refused(operator: Claimant, v: Tensor, point: Point, asked: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """v (B, D) in other units for those of ``asked`` (B,) that are still on a slope, and who they are (B,).

    allowed (B,): RMS that the tolerance leaves the state, not below what the arithmetic does.
    """
    if operator.rule.curvature is not None:  # raw units were asked for
        return v, torch.zeros_like(asked)
    assert point.gradient is not None and point.value is not None
    z, mu, x, memory = operator.parts(v)
    sigma = operator.scales.sigma
    at = Claimed(z, mu / sigma, x, point.gradient / sigma, point.value / sigma[:, 0])
    worth = _worth(at, allowed)
    reach = torch.maximum(_length(x), _length(z) / operator.scales.root[:, 0])
    open_ = asked & (_bound(operator, at, reach) > worth)
    count = int(open_.sum())
    if count == 0:
        return v, open_
    if count < len(open_):
        index = torch.nonzero(open_)[:, 0]
        part = operator.rows(index)
        if part is not None:  # the others need not be followed
            few, again = refused(part, v[index], point.rows(index), open_[index], allowed[index])
            operator.adopt(index, part)
            return placed(v, index, few), placed(torch.zeros_like(open_), index, again)

    # From afar, for what is beyond a plateau; nearer, in front of a wall; and where the bottom should be.
    seen = _probed(operator, at, reach, open_)
    way = torch.full_like(reach, NEARER)
    for _ in range(2):
        left = open_ & ~(seen.fall > worth)
        if not bool(left.any()):
            break
        nearer = _probed(operator, at, (way * reach).clamp_min(TINY), left)
        deeper = left & (nearer.fall > seen.fall)
        seen = Probe(*(torch.where(deeper, new, old) for new, old in zip(nearer, seen, strict=True)))
        way = way * nearer.bottom
    again = open_ & (seen.fall > worth)

    # New units for the first few times: the curvature along the way down is what a step should be measured by.
    changed = again & (operator.looks < LOOKS)
    operator.looks = operator.looks + changed
    if bool(changed.any()):
        _renew(operator, at, seen.bend, changed)
    return operator.scales.pack(z, mu, x, memory), again


def _worth(at: Claimed, allowed: Tensor) -> Tensor:
    """(B,) change of the objective that is none: the allowance of the state times its price, and rounding."""
    delta = allowed * at.z.shape[1] ** 0.5
    rounding = torch.finfo(at.z.dtype).eps * at.value.abs()
    return WORTH * (_length(at.mu) * delta + delta.square() + rounding)


def _bound(operator: Claimant, at: Claimed, reach: Tensor) -> Tensor:
    """(B,) by how much a convex objective can fall within ``reach`` (B,) of x; without a call."""
    step = 1.0 / operator.scales.kappa
    there = operator.prox.apply(at.x - step * at.gradient, step / operator.scales.sigma)
    moved = _length(there - at.x)
    return _slope(operator, at, there) + moved * (reach + moved) / step[:, 0]


def _slope(operator: Claimant, at: Claimed, there: Tensor) -> Tensor:
    """(B,) fall of the linearised objective, a prior included, from x to ``there``."""
    fall = (at.gradient * (at.x - there)).sum(1)
    if operator.prox.is_set:
        return fall
    return fall + (operator.prox.penalty(at.x) - operator.prox.penalty(there)) / operator.scales.sigma[:, 0]


class Probe(NamedTuple):
    """fall (B,): of the objective, at the bottom of the parabola through what was seen, or as far as was seen.
    bottom (B,): where that is, as a share of the way. bend (B,): the curvature along the way, above zero.
    """

    fall: Tensor
    bottom: Tensor
    bend: Tensor


def _probed(operator: Claimant, at: Claimed, reach: Tensor, asked: Tensor) -> Probe:
    """Follow the state of those ``asked`` (B,) along the gradient, ``reach`` (B,) far; two evaluations of the cell.

    The Lagrangian, not the objective: its first derivative is right although the state lags.
    """
    step = (reach / _length(at.gradient).clamp_min(TINY))[:, None]
    there = operator.prox.apply(at.x - step * at.gradient, step / operator.scales.sigma)
    there = torch.where(asked[:, None], there, at.x)
    near = operator.packed.ahead(at.z, there)[0]
    image, value = operator.packed.ahead(near, there)
    value = value / operator.scales.sigma[:, 0]
    if not operator.prox.is_set:
        value = value + operator.prox.penalty(there) / operator.scales.sigma[:, 0]
    seen = at.value - value - (at.mu * (image - near)).sum(1)
    seen = torch.where(torch.isfinite(seen), seen, torch.full_like(seen, -float("inf")))

    # value(t) = -slope t + (slope - seen) t^2 for t in [0, 1]
    slope, moved = _slope(operator, at, there).clamp_min(0), _length(there - at.x).clamp_min(TINY)
    half = slope - seen
    inside = 2 * half > slope
    bottom = torch.where(inside, slope / (2 * half).clamp_min(TINY), torch.ones_like(slope))
    fall = torch.where(inside, 0.5 * slope * bottom, seen)
    bend = torch.where(inside, 2 * half, slope) / moved.square()
    return Probe(fall, bottom, bend)


def _renew(operator: Claimant, at: Claimed, bend: Tensor, changed: Tensor) -> None:
    """The units of those in ``changed`` (B,): curvature in z as it is here, and in x along the way down."""
    old, keep = operator.scales, ~changed[:, None]
    sigma = curvature(operator.packed, at.z, at.x)
    kappa = (bend[:, None] * (old.sigma / sigma)).clamp(TINY, 1 / TINY)
    operator.scales = Scales(torch.where(keep, old.sigma, sigma), torch.where(keep, old.kappa, kappa))
    operator.plain = operator.plain | changed[:, None]


def _length(part: Tensor) -> Tensor:
    """(B, n) -> (B,)."""
    return torch.linalg.vector_norm(part, dim=1)
