"""Square attack: random search that never asks for a gradient, and so cannot be deceived by one.

Andriushchenko, Croce, Flammarion and Hein, "Square Attack: a query-efficient black-box adversarial attack via random
search", ECCV 2020. What is random (place and signs of a square) is drawn once per query and shared by the batch, so
that a sample's result depends neither on its batch mates nor on its place among them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jiio.checks import check_integer, check_number, fail
from jiio.layout import leaves, map_tree

from ..base import AbstractAttack, rows
from ..climbing import part
from ..objectives import margin
from ..runs import Best
from ..target import Target
from ..threat import ThreatModel

# Shares of the queries (of 10,000) after which the area of the squares is halved again (the paper, section 4.1).
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True)
class Square(AbstractAttack):
    """Random search over squares, Linf and L2. Vectors are treated as images of one row.

    queries: predictions per sample, at most; samples that are broken stop. area: of the first squares, as a share of
    the image. warm: of an equilibrium model, start each solve from the state of the sample's best point, which is near;
    what seems broken has to be broken from a fresh start as well.
    """

    gradient_free = True
    norms = ("linf", "l2")

    queries: int = 1000
    area: float = 0.8
    warm: bool = True

    def __post_init__(self) -> None:
        check_integer("Square.queries", self.queries, 1)
        check_number("Square.area", self.area, 0.0, 1.0, open_low=True)

    def fits(self, model: Target, x: Tensor, threat: ThreatModel) -> None:
        super().fits(model, x, threat)
        if len(threat.parts(x[0].numel())) > 1:
            remedy = "Use PGD, APGD or JointAttack for this one."
            fail("Square", "a threat with one ball", threat.norm, remedy)

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        draw, found = _Draw(generator, x.device, x.dtype), Best.empty(x)
        judge = _Warm(model, y, model.predict(x).state) if self.warm and model.implicit else _Fresh(model, y)
        everyone = torch.arange(len(x), device=x.device)
        hunt = _Hunt(x, threat, threat.steps(x, 1.0), everyone, found.x.clone(), found.margin.clone())

        for query in range(self.queries):
            # The same square for all that are left, kept by those for which it makes things worse.
            moved = self._moved(query, hunt, draw)
            hunt.take(moved, judge(moved, hunt.at, hunt.margin))
            if bool((hunt.margin > 0).any()):
                hunt = hunt.without_broken(found)
            if not len(hunt.at):
                break
        found.enter(hunt.best, hunt.margin, hunt.at)
        return found.x

    def _moved(self, query: int, hunt: _Hunt, draw: _Draw) -> Tensor:
        """The next proposal for each of the samples at work (B, ...), from the best points so far."""
        x = hunt.x
        shape = x.shape[1:] if x.dim() == 4 else (1, 1, x[0].numel())
        images, points, radius = (t.view(-1, *shape) for t in (x, hunt.best, hunt.radius))
        propose = self._linf if hunt.threat.norm == "linf" else self._l2
        moved = propose(query, images, points, radius, self._side(query, shape), draw)
        return hunt.threat.retract(moved.view_as(x), x)

    def _side(self, query: int, shape: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of the square at this query; a strip where the image is lower than that."""
        share = query / self.queries * 10_000
        area = self.area / 2 ** sum(share > bound for bound in HALVINGS) * shape[1] * shape[2]
        height = min(max(1, round(math.sqrt(area))), shape[1])
        return height, min(max(1, round(area / height)), shape[2])

    @staticmethod
    def _linf(query: int, x: Tensor, best: Tensor, radius: Tensor, side: tuple[int, int], draw: _Draw) -> Tensor:
        """Stripes of +-radius at first; then one square whose channels are set to +-radius."""
        if query == 0:
            return x + radius * draw.signs(x.shape[1], 1, x.shape[3])
        top, left = draw.corner(x, side)
        window = (..., slice(top, top + side[0]), slice(left, left + side[1]))
        moved = best.clone()
        moved[window] = (x + radius * draw.signs(x.shape[1], 1, 1))[window]
        return moved

    @staticmethod
    def _l2(query: int, x: Tensor, best: Tensor, radius: Tensor, side: tuple[int, int], draw: _Draw) -> Tensor:
        """A tiling of bumps at first; then the budget of one window, and what is unused, moves to another as a bump."""
        radius = radius.flatten(1)[:, :1].view(-1, 1, 1, 1)
        if query == 0:
            delta = draw.tiles(x)
            return x + radius * delta / _norm(delta)
        delta = best - x

        # Two windows: one gives its share of the radius away, the other gets it.
        top, left = draw.corner(x, side)
        there = (..., slice(top, top + side[0]), slice(left, left + side[1]))
        top, left = draw.corner(x, side)
        taken = (..., slice(top, top + side[0]), slice(left, left + side[1]))
        inside = torch.zeros_like(delta[:1])
        inside[there], inside[taken] = 1.0, 1.0
        unused = (radius.square() - _norm(delta).square()).clamp_min(0.0)
        budget = unused + (delta * inside).square().sum((1, 2, 3), keepdim=True)

        bump = draw.bump(side) * draw.signs(x.shape[1], 1, 1) + delta[there] / _norm(delta[there])
        bump = bump / _norm(bump) * budget.sqrt()
        delta = delta.clone()
        delta[taken] = 0.0
        delta[there] = bump
        return x + radius * delta / _norm(delta)


