"""The sets and priors: boxes, balls, the simplex, soft threshold, quadratic prior."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import ArgumentTypeError, check_number, fail
from .layout import Tree, leaves
from .prox import AbstractProx, Active, check_radius, rows_of_fields


def check_parameter(name: str, value: Tree) -> None:
    """A number, or a tensor or tree of tensors."""
    if isinstance(value, (Tensor, tuple, list, dict)):
        for leaf in leaves(value):
            if not isinstance(leaf, Tensor):
                fail(name, "a number, a tensor or a tree of tensors", leaf, error=ArgumentTypeError)
    elif isinstance(value, numbers.Real) and not isinstance(value, bool):
        check_number(name, value)
    else:
        fail(name, "a number, a tensor or a tree of tensors", value, error=ArgumentTypeError)


def rounding(x: Tensor) -> float:
    """What counts as touching a constraint: as wide as an iterated projection needs, far below any tolerance."""
    return torch.finfo(x.dtype).eps ** 0.75


def _pinned(x: Tensor, gradient: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Coordinates at a bound, to rounding, with the gradient pushing outward."""
    slack = rounding(x) * (1 + x.abs())
    return ((x <= low + slack) & (gradient > 0)) | ((x >= high - slack) & (gradient < 0))


@dataclass(frozen=True)
class Box(AbstractProx):
    """low <= x <= high, coordinate by coordinate.

    low, high: numbers, or anything that broadcasts to x; infinite where there is no bound.
    """

    low: Tree
    high: Tree

    separable = True

    def __post_init__(self) -> None:
        for name, value in (("Box.low", self.low), ("Box.high", self.high)):
            if isinstance(value, float) and math.isinf(value):
                continue
            check_parameter(name, value)
        if any(isinstance(end, float) and end == bad for end, bad in ((self.low, math.inf), (self.high, -math.inf))):
            fail("Box", "low below infinity and high above minus infinity", f"low {self.low} and high {self.high}")
        if isinstance(self.low, (int, float)) and isinstance(self.high, (int, float)) and self.low > self.high:
            fail("Box", "low at most high", f"low {self.low:g} and high {self.high:g}")

    def bind(self, x: Tree) -> AbstractProx:
        bound = super().bind(x)
        low, high = bound.low, bound.high  # type: ignore[attr-defined]
        if isinstance(low, Tensor) or isinstance(high, Tensor):
            above = int(torch.as_tensor(low > high).sum())
            if above:
                fail("Box", "low at most high", f"low above high in {above} places")
            if bool(torch.as_tensor((low == math.inf) | (high == -math.inf)).any()):
                fail("Box", "low below infinity and high above minus infinity", "a coordinate that no number can be in")
        return bound

    def rows(self, index: Tensor, x: Tree) -> AbstractProx | None:
        return rows_of_fields(self, index, x)

    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        return _clip(x, self.low, self.high)

    def interval(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The bounds of every coordinate, each like x (B, n)."""
        low, high = (torch.as_tensor(t, dtype=x.dtype, device=x.device) for t in (self.low, self.high))
        return low.expand_as(x), high.expand_as(x)

    def excess(self, x: Tensor) -> Tensor:
        return (x - _clip(x, self.low, self.high)).abs().amax(1)

    def active(self, x: Tensor, gradient: Tensor) -> Active:
        return Active(~_pinned(x, gradient, self.low, self.high))


def _clip(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    low = low if isinstance(low, Tensor) else x.new_tensor(low)
    high = high if isinstance(high, Tensor) else x.new_tensor(high)
    return torch.minimum(torch.maximum(x, low), high)


@dataclass(frozen=True)
class _Ball(AbstractProx):
    """radius: a number of at least 0, or (B,), in units of x. center: anything that broadcasts to x; None for 0."""

    radius: Tensor | float
    center: Tree | None = None

    def __post_init__(self) -> None:
        check_radius(f"{type(self).__name__}.radius", self.radius)
        if self.center is not None:
            check_parameter(f"{type(self).__name__}.center", self.center)

    def _offset(self, x: Tensor) -> Tensor:
        return x if self.center is None else x - self.center

    def _place(self, d: Tensor) -> Tensor:
        return d if self.center is None else d + self.center

    def _moved(self, x: Tensor, d: Tensor, new: Tensor) -> Tensor:
        """The point whose offset is ``new`` and was ``d``; x itself, to the last bit, where it does not move."""
        return new if self.center is None else torch.where(new == d, x, self._place(new))

    def _slack(self, x: Tensor) -> Tensor:
        return rounding(x) * (1 + x.abs().amax(1, keepdim=True))


@dataclass(frozen=True)
class L2Ball(_Ball):
    """|x - center|_2 <= radius; radius a number or (B,)."""

    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        d = self._offset(x)
        outside = d.detach().norm(dim=1, keepdim=True) > self.radius
        # The norm has no second derivative at zero: where it is not wanted it must not be taken at all.
        length = torch.where(outside, d, torch.ones_like(d)).norm(dim=1, keepdim=True)
        return self._moved(x, d, torch.where(outside, d * (self.radius / length), d))

    def excess(self, x: Tensor) -> Tensor:
        return (self._offset(x).norm(dim=1, keepdim=True) - self.radius).clamp_min(0.0)[:, 0]

    def active(self, x: Tensor, gradient: Tensor) -> Active:
        d = self._offset(x)
        length = d.norm(dim=1, keepdim=True)
        binds = (length >= self.radius - self._slack(x) * (1 + length)) & ((d * gradient).sum(1, keepdim=True) <= 0)
        fixed = binds & (length <= self._slack(x))  # radius zero: nothing may move
        return Active((~fixed).expand_as(x), (torch.where(binds, d, torch.zeros_like(d)),), (1.0,))


@dataclass(frozen=True)
class LinfBall(_Ball):
    """max |x - center| <= radius; radius a number or (B,)."""

    separable = True

    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        radius = self.radius if isinstance(self.radius, Tensor) else x.new_tensor(self.radius)
        d = self._offset(x)
        return self._moved(x, d, torch.minimum(torch.maximum(d, -radius), radius))

    def interval(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The bounds of every coordinate, each like x (B, n)."""
        zero = torch.zeros_like(x)
        return self._place(zero - self.radius), self._place(zero + self.radius)

    def excess(self, x: Tensor) -> Tensor:
        return (self._offset(x).abs().amax(1, keepdim=True) - self.radius).clamp_min(0.0)[:, 0]

    def active(self, x: Tensor, gradient: Tensor) -> Active:
        return Active(~_pinned(self._offset(x), gradient, -self.radius, self.radius))


@dataclass(frozen=True)
class L1Ball(_Ball):
    """sum |x - center| <= radius, by sorting (Duchi et al. 2008); radius a number or (B,)."""

    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        d = self._offset(x)
        size = d.abs()
        # Counted from the largest down: far away, what is wanted is a small difference of large numbers.
        below = size - size.detach().amax(1, keepdim=True)
        ordered = below.sort(dim=1, descending=True).values
        rank = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)
        excess = (ordered.cumsum(1) - self.radius) / rank
        count = (ordered > excess).sum(1, keepdim=True).clamp_min(1)
        level = excess.gather(1, count - 1)
        inside = size.sum(1, keepdim=True) <= self.radius
        return self._moved(x, d, torch.where(inside, d, d.sign() * (below - level).clamp_min(0.0)))

    def excess(self, x: Tensor) -> Tensor:
        return (self._offset(x).abs().sum(1, keepdim=True) - self.radius).clamp_min(0.0)[:, 0]

    def active(self, x: Tensor, gradient: Tensor) -> Active:
        d = self._offset(x)
        binds = (d.abs().sum(1, keepdim=True) >= self.radius - self._slack(x) * x.shape[1]) & (
            (d * gradient).sum(1, keepdim=True) <= 0
        )
        zero = d.abs() <= torch.finfo(x.dtype).eps
        return Active(~(binds & zero), (torch.where(binds, d.sign() * ~zero, torch.zeros_like(d)),), (0.0,))


