"""The intersection of sets: exact for boxes and one ball (the constraint of an image attack), else Dykstra's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from .checks import ArgumentTypeError, check_integer, fail
from .constraints import Box, L1Ball, L2Ball, LinfBall
from .layout import Tree
from .prox import AbstractProx, Active

Norm = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Intersection(AbstractProx):
    """The nearest point that lies in every set, for example ``Intersection(L2Ball(0.5, center=image), Box(0, 1))``.

    Boxes and Linf balls with at most one L1 or L2 ball are projected onto exactly, by a search for one multiplier per
    sample; any other mixture by Dykstra's algorithm (Boyle and Dykstra 1986) in at most ``rounds`` sweeps. Dykstra is
    only feasible in the limit, so plain alternating projections follow until the point is in every set to rounding.
    """

    parts: tuple[AbstractProx, ...]
    rounds: int = 200

    def __init__(self, *parts: AbstractProx, rounds: int = 200) -> None:
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

    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        boxes = [part for part in self.parts if isinstance(part, (Box, LinfBall))]
        balls = [part for part in self.parts if isinstance(part, (L1Ball, L2Ball))]
        if len(boxes) + len(balls) < len(self.parts) or len(balls) > 1:
            return self._dykstra(x, step)
        low, high = boxes[0].interval(x)
        for box in boxes[1:]:
            other = box.interval(x)
            low, high = torch.maximum(low, other[0]), torch.minimum(high, other[1])
        if len(boxes) > 1 and bool((low > high).any()):
            slack = 16 * torch.finfo(x.dtype).eps * (1 + torch.maximum(low.abs(), high.abs()))
            if bool((low > high + slack).any()):
                _apart(low - high)
        return _onto(balls[0], x, low, high) if balls else _clip(x, low, high)

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
            _apart(excess)
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


def _apart(gap: Tensor) -> NoReturn:
    remedy = "Is the centre of the ball inside the box?"
    fail("Intersection", "sets that meet", f"a gap of {float(gap.amax()):.1e}", remedy)


def _clip(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
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
        clipped = _clip(u, self.a, self.b)
        free = torch.where(u == clipped, self.d, torch.zeros_like(s))
        return (clipped * clipped).sum(1, keepdim=True), (free * free).sum(1, keepdim=True)


class _Thresholded:
    """Soft thresholds of x - center clipped to the box, s = -threshold: the way to an L1 ball."""

    def __init__(self, d: Tensor, a: Tensor, b: Tensor) -> None:
        self.d, self.a, self.b = d, a, b
        self.bottom, self.top = -d.detach().abs().amax(1, keepdim=True), torch.zeros_like(d[:, :1])

    def target(self, radius: Tensor) -> Tensor:
        return radius

    def start(self, target: Tensor) -> Tensor:
        return self.top

    def shrunk(self, s: Tensor) -> Tensor:
        return self.d.sign() * (self.d.abs() + s).clamp_min(0.0)

    def norm(self, s: Tensor) -> tuple[Tensor, Tensor]:
        u = self.shrunk(s)
        free = (u > self.a) & (u < self.b) & (u != 0)
        return _clip(u, self.a, self.b).abs().sum(1, keepdim=True), free.sum(1, keepdim=True).to(self.d)


def _onto(ball: L1Ball | L2Ball, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
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
    return center + _clip(torch.where(inside, d, way.shrunk(s)), a, b)


def _check_meets(ball: L1Ball | L2Ball, radius: Tensor, a: Tensor, b: Tensor) -> None:
    """Raise where ball and box [a, b], both seen from the centre of the ball, have no point in common."""
    if not bool((a.amax() > 0) | (b.amin() < 0)):
        return  # the centre is in the box
    near = _clip(torch.zeros_like(a), a, b)
    reach = near.norm(p=2 if isinstance(ball, L2Ball) else 1, dim=1, keepdim=True)
    if bool((reach > radius + 1e3 * torch.finfo(a.dtype).eps * (radius + reach)).any()):
        _apart(reach - radius)


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

    The norm grows, and is piecewise linear.
    """
    finfo = torch.finfo(high.dtype)
    for _ in range(200):
        value, slope = norm(s)
        above = value > target
        low, high = torch.where(above, low, s), torch.where(above, s, high)
        newton = s + (target - value) / slope.clamp_min(finfo.tiny)
        following = torch.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
        still = (following - s).abs() <= finfo.eps * s.abs()
        done = done | still | ((value - target).abs() <= 2 * finfo.eps * target)
        s = torch.where(done, s, following)
        if bool(done.all()):
            break
    return s