@dataclass
class _Hunt:
    """A search with a row for every sample at work: images, the radius at every number of them, the places in the whole
    batch, the best points (B, ...) and their margins (B,).
    """

    x: Tensor
    threat: ThreatModel
    radius: Tensor
    at: Tensor
    best: Tensor
    margin: Tensor

    def take(self, points: Tensor, gap: Tensor) -> None:
        """Keep of these points, with these margins, those that are better."""
        better = gap > self.margin
        self.best = torch.where(rows(better, points), points, self.best)
        self.margin = torch.where(better, gap, self.margin)

    def without_broken(self, found: Best) -> _Hunt:
        """The search without what is broken by now, which is entered into ``found``."""
        found.enter(self.best, self.margin, self.at)
        return part(self, torch.nonzero(self.margin <= 0)[:, 0])


@dataclass
class _Fresh:
    """Margins (B',) of points for the samples with the indices ``at``, each from a fresh start of the solver."""

    model: Target
    y: Tensor

    @torch.no_grad()
    def __call__(self, points: Tensor, at: Tensor, least: Tensor) -> Tensor:
        return margin(self.model.forward(points)[0], self.y[at])


@dataclass
class _Warm(_Fresh):
    """The same from the state of each sample's best point. state: a tree (B, ...), or None where there is none."""

    state: Any

    @torch.no_grad()
    def __call__(self, points: Tensor, at: Tensor, least: Tensor) -> Tensor:
        if self.state is None:
            return super().__call__(points, at, least)
        logits, reached = self.model.forward(points, map_tree(lambda leaf: leaf[at], self.state))
        gap = margin(logits, self.y[at])

        # Only a fresh start says that a sample is broken.
        broken = torch.nonzero(gap > 0)[:, 0]
        if len(broken):
            gap[broken] = super().__call__(points[broken], at[broken], least[broken])
        if reached is not None:
            self._keep(reached.state, torch.nonzero((gap > least) & reached.converged)[:, 0], at)
        return gap

    def _keep(self, state: Any, better: Tensor, at: Tensor) -> None:
        """The states of the points that are the best ones now."""
        for old, new in zip(leaves(self.state), leaves(state), strict=True):
            old[at[better]] = new[better]


class _Draw:
    """Random numbers for one attack, from one generator, shared by the batch."""

    def __init__(self, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> None:
        self.generator, self.device, self.dtype = generator, device, dtype

    def signs(self, *shape: int) -> Tensor:
        flips = torch.randint(0, 2, shape, generator=self.generator, device=self.generator.device)
        return (2 * flips - 1).to(self.device, self.dtype)

    def corner(self, x: Tensor, side: tuple[int, int]) -> tuple[int, int]:
        spare = [x.shape[2] - side[0] + 1, x.shape[3] - side[1] + 1]
        place = torch.rand(2, generator=self.generator, device=self.generator.device, dtype=torch.float64).tolist()
        return int(place[0] * spare[0]), int(place[1] * spare[1])

    def tiles(self, x: Tensor) -> Tensor:
        """Bumps all over images like x (B, C, H, W), five each way, of random signs."""
        step = (max(1, x.shape[2] // 5), max(1, x.shape[3] // 5))
        delta = torch.zeros_like(x)
        for i in range(0, x.shape[2] - step[0] + 1, step[0]):
            for j in range(0, x.shape[3] - step[1] + 1, step[1]):
                delta[:, :, i : i + step[0], j : j + step[1]] = self.bump(step) * self.signs(x.shape[1], 1, 1)
        return delta

    def bump(self, side: tuple[int, int]) -> Tensor:
        """Two bumps of opposite sign side by side, of norm 1: what the paper found to suit convolutional networks."""
        height, width = side
        along = 1 if width >= height and (width > height or bool(self.signs(1) > 0)) else 0
        first = side[along] - side[along] // 2
        halves = [_pyramid((first, width) if along == 0 else (height, first))]
        if side[along] > first:
            rest = side[along] - first
            halves.append(-_pyramid((rest, width) if along == 0 else (height, rest)))
        whole = torch.cat(halves, dim=along).to(self.device, self.dtype)
        return whole / torch.linalg.vector_norm(whole)


def _pyramid(side: tuple[int, int]) -> Tensor:
    """(height, width) positive, highest in the middle: sums of 1 / k^2 over nested rectangles."""
    height, width = side
    rings = [
        torch.minimum(torch.arange(n), torch.arange(n).flip(0)).double() for n in (height, width)
    ]  # distance to the nearer edge
    depth = torch.minimum(rings[0][:, None], rings[1][None, :]).long()
    deepest = int(depth.max()) + 1
    terms = torch.tensor([1.0 / (deepest - k) ** 2 for k in range(deepest)], dtype=torch.float64).cumsum(0)
    return terms[depth]


def _norm(delta: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(delta, dim=(1, 2, 3), keepdim=True)
    return size.clamp_min(torch.finfo(delta.dtype).tiny ** 0.5)
