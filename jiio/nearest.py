"""The nearest point of a ball and a box, and of an L1 ball, an L2 ball and a box: exact, by one number per ball.

The nearest point to x in a box and a ball around c is clip(shrink(x - c)): towards an L2 ball by a factor, towards an
L1 ball by a soft threshold (the optimality conditions, coordinate by coordinate). The norm of it grows with that
number, so the number is found in a bracket that always shrinks. With both balls, u(t) = the nearest point of L1 ball
and box to c2 + t (x - c2) has a distance from c2 that grows with t in [0, 1], and t is found the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor

from .checks import fail
from .constraints import L1Ball, L2Ball

Norm = Callable[[Tensor], tuple[Tensor, Tensor]]
Interval = tuple[Tensor, Tensor] | None


def refuse_apart(gap: Tensor) -> NoReturn:
    """Raise: sets that have no point in common."""
    remedy = "Is the centre of the ball inside the box?"
    fail("Intersection", "sets that meet", f"a gap of {float(gap.amax()):.1e}", remedy)


def clip(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """x (B, n) between bounds (B, n)."""
    return torch.minimum(torch.maximum(x, low), high)


class _Scaled:
    """Points t (x - center) clipped to the box, s = t^2 in [0, 1]: the way to an L2 ball. ``norm`` is squared."""

    def __init__(self, d: Tensor, a: Tensor, b: Tensor) -> None:
        self.d, self.a, self.b = d, a, b
        self.bottom, self.top = torch.zeros_like(d[:, :1]), torch.ones_like(d[:, :1])

    def target(self, radius: Tensor) -> Tensor:
        return radius.square()

    def start(self, target: Tensor) -> Tensor:
        """Where it would end without the box. Clipping makes a point shorter, so the answer is not below; and from
        below Newton's method never steps over it, because the norm bends down.
        """
        return (target / self.d.square().sum(1, keepdim=True).clamp_min(torch.finfo(self.d.dtype).tiny)).clamp_max(1.0)

    def shrunk(self, s: Tensor) -> Tensor:
        # The square root has no derivative at zero.
        return self.d * torch.where(s > 0, s.clamp_min(torch.finfo(s.dtype).tiny).sqrt(), torch.zeros_like(s))

    def norm(self, s: Tensor) -> tuple[Tensor, Tensor]:
        u = self.shrunk(s)
        clipped = clip(u, self.a, self.b)
        free = torch.where(u == clipped, self.d, torch.zeros_like(s))
        return (clipped * clipped).sum(1, keepdim=True), (free * free).sum(1, keepdim=True)


class _Thresholded:
    """Soft thresholds of x - center clipped to the box, s = largest - threshold: the way to an L1 ball.

    Counted from the largest coordinate down, because a threshold far from the set is a large number, and the small
    differences that are wanted would drown in its rounding.
    """

    def __init__(self, d: Tensor, a: Tensor, b: Tensor) -> None:
        self.d, self.a, self.b = d, a, b
        self.bottom, self.top = torch.zeros_like(d[:, :1]), d.detach().abs().amax(1, keepdim=True)
        self.below = d.abs() - self.top

    def target(self, radius: Tensor) -> Tensor:
        return radius

    def start(self, target: Tensor) -> Tensor:
        return torch.minimum(target, self.top)

    def shrunk(self, s: Tensor) -> Tensor:
        return self.d.sign() * (self.below + s).clamp_min(0.0)

    def norm(self, s: Tensor) -> tuple[Tensor, Tensor]:
        u = self.shrunk(s)
        free = (u > self.a) & (u < self.b) & (u != 0)
        return clip(u, self.a, self.b).abs().sum(1, keepdim=True), free.sum(1, keepdim=True).to(self.d)


def onto(ball: L1Ball | L2Ball, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Projection onto a ball and a box: clip(shrink(x)), where one number s per sample says how far to shrink.

    The norm of the clipped point grows with s and is linear between kinks.
    """
    center = 0.0 if ball.center is None else ball.center
    d, a, b = x - center, low - center, high - center
    radius = ball.radius if isinstance(ball.radius, Tensor) else x.new_full((1, 1), ball.radius)
    way = _Scaled(d, a, b) if isinstance(ball, L2Ball) else _Thresholded(d, a, b)
    target = way.target(radius).expand_as(d[:, :1])
    with torch.no_grad():
        _check_meets(ball, radius, a, b)
        inside = way.norm(way.top)[0] <= target
        s = way.top if bool(inside.all()) else _root(way.norm, target, way.bottom, way.top, way.start(target), inside)
    if torch.is_grad_enabled():
        s = _with_graph(way, s, target)
    return center + clip(torch.where(inside, d, way.shrunk(s)), a, b)


def _check_meets(ball: L1Ball | L2Ball, radius: Tensor, a: Tensor, b: Tensor) -> None:
    """Raise where ball and box [a, b], both seen from the centre of the ball, have no point in common."""
    if not bool((a.amax() > 0) | (b.amin() < 0)):
        return  # the centre is in the box
    near = clip(torch.zeros_like(a), a, b)
    reach = near.norm(p=2 if isinstance(ball, L2Ball) else 1, dim=1, keepdim=True)
    if bool((reach > radius + 1e3 * torch.finfo(a.dtype).eps * (radius + reach)).any()):
        refuse_apart(reach - radius)


