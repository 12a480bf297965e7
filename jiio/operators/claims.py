"""Whether a point that meets the tolerance may be called converged: does the objective still fall from there?

The residual of x is a step in units that were measured somewhere else. Where the cell has saturated since, or began in
saturation, those units say nothing, and a residual in them is small on a slope. Two questions, for which nothing is
called:

    Within a distance R of x a convex objective falls by at most   <g, x - x'> + |x - x'| (R + |x - x'|) / a,

with x' the point that a step of length a leads to, and R the size of x, or the way that moves the state by its own
size. Is that worth more than the tolerance leaves open in the objective anyway, |mu| times the state's allowance? And
does the multiplier no longer reach the input, J_x^T mu being next to nothing beside |mu| and the gain that was
measured? A plateau looks like that, and so do units of ReLU that are all off, where the derivative knows one side of a
kink; a minimum without a regulariser does as well. Nothing is lost where the units were measured on a plateau already:
there all of x moves the state by less than its tolerance. And where the curvature of the objective in z is gone since
they were measured, as far from the bottom of a log cosh, they are believed that much less. Only where one of the
questions says yes the state is followed along the gradient, from near to far as long as the objective does not rise
(behind a ridge lies somebody else's valley): two evaluations a probe.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from ..persample import placed
from ..prox import AbstractProx
from ..rules import AbstractRule
from .base import Point, select
from .packed import PackedProblem
from .scales import Local, Scales, measured

WORTH = 5.0  # times what the tolerance of the state leaves open in the objective
NUMB = 200.0  # times less than the gain that was measured: the multiplier no longer reaches the input
NEAR = 1 / 9  # of the reach, where the numb are looked at first
PROBES = 4  # at most
TRUST = 30.0  # times that the curvature may be below its unit without that gain telling
SMALL = 0.1  # of a state whose numbers are of order one: nearer to zero its size says nothing
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
def refused(
    operator: Claimant, v: Tensor, point: Point, asked: Tensor, allowed: Tensor, here: Local | None = None
) -> tuple[Tensor, Tensor]:
    """v (B, D) in other units for those of ``asked`` (B,) that are still on a slope, and who they are (B,).

    allowed (B,): RMS that the tolerance leaves the state, not below what the arithmetic does. here: what the objective
    says at v, where somebody has asked before.
    """
    if operator.rule.curvature is not None or not bool(asked.any()):  # raw units were asked for
        return v, torch.zeros_like(asked)
    assert point.gradient is not None and point.value is not None
    z, mu, x, memory = operator.parts(v)
    sigma = operator.scales.sigma
    at = Claimed(z, mu / sigma, x, point.gradient / sigma, point.value / sigma[:, 0])
    reach = torch.maximum(_length(x), _length(z) / operator.scales.root[:, 0])
    here = Local(operator.packed, z, x) if here is None else here
    lost, calm = _lost(operator, at, here)
    worth = _worth(at, allowed, calm)
    bound, moved = _bound(operator, at, reach, (TRUST + lost.square()) / calm)
    deaf = _deaf(operator, x, allowed * z.shape[1] ** 0.5) & (lost <= NUMB)
    numb = ((lost > NUMB) | deaf) & (_length(at.mu) * _size(z) > worth)
    open_ = asked & ((bound > worth) | numb)
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

    # The share of the way at which to look first: about as far as the units say, or where a plateau may end.
    beyond = (SMALL * z.shape[1] ** 0.5 / operator.scales.root[:, 0]).masked_fill(deaf, 0.0)
    reach = torch.where(numb, 2 * _length(x) + beyond, reach)
    share = torch.where(numb, torch.full_like(reach, NEAR), (moved / reach.clamp_min(TINY)).clamp(TINY, 1.0).sqrt())
    seen = _followed(operator, at, reach, share, open_, worth)
    again = open_ & (seen.fall > worth)

    # New units for the first few times: the curvature along the way down is what a step should be measured by. Across a
    # plateau nothing here tells the curvature, so there the solve begins anew at the lower point that was seen.
    changed = again & (operator.looks < LOOKS)
    operator.looks = operator.looks + changed
    across = changed & numb & ~seen.risen
    if bool((changed & ~across).any()):
        _renew(operator, here, seen.bend, changed & ~across)
    if bool(across.any()):
        begun = measured(operator.packed, seen.z, mu, seen.x, cold=True)
        z, mu, x = (select(across, *pair) for pair in ((begun.image, z), (begun.slope, mu), (seen.x, x)))
        _take(operator, begun.scales, across)
    return operator.scales.pack(z, mu, x, memory), again


def _worth(at: Claimed, allowed: Tensor, calm: Tensor) -> Tensor:
    """(B,) change of the objective that is none: the allowance of the state times its price, and rounding."""
    delta = allowed * at.z.shape[1] ** 0.5
    rounding = torch.finfo(at.z.dtype).eps * at.value.abs()
    return WORTH * (_length(at.mu) * delta + calm * delta.square() + rounding)


def _lost(operator: Claimant, at: Claimed, here: Local) -> tuple[Tensor, Tensor]:
    """(B,) how many times less of the multiplier reaches the input than the gain that was measured, and the share of
    the curvature in z that is left here, 1 at most; without a call.
    """
    sigma = operator.scales.sigma
    left = here.curvature / sigma
    through = _length(at.gradient - here.slopes[1] / sigma)
    return _length(at.mu) * operator.scales.root[:, 0] / through.clamp_min(TINY), left[:, 0].clamp(TINY, 1.0)


def _deaf(operator: Claimant, x: Tensor, delta: Tensor) -> Tensor:
    """(B,) whether all of x moves the state, by the gain that was measured, within what its tolerance leaves it: that
    gain is of a plateau as well, and nothing beside it is lost there.
    """
    size = _length(x)
    return (size > 0) & (size * operator.scales.root[:, 0] <= delta)


def _bound(operator: Claimant, at: Claimed, reach: Tensor, trust: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) by how much a convex objective can fall within ``reach`` (B,) of x, or ``trust`` (B,) times as far as a step
    moves it; and how far that is (B,).
    """
    step = 1.0 / operator.scales.kappa
    there = operator.prox.apply(at.x - step * at.gradient, step / operator.scales.sigma)
    moved = _length(there - at.x)
    return _slope(operator, at, there) + moved * (torch.minimum(reach, trust * moved) + moved) / step[:, 0], moved


