"""What the adversary may do: a ball around each image, inside the range of valid images.

A threat works on tensors (B, ...) and on the packed rows (B, n) behind them. One ball per sample here;
:class:`attacks.MultiViewThreat` has one per view, and everything below goes through :meth:`ThreatModel.parts`, so that
no attack needs to know the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from jiio import AbstractProx, Box, Intersection, L1Ball, L2Ball, LinfBall
from jiio.checks import ArgumentTypeError, check_choice, check_number, fail
from jiio.nearest import clip, onto

from .spelling import spelt

NORMS = {"linf": LinfBall, "l2": L2Ball, "l1": L1Ball}
Bound = float | Tensor
Part = tuple[slice, Any]


@dataclass(frozen=True, eq=False)
class ThreatModel:
    """|x' - x| <= radius in ``norm``, and low <= x' <= high.

    norm: "linf", "l2" or "l1", also as papers spell it ("Linf", "L_2"). radius: a number above 0, or a tensor (B,), one
    per sample. bounds: (low, high) of valid inputs, each a number (infinite where there is no bound), or a tensor (C,)
    per channel or of the shape of a sample.
    """

    norm: str
    radius: float | Tensor
    bounds: tuple[Bound, Bound] = (0.0, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", check_choice("ThreatModel.norm", spelt(self.norm), NORMS))
        self._check_radius()
        _check_bounds(self.bounds)

    def _check_radius(self) -> None:
        if not isinstance(self.radius, Tensor):
            check_number("ThreatModel.radius", self.radius, 0.0, open_low=True)
        elif self.radius.dim() != 1 or not bool((torch.isfinite(self.radius) & (self.radius > 0)).all()):
            fail("ThreatModel.radius", "a number above 0, or a tensor (B,) of them", self.radius)

    # -- the ball or balls

    def parts(self, size: int) -> tuple[Part, ...]:
        """Which numbers of a packed sample of this size each ball holds, and its radius: a number or (B,)."""
        return ((slice(0, size), self.radius),)

    def select(self, mask: Tensor) -> ThreatModel:
        """The threat for the samples that a mask or index (B,) picks."""
        if not isinstance(self.radius, Tensor):
            return self
        return replace(self, radius=self.radius[mask.to(self.radius.device)])

    @staticmethod
    def joined(threats: Sequence[ThreatModel]) -> ThreatModel:
        """One threat for several batches, one after the other. threats: one for each."""
        radii = [threat.radius for threat in threats]
        many = [radius for radius in radii if isinstance(radius, Tensor)]
        return replace(threats[0], radius=torch.cat(many)) if len(many) == len(radii) else threats[0]

    def scaled(self, factor: float) -> ThreatModel:
        """The same balls with ``factor`` times the radius."""
        return replace(self, radius=self.radius * factor)

    def check(self, x: Tensor) -> None:
        """Raise unless x (B, ...) is a batch of valid images for which the radii are meant."""
        if isinstance(self.radius, Tensor) and len(self.radius) != len(x):
            fail("ThreatModel.radius", f"one radius per sample, {len(x)} of them", self.radius)
        low, high = self.box(x)
        lowest, highest = float((x - low).min()), float((high - x).min())
        if min(lowest, highest) < -1e-6 * (1.0 + float(x.abs().max())):
            came = f"values from {float(x.min()):g} to {float(x.max()):g}"
            remedy = "Scale the images, or set ThreatModel.bounds to their range."
            fail("x", f"images inside the bounds {self._range()}", came, remedy)

    def _range(self) -> str:
        low, high = (f"{float(b):g}" if not isinstance(b, Tensor) else "(per channel)" for b in self.bounds)
        return f"[{low}, {high}]"

    def box(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """low and high, each a tensor that broadcasts against x (B, ...)."""
        return _wide("low", self.bounds[0], x), _wide("high", self.bounds[1], x)

    def prox(self, x: Tensor) -> AbstractProx:
        """The constraint for :func:`jiio.solve`: the ball around x (B, ...) cut with the box."""
        low, high = self.box(x)
        ball = NORMS[self.norm](self.radius, center=x.detach())
        return Intersection(ball, Box(low.expand_as(x), high.expand_as(x)))

    @torch.no_grad()
    def project(self, point: Tensor, x: Tensor) -> Tensor:
        """The nearest allowed point to ``point``, for images x, all (B, ...)."""
        low, high = (bound.expand_as(x).flatten(1) for bound in self.box(x))
        flat, center = point.flatten(1), x.flatten(1)
        out = torch.empty_like(flat)
        for part, radius in self.parts(flat.shape[1]):
            box = low[:, part], high[:, part]
            out[:, part] = _nearest(self.norm, _column(radius, x), center[:, part], box, flat[:, part])
        return out.view_as(point)

    def retract(self, point: Tensor, x: Tensor) -> Tensor:
        """An allowed point near ``point``, for images x: onto the ball, then clipped to the box.

        What published attacks do; not the nearest point for L1 and L2, where clipping leaves part of the radius unused.
        """
        low, high = self.box(x)
        delta = (point - x).flatten(1)
        out = torch.empty_like(delta)
        for part, radius in self.parts(delta.shape[1]):
            out[:, part] = NORMS[self.norm](radius)(delta[:, part])
        return torch.minimum(torch.maximum(x + out.view_as(x), low), high)

    def restored(self, point: Tensor, x: Tensor) -> Tensor:
        """``point`` with everything that may not move at all put back to where it is in x, to the last bit; nothing
        here.
        """
        return point

    # -- directions and sizes

    def steepest(self, gradient: Tensor, point: Tensor | None = None, *, sparsity: float = 0.05) -> Tensor:
        """The direction (B, ...) of norm 1 in which a linear objective grows fastest; zero where the gradient is.

        L1: the largest ``sparsity`` of the entries, in proportion, as a step along the single best entry would need as
        many steps as pixels (after SLIDE, Tramer and Boneh 2019, which shares the step evenly; in proportion, repeated
        steps still end in the best corner of the ball). Pixels of ``point`` that the box keeps from moving are left
        out: there are few entries, and they must not be spent on what cannot change.
        """
        if point is not None and self.norm == "l1":
            low, high = self.box(point)
            gradient = gradient * ~(((point >= high) & (gradient > 0)) | ((point <= low) & (gradient < 0)))
        flat = gradient.flatten(1)
        out = torch.empty_like(flat)
        for part, _ in self.parts(flat.shape[1]):
            out[:, part] = _steepest(self.norm, flat[:, part], sparsity)
        return out.view_as(gradient)

    def steps(self, x: Tensor, fraction: float | Tensor) -> Tensor:
        """``fraction`` of the radius, as a tensor that broadcasts against x; fraction a number or (B,)."""
        flat = x.flatten(1)
        out = torch.empty_like(flat)
        for part, radius in self.parts(flat.shape[1]):
            out[:, part] = _column(radius, x) * _column(fraction, x)
        return out.view_as(x)

    def distance(self, point: Tensor, x: Tensor) -> Tensor:
        """(B,) |point - x|; the largest over the balls where there are several, each relative to the first radius."""
        delta = (point.double() - x.double()).flatten(1)
        order = {"linf": math.inf, "l2": 2, "l1": 1}[self.norm]
        sizes = [torch.linalg.vector_norm(delta[:, part], order, dim=1) for part, _ in self.parts(delta.shape[1])]
        return torch.stack(sizes).amax(0)

    def violation(self, point: Tensor, x: Tensor) -> Tensor:
        """(B,) by how much ``point`` leaves the balls around x or the box, in double precision; 0 when it does not."""
        delta = (point.double() - x.double()).flatten(1)
        low, high = (bound.expand_as(x).flatten(1).double() for bound in self.box(x))
        flat = point.double().flatten(1)
        excess = [torch.maximum(low - flat, flat - high).amax(1)]
        order = {"linf": math.inf, "l2": 2, "l1": 1}[self.norm]
        for part, radius in self.parts(delta.shape[1]):
            size = torch.linalg.vector_norm(delta[:, part], order, dim=1)
            excess.append(size - _column(radius, delta)[:, 0])
        return torch.stack(excess).amax(0).clamp_min(0.0)

    def slack(self, x: Tensor) -> Tensor:
        """(B,) what rounding alone can add to :meth:`violation`: one rounding of every number of x, as the norm adds
        them up, and of the radius.
        """
        n = x[0].numel()
        terms = {"linf": 1.0, "l2": math.sqrt(n), "l1": float(n)}[self.norm]
        largest = x.flatten(1).abs().amax(1).double()
        reach = torch.stack([_column(r, x)[:, 0].double().expand(len(x)) for _, r in self.parts(n)]).amax(0)
        return 4.0 * torch.finfo(x.dtype).eps * (terms * (largest + reach) + reach)

    def random_start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A random allowed point for each sample of x, drawn by ``generator``: uniform in the Linf ball, of uniform
        length in the L2 and L1 balls, then clipped to the box. Draws in the order of torchattacks, so that a seed means
        the same there.
        """
        low, high = self.box(x)
        flat = x.flatten(1)
        delta = torch.empty_like(flat)
        for part, radius in self.parts(flat.shape[1]):
            r = _column(radius, x)
            columns = flat[:, part].shape[1]

            # torchattacks draws from [-radius, radius] where there is one radius, which rounds otherwise than a scaled
            # draw from [-1, 1].
            if self.norm == "linf":
                reach, rest = (1.0, r) if isinstance(radius, Tensor) else (float(radius), 1.0)
                delta[:, part] = _filled(x, columns, generator, Tensor.uniform_, -reach, reach) * rest
                continue

            made = _filled(x, columns, generator, Tensor.normal_)
            size = torch.linalg.vector_norm(made, 2 if self.norm == "l2" else 1, dim=1, keepdim=True)
            delta[:, part] = made * (_filled(x, 1, generator, Tensor.uniform_) / size * r)
        return torch.minimum(torch.maximum(x + delta.view_as(x), low), high)

    def describe(self) -> dict[str, Any]:
        """Plain data for a report."""
        radius = self.radius.tolist() if isinstance(self.radius, Tensor) else self.radius
        bounds = [b.tolist() if isinstance(b, Tensor) else float(b) for b in self.bounds]
        radius = list(radius) if isinstance(radius, (tuple, list)) else float(radius)
        return {"norm": self.norm, "radius": radius, "bounds": bounds}


