"""Causal self-attention of transformer cells, relative or by symmetric kernels: what a token hears of the past.

An attention owns its projections, because how many there are depends on its kernel. A token at place i of the segment
attends to the M tokens of the memory and to the tokens 0 to i of the segment; ``distance`` counts back from it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import CellError, check_choice, check_integer, fail
from ..layers import divisors


def sinusoids(length: int, width: int, like: Tensor) -> Tensor:
    """(length, width) sines and cosines of the distances 0 to length - 1 (Vaswani et al. 2017)."""
    place = torch.arange(length, dtype=like.dtype, device=like.device)
    angle = place[:, None] * frequencies(width // 2, like)[None, :]
    table = torch.cat([angle.sin(), angle.cos()], dim=1)
    return F.pad(table, (0, width - table.shape[1]))


def frequencies(count: int, like: Tensor) -> Tensor:
    """(count,) from 1 down to 1e-4 radians per token."""
    steps = torch.arange(count, dtype=like.dtype, device=like.device)
    return torch.exp(-math.log(1e4) * steps / max(count, 1))


def shift(table: Tensor) -> Tensor:
    """(..., T, L) indexed by distance, L - 1 to 0 -> the same indexed by key.

    Entry (i, j) is that of the distance i + L - T - j; where that is negative, in the future, stands something that the
    mask removes. The trick of Transformer-XL (Dai et al. 2019): one column of padding moves every row by one more.
    """
    queries, keys = table.shape[-2:]
    padded = F.pad(table, (1, 0)).reshape(*table.shape[:-2], keys + 1, queries)
    return padded[..., 1:, :].reshape(table.shape)


def future(queries: int, keys: int, span: int | None, device: torch.device) -> Tensor:
    """(T, L) True where query i may not look at key j: it comes later, or ``span`` or more tokens before."""
    i = torch.arange(queries, device=device)[:, None] + keys - queries
    distance = i - torch.arange(keys, device=device)[None, :]
    return distance < 0 if span is None else (distance < 0) | (distance >= span)


class AbstractAttention(nn.Module, ABC):
    """Multi-head attention with input injection: out( sum_j w_ij v_j ), w_ij = softmax_j of :meth:`scores`.

    width: of a token. heads: a divisor of it. span: tokens that a query can see, itself included; None for all that
    there are. ``parts`` tensors (B, T, width) come from one projection; the injection adds to each of them, before the
    attention (Bai, Kolter and Koltun 2019).
    """

    parts = 3

    def __init__(self, width: int, heads: int, *, span: int | None = None) -> None:
        super().__init__()
        self.width, self.heads = check_integer("width", width, 1), check_integer("heads", heads, 1)
        if width % heads:
            fail("heads", f"a divisor of the width {width} ({divisors(width)})", heads)
        self.span = None if span is None else check_integer("span", span, 1)
        self.size = width // heads
        self.project = nn.Linear(width, self.parts * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.project.weight, std=0.5 * width**-0.5)
        nn.init.normal_(self.out.weight, std=0.5 * width**-0.5)

    @abstractmethod
    def split(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """projected (B, n, parts * width) -> queries, keys, values, each (B, heads, n, size)."""

    @abstractmethod
    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """q (B, heads, T, size), k (B, heads, L, size) -> logarithms of the weights (B, heads, T, L), without mask."""

    def by_head(self, part: Tensor) -> Tensor:
        """part (B, n, width) -> (B, heads, n, size)."""
        return part.unflatten(2, (self.heads, self.size)).transpose(1, 2)

    def forward(self, z: Tensor, said: Tensor, past: Tensor | None = None) -> Tensor:
        """z (B, T, width), said (B, T, parts * width) what the injection adds, past (B, M, parts * width) the
        projected memory -> (B, T, width).
        """
        own = self.project(z) + said
        q, k, v = self.split(own)
        if past is not None:
            _, old_k, old_v = self.split(past)
            k, v = torch.cat([old_k, k], dim=2), torch.cat([old_v, v], dim=2)
        return self.attend(q, k, v, future(q.shape[2], k.shape[2], self.span, z.device))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
        """q (B, heads, T, size), k and v (B, heads, L, size) -> (B, T, width). hidden: True where a query may not look
        at a key, broadcast to (B, heads, T, L).
        """
        weights = self.scores(q, k).masked_fill(hidden, -math.inf).softmax(dim=3)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class RelativeAttention(AbstractAttention):
    """Attention with relative positions as in Transformer-XL (Dai et al. 2019, Section 3.3).

        score_ij = ( (q_i + b) . k_j + (q_i + c) . W r_{i-j} ) / sqrt(size)

    with r the sinusoids of the distance and b, c, W learned.
    """

    def __init__(self, width: int, heads: int, *, span: int | None = None) -> None:
        super().__init__(width, heads, span=span)
        self.place = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.place.weight, std=0.5 * width**-0.5)
        self.content_bias = nn.Parameter(torch.zeros(heads, self.size))
        self.place_bias = nn.Parameter(torch.zeros(heads, self.size))

    def split(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (self.by_head(part) for part in projected.chunk(3, dim=2))
        return q, k, v

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        keys = k.shape[2]
        places = self.place(sinusoids(keys, self.width, q).flip(0)).unflatten(1, (self.heads, self.size))  # (L, H, s)
        content = (q + self.content_bias[:, None]) @ k.transpose(2, 3)
        position = (q + self.place_bias[:, None]) @ places.permute(1, 2, 0)
        return (content + shift(position)) / self.size**0.5


class KernelAttention(AbstractAttention):
    """Attention as a smoother with a product of symmetric kernels (Tsai, Bai, Yamada, Morency, Salakhutdinov 2019).

        w_ij  ~  k_F(f_i, f_j) k_T(i - j),    log k_T(d) = sum_m a_m^2 cos(omega_m d)

    kernel: k_F, "rbf" or "exponential". Queries and keys share one projection, so that k_F is symmetric and positive
    definite:

        "rbf"           exp(-|f_i - f_j|^2 / (2 sqrt(size)))
        "exponential"   exp(f_i . f_j / sqrt(size))

    A sum of cosines with positive weights is what a positive-definite function of the distance is (Bochner). Values
    carry no position. Every head has its own a.
    """

    parts = 2

    def __init__(self, width: int, heads: int, *, kernel: str = "rbf", span: int | None = None) -> None:
        super().__init__(width, heads, span=span)
        self.kernel = check_choice("kernel", kernel, ("rbf", "exponential"))
        self.amplitude = nn.Parameter(torch.full((heads, max(self.size // 2, 1)), 0.3))

    def split(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        feature, value = (self.by_head(part) for part in projected.chunk(2, dim=2))
        return feature, feature, value

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        content = q @ k.transpose(2, 3)
        if self.kernel == "rbf":
            content = content - 0.5 * (q.square().sum(3)[..., None] + k.square().sum(3)[:, :, None])
        count, keys = self.amplitude.shape[1], k.shape[2]
        place = torch.arange(keys - 1, -1, -1, dtype=q.dtype, device=q.device)
        waves = (frequencies(count, q)[:, None] * place[None, :]).cos()  # (m, L), distance falls along L
        position = (self.amplitude.square() @ waves)[:, None].expand(-1, q.shape[2], -1)
        return content / self.size**0.5 + shift(position)


ATTENTIONS: dict[str, tuple[type[AbstractAttention], dict[str, Any]]] = {
    "relative": (RelativeAttention, {}),
    "rbf": (KernelAttention, {"kernel": "rbf"}),
    "exponential": (KernelAttention, {"kernel": "exponential"}),
}


def check_tokens(argument: str, z: Tensor, width: int) -> Tensor:
    """Raise unless z is (B, T, width) with at least one token."""
    if z.dim() != 3 or z.shape[2] != width or z.shape[1] < 1:
        fail(argument, f"a tensor of shape (B, T, {width}) with at least one token", z, error=CellError)
    return z
