"""What a cell of an equilibrium network is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from ...layout import Tree


class AbstractCell(nn.Module, ABC):
    """Base of the cells. No state between calls: a map that changes during a solve has no fixed point."""

    dropout: float = 0.0

    @abstractmethod
    def forward(self, z: Tree, u: Tree, masks: Tree | None = None) -> Tree:
        """One application of f: a new tree with the shapes of z. ``masks``: from :meth:`draw_masks`, None without."""

    @abstractmethod
    def initial_state(self, u: Tree) -> Tree:
        """z0 = 0, with the batch, dtype and device of u."""

    def draw_masks(self, z: Tree, generator: torch.Generator) -> Tree | None:
        """Variational dropout masks for the state z, to be held fixed for a whole solve; None without dropout."""
        return None