def _nearest(norm: str, radius: Tensor, center: Tensor, box: tuple[Tensor, Tensor], point: Tensor) -> Tensor:
    """The nearest point (B, n) to ``point`` in the ball of radius (B, 1) around ``center`` and in the box.

    As ``Intersection(ball, Box(...))`` has it, without what that looks at in every call: thousands of calls have the
    same sets.
    """
    low, high = box
    if norm == "linf":
        return clip(point, torch.maximum(low, center - radius), torch.minimum(high, center + radius))
    return onto(NORMS[norm](radius, center=center), point, low, high)


def _steepest(norm: str, g: Tensor, sparsity: float) -> Tensor:
    """The direction of norm 1 for packed gradients g (B, n); see :meth:`ThreatModel.steepest`."""
    if norm == "linf":
        return g.sign()
    if norm == "l1":
        count = max(1, math.ceil(sparsity * g.shape[1]))
        g = g * (g.abs() >= g.abs().topk(count, dim=1).values[:, -1:])
    g = g / g.abs().amax(1, keepdim=True).clamp_min(torch.finfo(g.dtype).tiny)  # the square of a small one vanishes
    size = g.norm(dim=1, keepdim=True) if norm == "l2" else g.abs().sum(1, keepdim=True)
    return g / size.clamp_min(torch.finfo(g.dtype).tiny)


