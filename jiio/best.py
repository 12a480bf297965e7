"""The best points of a solve so far, in two buffers that are written to row by row.

In most steps some samples are better than before and some are not. A new tensor of the whole batch for each such step,
row by row from one of two others, costs more than all other bookkeeping; here only the rows that are better are moved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .looks import free
from .operators import select


class BestPoints:
    """v, image (B, D): the best point of every sample, and its image.

    As long as all samples improve together both are the tensors of the loop itself, and nothing is copied. Who hands
    one of the two on to somebody who keeps it says so by :meth:`lend`.
    """

    def __init__(self, v: Tensor) -> None:
        self.v = self.image = v
        self.buffers: tuple[Tensor, Tensor] | None = None  # to write to; None: none are there
        self.own = False  # whether v and image are the buffers

    def replace(self, v: Tensor, image: Tensor) -> None:
        """All of both."""
        self.v, self.image, self.own = v, image, False

    def take(self, better: Tensor, v: Tensor, image: Tensor) -> None:
        """The rows of v and image where ``better`` (B,)."""
        if torch.is_grad_enabled() or not free(v):
            self.replace(select(better, v, self.v), select(better, image, self.image))
            return
        index = torch.nonzero(better)[:, 0]
        if len(index) == len(better):
            self.replace(v, image)
        elif len(index):
            own, _ = self._buffers()
            own.index_copy_(0, index, v.index_select(0, index))
            self.image.index_copy_(0, index, image.index_select(0, index))

    def rows(self, index: Tensor) -> BestPoints:
        """Those of the samples ``index`` (k,)."""
        few = BestPoints(self.v.index_select(0, index))
        few.image = self.image.index_select(0, index)
        return few

    def lend(self, *taken: Tensor) -> None:
        """Somebody keeps these tensors; where one of them is a buffer, it is written to no more."""
        if self.own and any(t is self.v or t is self.image for t in taken):
            self.own, self.buffers = False, None

    def _buffers(self) -> tuple[Tensor, Tensor]:
        """v and image as buffers."""
        if not self.own:
            if self.buffers is None:
                self.buffers = torch.empty_like(self.v), torch.empty_like(self.image)
            for buffer, old in zip(self.buffers, (self.v, self.image), strict=True):
                buffer.copy_(old)
            self.v, self.image = self.buffers
            self.own = True
        return self.v, self.image