@dataclass(frozen=True)
class Simplex(AbstractProx):
    """x >= 0 and sum x = total: shares, probabilities, a blur kernel. total: a number above 0.

    The projection is exact, by sorting: one number is taken from all coordinates, and what falls below zero is zero.
    """

    total: float = 1.0

    def __post_init__(self) -> None:
        check_number("Simplex.total", self.total, 0.0, open_low=True)

    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        # Counted from the largest down, as for the L1 ball.
        below = x - x.detach().amax(1, keepdim=True)
        ordered = below.sort(dim=1, descending=True).values
        rank = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)
        level = (ordered.cumsum(1) - self.total) / rank
        count = (ordered > level).sum(1, keepdim=True).clamp_min(1)
        return (below - level.gather(1, count - 1)).clamp_min(0.0)

    def excess(self, x: Tensor) -> Tensor:
        return torch.maximum((x.sum(1) - self.total).abs(), (-x).amax(1).clamp_min(0.0))

    def active(self, x: Tensor, gradient: Tensor) -> Active:
        zero = x <= rounding(x) * self.total
        rest = torch.where(zero, torch.inf, gradient).amin(1, keepdim=True)  # what all that may move would pay
        free = ~(zero & (gradient > rest))
        return Active(free, (free.to(x),), (0.0,))


@dataclass(frozen=True)
class SoftThreshold(AbstractProx):
    """g(x) = weight * |x|_1 (a sparse prior). weight: a number, or anything that broadcasts to x."""

    weight: Tree

    separable = True
    is_set = False

    def __post_init__(self) -> None:
        _check_weight("SoftThreshold.weight", self.weight)

    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        return x.sign() * (x.abs() - step * self.weight).clamp_min(0.0)

    def excess(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0])

    def penalty(self, x: Tensor) -> Tensor:
        return (self.weight * x.abs()).sum(1)

    def active(self, x: Tensor, gradient: Tensor) -> Active:
        return Active(x != 0)


@dataclass(frozen=True)
class QuadraticPrior(AbstractProx):
    """g(x) = weight / 2 * |x - center|^2 (a Gaussian prior).

    weight: a number of at least 0, or anything that broadcasts to x. center: likewise; None for 0.
    """

    weight: Tree
    center: Tree | None = None

    separable = True
    is_set = False

    def __post_init__(self) -> None:
        _check_weight("QuadraticPrior.weight", self.weight)
        if self.center is not None:
            check_parameter("QuadraticPrior.center", self.center)

    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        pull = step * self.weight
        return (x + (0.0 if self.center is None else pull * self.center)) / (1 + pull)

    def excess(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0])

    def penalty(self, x: Tensor) -> Tensor:
        d = x if self.center is None else x - self.center
        return (0.5 * self.weight * d * d).sum(1)

    def active(self, x: Tensor, gradient: Tensor) -> Active:
        return Active(torch.ones_like(x, dtype=torch.bool), diagonal=self.weight)


def _check_weight(name: str, weight: Tree) -> None:
    check_parameter(name, weight)
    for leaf in leaves(weight):
        if not isinstance(leaf, Tensor):
            check_number(name, leaf, 0.0)
        elif not bool((leaf >= 0).all()):
            fail(name, "weights of at least 0", f"a smallest weight of {float(leaf.min()):g}")