def _slope(operator: Claimant, at: Claimed, there: Tensor) -> Tensor:
    """(B,) fall of the linearised objective, a prior included, from x to ``there``."""
    fall = (at.gradient * (at.x - there)).sum(1)
    if operator.prox.is_set:
        return fall
    return fall + (operator.prox.penalty(at.x) - operator.prox.penalty(there)) / operator.scales.sigma[:, 0]


def _followed(operator: Claimant, at: Claimed, reach: Tensor, share: Tensor, asked: Tensor, worth: Tensor) -> Probe:
    """What is seen downhill of those ``asked`` (B,), at first at a ``share`` (B,) of their reach (B,)."""
    seen, left, flat = None, asked, torch.zeros_like(share)
    for _ in range(PROBES):
        new = _probed(operator, at, reach, share, left)
        seen = new if seen is None else Probe(*(select(left, n, old) for n, old in zip(new, seen, strict=True)))
        left = left & ~(seen.fall > worth) & (~seen.risen | seen.far | (flat > 0))
        if not bool(left.any()):
            break
        # Farther where it does not rise; between the two where it rises only there; nearer where the state jumped.
        flat = torch.where(seen.risen, flat, share)
        between = torch.where(flat > 0, (flat * share).sqrt(), NEAR * share)
        share = torch.where(seen.risen, between, share.sqrt())
    assert seen is not None
    return seen


class Probe(NamedTuple):
    """fall (B,): of the objective, at the bottom of the parabola through what was seen, or as far as was seen.
    bend (B,): the curvature along the way, above zero. risen (B,): whether the objective is higher there.
    far (B,): whether the state moved by more than its own size, so that what was seen says little. z, x (B, n): where.
    """

    fall: Tensor
    bend: Tensor
    risen: Tensor
    far: Tensor
    z: Tensor
    x: Tensor


def _probed(operator: Claimant, at: Claimed, reach: Tensor, share: Tensor, asked: Tensor) -> Probe:
    """Follow the state of those ``asked`` (B,) along the gradient, a ``share`` (B,) of ``reach`` (B,) far; two
    evaluations of the cell.

    The Lagrangian, not the objective: its first derivative is right although the state lags.
    """
    step = (share * reach / _length(at.gradient).clamp_min(TINY))[:, None]
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
    bend = torch.maximum(2 * half, slope * (moved / reach.clamp_min(TINY)).clamp(max=1.0)) / moved.square()
    far = _length(near - at.z) > _size(at.z)
    risen = seen < -WORTH * torch.finfo(seen.dtype).eps * at.value.abs()
    return Probe(fall, bend, risen, far, near, there)


def _renew(operator: Claimant, here: Local, bend: Tensor, changed: Tensor) -> None:
    """The units of those in ``changed`` (B,): curvature in z as it is here, and in x along the way down."""
    sigma = here.curvature
    kappa = (bend[:, None] * (operator.scales.sigma / sigma)).clamp(TINY, 1 / TINY)
    _take(operator, Scales(sigma, kappa), changed)


def _take(operator: Claimant, new: Scales, changed: Tensor) -> None:
    """These units for those in ``changed`` (B,), who go on without a metric."""
    pairs = zip(new.pair, operator.scales.pair, strict=True)
    operator.scales = Scales(*(torch.where(changed[:, None], here, old) for here, old in pairs))
    operator.plain = operator.plain | changed[:, None]


def _size(state: Tensor) -> Tensor:
    """(B, n) -> (B,) length, not below that of a state whose numbers are small."""
    return _length(state).clamp_min(SMALL * state.shape[1] ** 0.5)


def _length(part: Tensor) -> Tensor:
    """(B, n) -> (B,)."""
    return torch.linalg.vector_norm(part, dim=1)
