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
        increments = [torch.zeros_like(x) for _ in self.parts]
        tiny = 4 * torch.finfo(x.dtype).eps * (1 + x.detach().abs().amax(1, keepdim=True))
        running = torch.ones_like(x[:, :1], dtype=torch.bool)
        for _ in range(self.rounds):
            y, change = x, torch.zeros_like(tiny)
            for i, part in enumerate(self.parts):
                moved = y + increments[i]
                y = part.apply(moved, step)
                # The point may rest for many sweeps while the increments still move; they have to rest as well.
                change = torch.maximum(change, (moved - y - increments[i]).abs().amax(1, keepdim=True))
                increments[i] = torch.where(running, moved - y, increments[i])
            x = torch.where(running, y, x)  # each sample stops for itself, or it would hear of its neighbours
            running = running & (change > tiny)
            if not bool(running.any()):
                break
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


def _apart(gap: Tensor) -> NoReturn:
    remedy = "Is the centre of the ball inside the box?"
    fail("Intersection", "sets that meet", f"a gap of {float(gap.amax()):.1e}", remedy)


def _clip(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, low), high)


def _onto(ball: L1Ball | L2Ball, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Projection onto a ball and a box: clip(shrink(x)), where one number s per sample says how far to shrink.

    s is t^2 for an L2 ball, whose shrinking is t (x - center) with t in [0, 1], and -level for an L1 ball, whose
    shrinking is the soft threshold ``level``. Either way the (squared) norm of the clipped point grows with s and is
    linear between kinks.
    """
    center = 0.0 if ball.center is None else ball.center
    d, a, b = x - center, low - center, high - center
    radius = ball.radius if isinstance(ball.radius, Tensor) else x.new_full((1, 1), ball.radius)
    euclidean = isinstance(ball, L2Ball)
    target = radius.square() if euclidean else radius
    finfo = torch.finfo(x.dtype)

    def shrunk(s: Tensor) -> Tensor:
        if euclidean:
            return d * s.clamp_min(finfo.tiny).sqrt() * (s > 0)
        return d.sign() * (d.abs() + s).clamp_min(0.0)

    def norm(s: Tensor) -> tuple[Tensor, Tensor]:
        """The (squared) norm of the clipped point at s, and its slope in s, both (B, 1)."""
        u = shrunk(s)
        free, clipped = (u > a) & (u < b), _clip(u, a, b)
        if euclidean:
            return clipped.square().sum(1, keepdim=True), (d * free).square().sum(1, keepdim=True)
        return clipped.abs().sum(1, keepdim=True), (free & (u != 0)).sum(1, keepdim=True).to(d)

    with torch.no_grad():
        top = torch.ones_like(d[:, :1]) if euclidean else torch.zeros_like(d[:, :1])
        bottom = torch.zeros_like(top) if euclidean else -d.abs().amax(1, keepdim=True)
        least = norm(bottom)[0]
        reach = least.sqrt() if euclidean else least  # of the point of the box that is nearest to the centre
        if bool((reach > radius + 1e3 * finfo.eps * (radius + reach)).any()):
            _apart(reach - radius)
        inside = norm(top)[0] <= target
        s = _root(norm, target, bottom, top, inside)
    # One more Newton step, with a graph where one is being recorded: the norm is linear in s between kinks, so
    # this step
    # carries the derivatives of the root, first and second, and moves nothing else.
    value, slope = norm(s)
    moves = slope > 0
    s = torch.where(moves, s + (target - value) / torch.where(moves, slope, torch.ones_like(slope)), s)
    s = torch.minimum(torch.maximum(s, bottom), top)
    return center + torch.where(inside, _clip(d, a, b), _clip(shrunk(s), a, b))


def _root(norm: Norm, target: Tensor, low: Tensor, high: Tensor, done: Tensor) -> Tensor:
    """s (B, 1) in [low, high] with norm(s) = target, for a growing piecewise linear norm: Newton in a bracket."""
    s, finfo = high, torch.finfo(high.dtype)
    for _ in range(200):
        value, slope = norm(s)
        above = value > target
        low, high = torch.where(above, low, s), torch.where(above, s, high)
        newton = s + (target - value) / slope.clamp_min(finfo.tiny)
        following = torch.where((newton >= low) & (newton < high), newton, 0.5 * (low + high))
        still = (following - s).abs() <= finfo.eps * s.abs()
        done = done | still | ((value - target).abs() <= 2 * finfo.eps * target)
        s = torch.where(done, s, following)
        if bool(done.all()):
            break
    return s