def _with_graph(way: _Scaled | _Thresholded, s: Tensor, target: Tensor) -> Tensor:
    """One more Newton step from the root s (B, 1), with a graph.

    Between kinks the norm is linear in s, so this step carries the derivatives of the root, first and second, and moves
    nothing else.
    """
    value, slope = way.norm(s)
    moves = slope > 0
    s = torch.where(moves, s + (target - value) / torch.where(moves, slope, torch.ones_like(slope)), s)
    return torch.minimum(torch.maximum(s, way.bottom), way.top)


def _root(norm: Norm, target: Tensor, low: Tensor, high: Tensor, s: Tensor, done: Tensor) -> Tensor:
    """From s (B, 1), the one in [low, high] with norm(s) = target: Newton in a bracket.

    The norm grows, and is piecewise linear. Newton alone can go round between kinks for ever, so every third step
    halves the bracket.
    """
    finfo = torch.finfo(high.dtype)
    for k in range(240):
        value, slope = norm(s)
        above = value > target
        low, high = torch.where(above, low, s), torch.where(above, s, high)
        newton = s + (target - value) / slope.clamp_min(finfo.tiny)
        middle = 0.5 * (low + high)
        following = torch.where((newton >= low) & (newton <= high), newton, middle) if k % 3 < 2 else middle

        narrow = high - low <= finfo.eps * high.abs()
        still = (newton - s).abs() <= finfo.eps * s.abs()
        done = done | narrow | still | ((value - target).abs() <= 2 * finfo.eps * target)
        s = torch.where(done, torch.where(narrow, low, s), following)
        if bool(done.all()):
            break
    return s


def onto_both(corner: L1Ball, sphere: L2Ball, x: Tensor, interval: Interval) -> Tensor:
    """The nearest point (B, n) of an L1 ball, an L2 ball and, where there is one, a box, in double precision."""
    dtype, x = x.dtype, x.double()
    bounds = None if interval is None else (interval[0].double(), interval[1].double())
    corner, sphere = (type(b)(_double(b.radius), _double(b.center)) for b in (corner, sphere))  # type: ignore[assignment]
    center = torch.zeros_like(x) if sphere.center is None else sphere.center
    radius = sphere.radius if isinstance(sphere.radius, Tensor) else x.new_full((1, 1), sphere.radius)

    def nearest(t: Tensor) -> Tensor:
        way = center + t * (x - center)
        return corner.apply(way, 1.0) if bounds is None else onto(corner, way, *bounds)

    def distance(t: Tensor) -> Tensor:
        return (nearest(t) - center).norm(dim=1, keepdim=True)

    with torch.no_grad():
        start = torch.zeros_like(x[:, :1])
        least = distance(start)
        if bool((least > radius * (1 + 1e-9) + 1e-12).any()):
            refuse_apart(least - radius)
        t = _crossing(distance, radius.expand_as(start), start, torch.ones_like(start))
    if torch.is_grad_enabled() and x.requires_grad:
        t = _followed(distance, radius, t)
    return nearest(t).to(dtype)


def _double(value: object) -> object:
    return value.double() if isinstance(value, Tensor) else value


def _crossing(distance: Callable[[Tensor], Tensor], radius: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The largest t (B, 1) in [low, high] at which a growing distance is at most ``radius``: secants in a bracket."""
    last, last_value = low, distance(low)
    t, value = high, distance(high)
    done = value <= radius
    for k in range(180):
        above = value > radius
        low, high = torch.where(above, low, t), torch.where(above, t, high)

        # Every third step halves the bracket, which a secant need not.
        rise = value - last_value
        secant = t - (value - radius) * (t - last) / torch.where(rise == 0, torch.ones_like(rise), rise)
        middle = 0.5 * (low + high)
        inside = (rise != 0) & (secant > low) & (secant < high) & (k % 3 < 2)
        following = torch.where(inside, secant, middle)

        close, narrow = (value - radius).abs() <= 1e-14 * radius, high - low <= 4e-16 * high
        following = torch.where(close, t, torch.where(narrow, low, following))
        last, last_value, t = t, value, torch.where(done, t, following)
        done = done | close | narrow
        if bool(done.all()):
            break
        value = distance(t)
    return t


def _followed(distance: Callable[[Tensor], Tensor], radius: Tensor, t: Tensor) -> Tensor:
    """The root t (B, 1) with a graph: one Newton step, which moves nothing and carries its derivatives."""
    leaf = t.detach().requires_grad_()
    (slope,) = torch.autograd.grad(distance(leaf).sum(), leaf, create_graph=True)
    moves = (t < 1) & (slope > 0)
    step = (radius - distance(t)) / torch.where(moves, slope, torch.ones_like(slope))
    return torch.where(moves, t + step, t)
