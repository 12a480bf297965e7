"""Several views of one thing: a classifier that fuses them into one equilibrium, and the threat to each of them.

The views of a sample stand one after the other in x. Any attack of this package works on them under a
:class:`MultiViewThreat`, one ball per view; views with radius 0 stay as they are. :mod:`.methods.multiview` has those
that only make sense for views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import jiio
from jiio.checks import check_choice, check_number, fail
from jiio.layout import Tree
from jiio.models import ClassifierHead, DenseCell, LinearInjection

from .fusion import LatentEnsemble, check_sizes, split
from .threat import NORMS, Part, ThreatModel

FUSIONS = ("sum", "mean", "latent")


class MultiViewInjection(nn.Module):
    """u = sum or mean over the views of U_v x_v + b_v. x: (B, ...) with the views one after the other -> (B, features).

    sizes: numbers in each view. features: in u. fusion: "sum", or "mean", with which every further view counts less.
    """

    def __init__(self, sizes: Sequence[int], features: int, *, fusion: str = "sum") -> None:
        super().__init__()
        self.sizes = check_sizes("sizes", sizes)
        self.fusion = check_choice("fusion", fusion, FUSIONS[:2])
        self.views = nn.ModuleList(LinearInjection(size, features) for size in self.sizes)

    def forward(self, x: Tensor) -> Tensor:
        parts = [view(part) for view, part in zip(self.views, split(x, self.sizes), strict=True)]
        total = torch.stack(parts).sum(0)
        return total / len(parts) if self.fusion == "mean" else total

    @property
    def lipschitz(self) -> float:
        """A bound on |u - u'| / |x - x'|: the spectral norm of all U_v side by side."""
        with torch.no_grad():
            parts = [view.linear.weight for view in self.views if isinstance(view, LinearInjection)]
            whole = torch.cat(parts, dim=1)
            norm = float(torch.linalg.matrix_norm(whole, 2))
        return norm / len(self.views) if self.fusion == "mean" else norm


def multi_view_classifier(
    sizes: Sequence[int],
    classes: int,
    *,
    features: int = 64,
    fusion: str = "sum",
    cell: nn.Module | None = None,
    **options: Any,
) -> jiio.EquilibriumModel:
    """x (B, sum of sizes) -> scores (B, classes), by one equilibrium that hears all views in every step.

    sizes: numbers in each view. classes: how many. fusion: as in :class:`MultiViewInjection`, or "latent", a
    :class:`LatentEnsemble`. cell: on a state (B, features), by default a tanh :class:`jiio.models.DenseCell` that stays
    a contraction. options: of :class:`jiio.EquilibriumModel`. With a single size it is the single-view model to compare
    with.

    Errors: ArgumentError / ArgumentTypeError for sizes, a fusion or options that are none.
    """
    cell = DenseCell(features, scaling="spectral", gain=0.8) if cell is None else cell
    check_choice("fusion", fusion, FUSIONS)
    latent = fusion == "latent"
    inject = LatentEnsemble(sizes, features) if latent else MultiViewInjection(sizes, features, fusion=fusion)
    return jiio.EquilibriumModel(inject, cell, ClassifierHead(features, classes), **options)


@dataclass(frozen=True, eq=False)
class MultiViewThreat(ThreatModel):
    """One ball per view. sizes: how many numbers each view has; they stand one after the other in x. radius: a number
    for every view, or a tuple of one per view, 0 where a view may not be touched.
    """

    radius: float | Tensor | tuple[float, ...]  # type: ignore[assignment]  (wider than that of a single ball)
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", check_sizes("MultiViewThreat.sizes", self.sizes))
        radii = self.radius if isinstance(self.radius, (tuple, list)) else (self.radius,) * len(self.sizes)
        if len(radii) != len(self.sizes):
            fail("MultiViewThreat.radius", f"a number, or {len(self.sizes)} of them", radii)
        checked = tuple(check_number("MultiViewThreat.radius", r, 0.0) for r in radii)
        object.__setattr__(self, "radius", checked)
        super().__post_init__()

    @property
    def radii(self) -> tuple[float, ...]:
        """One for each view, 0 where it may not be touched."""
        assert isinstance(self.radius, tuple)  # made one when the threat was
        return self.radius

    def _check_radius(self) -> None:
        if not any(self.radii):
            fail("MultiViewThreat.radius", "a radius above 0 for one view at least", self.radius)

    def parts(self, size: int) -> tuple[Part, ...]:
        if size != sum(self.sizes):
            fail("x", f"views of {' + '.join(map(str, self.sizes))} numbers per sample", f"{size} numbers")
        starts = [sum(self.sizes[:i]) for i in range(len(self.sizes))]
        slices = [slice(a, a + n) for a, n in zip(starts, self.sizes, strict=True)]
        return tuple(zip(slices, self.radii, strict=True))

    def scaled(self, factor: float) -> MultiViewThreat:
        return replace(self, radius=tuple(r * factor for r in self.radii))

    def only(self, view: int) -> MultiViewThreat:
        """The same threat to one view alone."""
        radii = [r if i == view else 0.0 for i, r in enumerate(self.radii)]
        return replace(self, radius=tuple(radii))

    def prox(self, x: Tensor) -> jiio.AbstractProx:
        low, high = (bound.expand_as(x).flatten(1) for bound in self.box(x))
        center = x.detach().flatten(1)
        sets = []
        for part, radius in self.parts(center.shape[1]):
            ball = NORMS[self.norm](radius, center=center[:, part])
            sets.append((part, jiio.Intersection(ball, jiio.Box(low[:, part], high[:, part]))))
        return PerView(tuple(sets))

    def restored(self, point: Tensor, x: Tensor) -> Tensor:
        flat, center = point.flatten(1).clone(), x.flatten(1)
        for part, radius in self.parts(flat.shape[1]):
            if radius == 0.0:
                flat[:, part] = center[:, part]
        return flat.view_as(point)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"sizes": list(self.sizes)}


@dataclass(frozen=True)
class PerView(jiio.AbstractProx):
    """A set of its own for each stretch of the packed input: the product of the views' sets."""

    sets: tuple[tuple[slice, jiio.AbstractProx], ...]

    @property
    def separable(self) -> bool:  # type: ignore[override]
        return all(part.separable for _, part in self.sets)

    def bind(self, x: Tree) -> jiio.AbstractProx:
        flat = x.flatten(1)
        return PerView(tuple((part, own.bind(flat[:, part])) for part, own in self.sets))

    def rows(self, index: Tensor, x: Tree) -> PerView | None:
        flat = x.flatten(1)
        sets = [(part, own.rows(index, flat[:, part])) for part, own in self.sets]
        found = tuple((part, own) for part, own in sets if own is not None)
        return PerView(found) if len(found) == len(sets) else None

    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        return torch.cat([own.apply(x[:, part], step) for part, own in self.sets], dim=1)

    def excess(self, x: Tensor) -> Tensor:
        return torch.stack([own.excess(x[:, part]) for part, own in self.sets]).amax(0)

    def active(self, x: Tensor, gradient: Tensor) -> jiio.Active:
        remedy = "Use Envelope() or Detached(): attacks need no more."
        fail("adjoint", "one that needs no active set for a product of views", "KKT()", remedy)
