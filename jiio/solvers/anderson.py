"""Anderson acceleration, type I and type II, per sample.

With differences s_i = v_{i+1} - v_i and y_i = g_{i+1} - g_i of the points and of the residuals g = F(v) - v, a step is

    v + beta g - sum_i gamma_i (s_i + beta y_i)

where gamma makes the extrapolated residual orthogonal to the y_i (type II: least squares; Walker and Ni 2011) or to
the s_i (type I: Galerkin; Fang and Saad 2009). Differences, not the points themselves, keep the small system well
scaled in single precision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_choice, check_integer, check_number, fail
from .base import AbstractSolver, kept, read, write
from .history import less, products
from .inverse import Inverse
from .partial import Partial

LARGEST_MEMORY = 128


class AndersonState(NamedTuple):
    """s, y: (B, m, D) differences (type II: s + beta y in the place of s). gram: (B, m, m) of their products.
    valid: (B, m) bool. last_v, last_g: (B, D). fresh: (B,) no last point. pairs: two times (B, 2, D) to write y and g
    into, in turn, where no graph is recorded: large tensors that are new in every step cost more than the arithmetic.
    count: of steps, a tensor () where they are recorded.
    """

    s: Tensor
    y: Tensor
    gram: Tensor
    valid: Tensor
    last_v: Tensor
    last_g: Tensor
    fresh: Tensor
    count: int | Tensor
    pairs: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Anderson(AbstractSolver):
    """Anderson acceleration with a bounded memory.

    memory: how many differences are kept (10 to 12 serves joint solves; fewer than 8 is too few). kind: "I" or
    "II". ridge: relative to the diagonal of the small system, which is scaled to 1. mixing: beta. limit: a sample
    whose coefficients exceed this (or whose small system fails) takes the plain step and starts a new history. blocks:
    names among "z", "mu" and "x" of what is accelerated; the rest takes plain steps (None: everything is). Where the
    input takes sign steps, which have no fixed point to extrapolate to, state and multiplier alone. history: "full", or
    "bfloat16", which halves the memory of a solve at about the same number of steps (docs/results/engine.md); a solve
    that is recorded by autograd keeps it in full.
    """

    memory: int = 10
    kind: str = "II"
    ridge: float = 1e-8
    mixing: float = 1.0
    limit: float = 1e4
    blocks: tuple[str, ...] | None = None
    history: str = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        if check_integer("Anderson.memory", self.memory, 1) > LARGEST_MEMORY:
            remedy = "Batched LU above that size is unreliable on CPUs (pytorch issue 142815); 10 to 40 is plenty."
            fail("Anderson.memory", f"at most {LARGEST_MEMORY}", f"{self.memory}", remedy)
        check_choice("Anderson.kind", self.kind, ("I", "II"))
        check_number("Anderson.ridge", self.ridge, 0.0)
        check_number("Anderson.mixing", self.mixing, 0.0, 1.0, open_low=True)
        check_number("Anderson.limit", self.limit, 1.0)
        check_choice("Anderson.history", self.history, ("full", "bfloat16"))
        self._check_blocks()

    def _check_blocks(self) -> None:
        if self.blocks is None:
            return
        names = tuple(self.blocks) if isinstance(self.blocks, (tuple, list)) else ()
        if not names or len(set(names)) != len(names) or not set(names) <= {"z", "mu", "x"}:
            fail("Anderson.blocks", "some of 'z', 'mu' and 'x', each once, as a tuple", f"{self.blocks!r}")
        object.__setattr__(self, "blocks", names)

    def on(self, blocks: Mapping[str, slice]) -> AbstractSolver:
        if self.blocks is None:
            return self
        return Partial.of(dataclasses.replace(self, blocks=None), self.blocks, blocks)

    def init(self, v: Tensor) -> AndersonState:
        batch, size = v.shape
        m = self.memory
        half = self.history == "bfloat16" and not torch.is_grad_enabled()
        history = v.new_zeros(2, batch, m, size, dtype=torch.bfloat16 if half else v.dtype)
        return AndersonState(
            s=history[0],
            y=history[1],
            gram=v.new_zeros(batch, m, m),
            valid=torch.zeros(batch, m, dtype=torch.bool, device=v.device),
            last_v=v,
            last_g=torch.zeros_like(v),
            fresh=torch.ones(batch, dtype=torch.bool, device=v.device),
            count=0,
            pairs=() if torch.is_grad_enabled() else v.new_empty(2, batch, 2, size).unbind(0),
        )

    def bare(self, state: AndersonState) -> AndersonState:
        return state._replace(pairs=())

    def renewed(self, state: AndersonState, v: Tensor) -> AndersonState:
        # Slots that are not valid count for nothing, but what is no number would still be one in a product.
        for part in (state.s, state.y, state.gram, state.valid, state.last_g):
            part.zero_()
        state.last_v.copy_(v)
        state.fresh.fill_(True)
        return state._replace(count=state.count.zero_() if isinstance(state.count, Tensor) else 0)

    def restart(self, state: AndersonState, mask: Tensor) -> AndersonState:
        return state._replace(valid=state.valid & ~mask[:, None], fresh=state.fresh | mask)

    def rows(self, state: AndersonState, index: Tensor) -> AndersonState:
        s, y, gram = (kept(part, index) for part in (state.s, state.y, state.gram))
        v, g = (part.index_select(0, index) for part in (state.last_v, state.last_g))
        pairs = tuple(pair[: len(index)] for pair in state.pairs)
        return AndersonState(s, y, gram, state.valid[index], v, g, state.fresh[index], state.count, pairs)

    def step(self, v: Tensor, fv: Tensor, state: AndersonState) -> tuple[Tensor, AndersonState]:
        if isinstance(state.count, int) and state.count == 0:
            g = fv - v
            return v + self.mixing * g, state._replace(last_v=v, last_g=g, fresh=torch.zeros_like(state.fresh), count=1)
        slot = (state.count - 1) % self.memory
        all_s, all_y, pair = self._differences(v, fv, state, slot)
        y, g = pair.unbind(1)

        # One column and one row of the small system are new; of type II it is symmetric.
        column, right = products(pair, all_s if self.kind == "I" else all_y).unbind(1)
        row = column if self.kind == "II" else products((v - state.last_v)[:, None], all_y)[:, 0]
        length = read(column, slot) if self.kind == "II" else torch.linalg.vector_norm(y, dim=1)
        valid = write(state.valid, slot, ~state.fresh & (length > 0))
        gram = write(write(state.gram, slot, column, dim=2), slot, row, dim=1)
        gamma, failed = self._coefficients(gram, right, valid)

        fresh = torch.zeros_like(state.fresh)
        known = valid & ~failed[:, None]
        after = AndersonState(all_s, all_y, gram, known, v, g, fresh, state.count + 1, state.pairs)
        return self._mix(v, fv, g, gamma, after), after

    def _differences(
        self, v: Tensor, fv: Tensor, state: AndersonState, slot: int | Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The histories with the new differences in ``slot``, and the pair y, g (B, 2, D).

        Type II needs the s only for mixing, so it keeps s + beta y and mixes in one pass over one history.
        """
        if torch.is_grad_enabled() or not state.pairs or not isinstance(slot, int):
            g = fv - v
            s, y = v - state.last_v, (g - state.last_g).to(state.y.dtype).to(v.dtype)  # as it is kept
            first = s if self.kind == "I" else torch.add(s, y, alpha=self.mixing)
            return write(state.s, slot, first), write(state.y, slot, y), torch.stack((y, g), dim=1)
        pair, s = state.pairs[state.count % 2], state.s.select(1, slot)
        torch.sub(fv, v, out=pair[:, 1])
        torch.sub(pair[:, 1], state.last_g, out=pair[:, 0])
        moved = s if s.dtype == v.dtype else state.pairs[(state.count + 1) % 2][:, 0]  # whose y is used up
        torch.sub(v, state.last_v, out=moved)
        if self.kind == "II":
            moved.add_(pair[:, 0], alpha=self.mixing)
        write(state.y, slot, pair[:, 0])
        if moved is not s:  # the small system is that of the differences as they are kept
            s.copy_(moved)
            pair[:, 0].copy_(state.y.select(1, slot))
        return state.s, state.y, pair

    def inverse(self, state: AndersonState) -> Inverse:
        """I - (S + Y) A^-1 W of a state, with A = W Y^T the small system and W the rows that the residual is made
        orthogonal to.

        The mixing is how far a step goes and no part of it.
        """
        s, y = state.s.to(state.gram.dtype), state.y.to(state.gram.dtype)
        moved = s + y if self.kind == "I" else torch.add(s, y, alpha=1.0 - self.mixing)
        against = s if self.kind == "I" else y
        weights, info = self._solved(state.gram, against, state.valid)
        known = state.valid & ((info == 0) & torch.isfinite(weights).all(2).all(1))[:, None]
        weights = torch.where(known[:, :, None], weights, torch.zeros_like(weights)).to(moved.dtype)
        return Inverse(1.0, moved.masked_fill(~known[:, :, None], 0.0), weights)

    def _mix(self, v: Tensor, fv: Tensor, g: Tensor, gamma: Tensor, state: AndersonState) -> Tensor:
        """v + beta g - sum_i gamma_i (s_i + beta y_i), (B, D)."""
        plain = fv if self.mixing == 1.0 else v + self.mixing * g
        mixed = less(plain, gamma, state.s)
        return mixed if self.kind == "II" else less(mixed, gamma, state.y, self.mixing)

    def _coefficients(self, gram: Tensor, right: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """gamma (B, m), zero for the samples whose system failed (B,)."""
        solved, info = self._solved(gram, right.unsqueeze(2), valid)
        gamma = solved[:, :, 0]
        sane = (info == 0) & torch.isfinite(gamma).all(1) & (gamma.abs().sum(1) <= self.limit)
        return torch.where(sane[:, None], gamma, torch.zeros_like(gamma)).to(gram.dtype), ~sane

    def _solved(self, gram: Tensor, right: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The small systems for right-hand sides (B, m, k), in double precision; and where that failed (B,)."""
        # Rows and columns scaled to a largest entry of 1, so that the ridge means the same for all.
        pair = valid[:, :, None] & valid[:, None, :]
        a = torch.where(pair, gram, torch.zeros_like(gram)).double()
        b = torch.where(valid[:, :, None], right, torch.zeros_like(right)).double()
        rows = a.abs().amax(2).clamp_min(torch.finfo(a.dtype).tiny)
        a, b = a / rows[:, :, None], b / rows[:, :, None]
        columns = a.abs().amax(1).clamp_min(torch.finfo(a.dtype).tiny)
        a = a / columns[:, None, :]

        # The ridge has the sign of the diagonal; an unused slot becomes a row of the identity.
        diagonal = a.diagonal(dim1=1, dim2=2)
        shift = torch.where(valid, self.ridge * torch.where(diagonal < 0, -1.0, 1.0).to(a), torch.ones_like(diagonal))
        solved, info = torch.linalg.solve_ex(a + torch.diag_embed(shift), b)
        return solved / columns[:, :, None], info
