"""The map of a plain equilibrium."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..layout import Layout, Tree
from ..persample import rows_of, taken
from ..problem import Cell
from ..solution import Evaluations
from ..solvers.base import Damping, damping_of
from .base import Point, rms


class EquilibriumMap:
    """v = z -> f(z, x) for a fixed x."""

    blocks = ("z",)

    def __init__(self, cell: Cell, x: Tree, z0: Tree, damping: Damping) -> None:
        self.cell, self.x = cell, x
        self.layout = Layout.of(z=z0)
        self.damping = damping_of(damping, "z")
        self.evaluations = Evaluations()

    def rows(self, index: Tensor) -> EquilibriumMap | None:
        """The map of the samples ``index`` (k,) alone; None where the cell does not offer that."""
        cell = rows_of(self.cell, index)
        if cell is None:
            return None
        part = copy.copy(self)
        part.cell, part.x = cell, taken(self.x, index)
        return part

    def adopt(self, places: Tensor, part: EquilibriumMap) -> None:
        """Nothing changes in the course of a solve."""

    @property
    def places(self) -> dict[str, slice]:
        """Where each block lies in v."""
        return {"z": slice(0, self.layout.specs[0].size)}

    def start(self, z0: Tree) -> Tensor:
        return self.layout.pack(z0)

    def __call__(self, v: Tensor) -> Point:
        spec = self.layout.specs[0]
        out = self.cell(spec.unpack(v), self.x)
        if self.evaluations.cell == 0:
            spec.check(out, v, "cell", "z'")
        self.evaluations.cell += 1
        image = spec.pack(out)
        if image.shape != v.shape:
            spec.check(out, v, "cell", "z'")

        # Measured before the damping, which would make any step look small.
        with torch.no_grad():
            residual = rms(image - v)[:, None]
            scale = rms(image)[:, None]

        if self.damping != 1.0:
            image = torch.lerp(v, image, self.damping)
        return Point(image, residual, scale)

    def project(self, v: Tensor) -> Tensor:
        """Every state is feasible."""
        return v

    def descend(self, v: Tensor, following: Tensor, point: Point) -> Tensor:
        """There is no objective to go uphill on."""
        return following

    def renew(self, v: Tensor, point: Point, done: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """The units of an equilibrium are its own."""
        return v, torch.zeros_like(done)

    def slower(self, mask: Tensor) -> None:
        """Nothing to slow down: the equilibrium has no step size."""
