"""Broyden's first ("good") method with limited memory, per sample.

The inverse Jacobian of g(v) = F(v) - v is kept as -I + sum_i u_i w_i^T (Broyden 1965; the low-rank form of Bai et al.
2019). When the memory is full it starts again from -I, which is one plain step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_integer, check_number
from .base import AbstractSolver, kept, write
from .inverse import Inverse


class BroydenState(NamedTuple):
    """u, w: (B, m, D) factors of the inverse Jacobian. last_v, last_g: (B, D). fresh: (B,) no last point."""

    u: Tensor
    w: Tensor
    last_v: Tensor
    last_g: Tensor
    fresh: Tensor
    count: int | Tensor


@dataclass(frozen=True)
class Broyden(AbstractSolver):
    """Limited-memory good Broyden.

    memory: rank-one factors kept before it starts again. limit: a sample whose update is longer than ``limit``
    residuals takes the plain step.
    """

    memory: int = 20
    limit: float = 1e3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("Broyden.memory", self.memory, 1)
        check_number("Broyden.limit", self.limit, 1.0)

    def init(self, v: Tensor) -> BroydenState:
        factors = v.new_zeros(2, v.shape[0], self.memory, v.shape[1])
        fresh = torch.ones(v.shape[0], dtype=torch.bool, device=v.device)
        return BroydenState(factors[0], factors[1], v, torch.zeros_like(v), fresh, 0)

    def restart(self, state: BroydenState, mask: Tensor) -> BroydenState:
        keep = (~mask).to(state.u.dtype)[:, None, None]
        return state._replace(u=state.u * keep, w=state.w * keep, fresh=state.fresh | mask)

    def rows(self, state: BroydenState, index: Tensor) -> BroydenState:
        v, g = (part.index_select(0, index) for part in (state.last_v, state.last_g))
        return BroydenState(kept(state.u, index), kept(state.w, index), v, g, state.fresh[index], state.count)

    def inverse(self, state: BroydenState) -> Inverse:
        return Inverse(1.0, state.u.clone(), state.w.clone())

    def step(self, v: Tensor, fv: Tensor, state: BroydenState) -> tuple[Tensor, BroydenState]:
        g = fv - v
        if isinstance(state.count, int) and state.count == 0:
            return fv, state._replace(last_v=v, last_g=g, fresh=torch.zeros_like(state.fresh), count=1)
        u, w = state.u, state.w
        slot = (state.count - 1) % self.memory
        if isinstance(slot, Tensor):
            u, w = (factor.masked_fill_(slot == 0, 0.0) for factor in (u, w))
        elif slot == 0 and state.count > 1:
            u, w = torch.zeros_like(u), torch.zeros_like(w)

        # The new factors: B += (s - B y) (s^T B) / (s^T B y), after which B y = s.
        s, y = v - state.last_v, g - state.last_g
        by = torch.bmm((w @ y.unsqueeze(2)).transpose(1, 2), u)[:, 0] - y  # B y
        sb = torch.bmm((u @ s.unsqueeze(2)).transpose(1, 2), w)[:, 0] - s  # s^T B
        u, w = write(u, slot, _ratio(s, by, state.fresh)), write(w, slot, sb)

        # The step -B g; the plain one where that is absurdly long.
        move = g - torch.bmm((w @ g.unsqueeze(2)).transpose(1, 2), u)[:, 0]
        size, plain = move.norm(dim=1, keepdim=True), g.norm(dim=1, keepdim=True)
        sane = torch.isfinite(size) & (size <= self.limit * plain)
        following = torch.where(sane, v + move, fv)

        fresh = torch.zeros_like(state.fresh)
        after = BroydenState(u, w, v, g, fresh, state.count + 1)
        return following, self.restart(after, ~sane[:, 0])._replace(fresh=fresh)


def _ratio(s: Tensor, by: Tensor, fresh: Tensor) -> Tensor:
    """(s - B y) / (s^T B y), (B, D); zero where the bottom is rounding or there is no last point."""
    bottom = (s * by).sum(1, keepdim=True)
    tiny = torch.finfo(s.dtype).eps * s.norm(dim=1, keepdim=True) * by.norm(dim=1, keepdim=True)
    usable = (bottom.abs() > tiny) & ~fresh[:, None]
    ratio = (s - by) / torch.where(usable, bottom, torch.ones_like(bottom))
    return torch.where(usable, ratio, torch.zeros_like(s))