def _filled(x: Tensor, columns: int, generator: torch.Generator, fill: Callable[..., Tensor], *ends: float) -> Tensor:
    """Random numbers (B, columns) for the samples of x, by one of the methods of a tensor that draw in place."""
    made = torch.empty(len(x), columns, dtype=x.dtype, device=generator.device)
    return fill(made, *ends, generator=generator).to(x.device)


def _column(value: float | Tensor, x: Tensor) -> Tensor:
    """A number or (B,) as (1, 1) or (B, 1) like x."""
    return torch.as_tensor(value, dtype=x.dtype, device=x.device).reshape(-1, 1)


def _wide(name: str, bound: Bound, x: Tensor) -> Tensor:
    value = torch.as_tensor(bound, dtype=x.dtype, device=x.device)
    if value.dim() == 0:
        return value
    if value.dim() == 1 and x.dim() > 2 and value.numel() == x.shape[1]:
        value = value.view(-1, *([1] * (x.dim() - 2)))
    try:
        torch.broadcast_shapes(value.shape, x.shape[1:])
    except RuntimeError:
        fail(f"ThreatModel.bounds ({name})", f"a number, or what broadcasts to {tuple(x.shape[1:])}", value)
    return value


def _check_bounds(bounds: Any) -> None:
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        fail("ThreatModel.bounds", "a pair (low, high)", bounds, error=ArgumentTypeError)
    for bound in bounds:
        if isinstance(bound, bool) or not isinstance(bound, (int, float, Tensor)):
            fail("ThreatModel.bounds", "numbers or tensors", bound, error=ArgumentTypeError)
        if bool(torch.isnan(torch.as_tensor(bound, dtype=torch.float64)).any()):
            fail("ThreatModel.bounds", "numbers that are not NaN", bound)

    low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in bounds)
    try:  # a bound per channel and one per pixel cannot be compared
        above = bool((low >= high).any())
    except RuntimeError:
        fail("ThreatModel.bounds", "low and high of one shape", bounds)
    if above:
        fail("ThreatModel.bounds", "low below high", bounds, "Pass (low, high) in this order.")
