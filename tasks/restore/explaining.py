"""The measurement as the prox of a joint solve: of all images near this one, that which explains it best.

The energy of a prior is smooth, of curvature about one; the disagreement with a measurement is as stiff as its noise is
small, and a gradient step on both is as short as the stiffer asks for. So the energy alone gets the gradient step, and
the disagreement, which is quadratic, is minimised exactly after each (forward and backward steps: Combettes and Wajs,
"Signal recovery by proximal forward-backward splitting", 2005). The solve then takes a third of the evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jiio import AbstractProx
from jiio.layout import Tree
from jiio.prox import Active
from jiio.tasks.maps.base import LinearMap


@dataclass(frozen=True, eq=False)
class Explains(AbstractProx):
    """``weight/2 |A x - y|^2`` of images x. shape: of one image."""

    operator: LinearMap
    y: Tensor
    shape: torch.Size
    weight: float

    is_set = False

    def bind(self, x: Tree) -> Explains:
        return self  # nothing here has the shape of x

    def rows(self, index: Tensor, x: Tree) -> Explains | None:
        operator = self.operator.of_samples(index, len(self.y))
        if not isinstance(operator, LinearMap):
            return None
        return Explains(operator, self.y.index_select(0, index), self.shape, self.weight)

    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        images = x.view(-1, *self.shape)
        step = step.view(-1, 1, 1, 1) if isinstance(step, Tensor) else x.new_tensor(step)
        return self.operator.nearest(images, self.y, self.weight * step).reshape(x.shape)

    def excess(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x))

    def penalty(self, x: Tensor) -> Tensor:
        return self.weight * self.operator.disagreement(x.view(-1, *self.shape), self.y)

    def active(self, x: Tensor, gradient: Tensor) -> Active:
        """All pixels may move; the curvature, which is no diagonal, is left out."""
        return Active(torch.ones_like(x, dtype=torch.bool))
