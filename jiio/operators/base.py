"""What one evaluation of a map gives, and the two tools that every map and the loop share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..looks import free

ROWWISE = 1 << 14  # numbers from which it is cheaper to copy rows than to choose number by number


def rms(part: Tensor) -> Tensor:
    """(B, n) -> (B,) root mean square."""
    return torch.linalg.vector_norm(part, dim=1) / part.shape[1] ** 0.5


def select(mask: Tensor, new: Tensor, old: Tensor, count: int | None = None) -> Tensor:
    """Rows of ``new`` where ``mask`` (B,), else rows of ``old``.

    Most masks are all of one kind. On a CPU, where a look is free, one of the two then is the answer without a copy.
    count: of the mask, where it is known.
    """
    if count is not None or (new.dim() > 1 and free(new)):
        count = int(mask.sum()) if count is None else count
        if count in (0, len(mask)):
            return new if count else old
        if not torch.is_grad_enabled() and new.numel() > ROWWISE and new.device.type == "cpu":
            few, most = (new, old) if 2 * count <= len(mask) else (old, new)
            index = torch.nonzero(mask == (few is new))[:, 0]
            return most.clone().index_copy_(0, index, few.index_select(0, index))
    return torch.where(mask.view(-1, *([1] * (new.dim() - 1))), new, old)


@dataclass
class Point:
    """What one evaluation at v gives.

    image: F(v), (B, D). residual, scale: RMS of F(v) - v and of F(v) for each block, (B, K). value: (B,), what is
    minimised. gradient: (B, n), of the Lagrangian in x. Both are None where there is no objective.
    """

    image: Tensor
    residual: Tensor
    scale: Tensor
    value: Tensor | None = None
    gradient: Tensor | None = None

    def rows(self, index: Tensor) -> Point:
        """What was measured at the samples ``index`` (k,)."""
        value, gradient = (t if t is None else t.index_select(0, index) for t in (self.value, self.gradient))
        image, residual, scale = (t.index_select(0, index) for t in (self.image, self.residual, self.scale))
        return Point(image, residual, scale, value, gradient)
