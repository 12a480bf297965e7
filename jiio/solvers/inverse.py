"""What a quasi-Newton solver has learnt about the inverse of I - J by the time a sample ends.

Broyden's and Anderson's methods build it as they go, from differences of points and of residuals, and forget it when
the solve is over. :class:`jiio.SHINE` uses it a second time, transposed, in the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Inverse:
    """base I - sum_i u_i w_i^T for every sample, an estimate of (I - J)^-1.

    base: a number, or one for each sample (B, 1). u, w: (B, m, D). A factor that is zero says nothing.
    """

    base: float | Tensor
    u: Tensor
    w: Tensor

    def __call__(self, v: Tensor) -> Tensor:
        """Times v (B, D)."""
        return self.base * v - torch.bmm((self.w @ v.unsqueeze(2)).transpose(1, 2), self.u)[:, 0]

    @property
    def transposed(self) -> Inverse:
        """The estimate of (I - J^T)^-1."""
        return Inverse(self.base, self.w, self.u)

    def scaled(self, factor: float) -> Inverse:
        """``factor`` times this one."""
        return Inverse(factor * self.base, factor * self.u, self.w)

    def only(self, mask: Tensor) -> Inverse:
        """The samples in ``mask`` (B,); of the others nothing is known but I."""
        base = torch.where(mask[:, None], self.base, torch.ones_like(self.u[:, 0, :1]))
        return Inverse(base, self.u.masked_fill(~mask[:, None, None], 0.0), self.w)

    def learnt(self, s: Tensor, y: Tensor) -> Inverse:
        """Broyden's update, after which it takes y to s, both (B, D); samples of which the update would be rounding
        stay as they are.
        """
        found, row = self(y), self.transposed(s)
        bottom = (s * found).sum(1, keepdim=True)
        tiny = torch.finfo(s.dtype).eps * s.norm(dim=1, keepdim=True) * found.norm(dim=1, keepdim=True)
        usable = bottom.abs() > tiny
        column = torch.where(usable, (found - s) / torch.where(usable, bottom, torch.ones_like(bottom)), 0.0)
        return Inverse(self.base, torch.cat([self.u, column[:, None]], 1), torch.cat([self.w, row[:, None]], 1))
