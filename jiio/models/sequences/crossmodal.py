"""Two streams of tokens that attend to each other, as one equilibrium.

The multimodal transformer (MulT, Tsai, Bai, Liang, Kolter, Morency and Salakhutdinov, ACL 2019) stacks crossmodal
blocks: queries from one stream, keys and values from the other, whose lengths need not agree. Here one block for each
direction is applied until nothing changes. With z the states of two streams a and b, s what the input says to each, A_a
the attention of a to b and F_a a feed-forward layer (post-norm; pre-norm as in
:mod:`jiio.models.sequences.transformer`):

    h_a = LN(z_a + s_a + A_a(z_a, z_b));   f_a = LN(h_a + F_a(h_a));   and the same for b

In MulT every layer hears the other stream as it came in; in an equilibrium it hears of the other's state and of its
input both, the input by injection into queries, keys and values. A token that is padding is hidden as a key, has the
state zero and is left out of the mean, so that nothing depends on it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import CellError, check_integer, fail
from ...persample import SampleBySample, rows_of, taken
from ...settings import SolveSettings
from ..cells.base import AbstractCell
from ..equilibrium import EquilibriumModel
from ..layers import check_dtype
from .attention import AbstractAttention, check_tokens, sinusoids
from .transformer import TransformerBlock, TransformerConfig, TransformerInjection

Pair = tuple[Tensor, Tensor]


class CrossAttention(AbstractAttention):
    """Attention of one stream to another by content alone; places are in the embeddings."""

    def split(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (self.by_head(part) for part in projected.chunk(3, dim=2))
        return q, k, v

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return q @ k.transpose(2, 3) / self.size**0.5

    def across(self, z: Tensor, said: Tensor, other: Tensor, told: Tensor, hidden: Tensor) -> Tensor:
        """Queries of z (B, T, width) to the stream ``other`` (B, L, width) -> (B, T, width). said (B, T, 3 width) and
        told (B, L, 3 width): what the injections of the two streams add. hidden: (B, L), True at padding of the other.
        """
        asking, telling = self.project.weight.split((self.width, 2 * self.width))
        q = self.by_head(F.linear(z, asking) + said[..., : self.width])
        both = F.linear(other, telling) + told[..., self.width :]
        k, v = (self.by_head(part) for part in both.chunk(2, dim=2))
        return self.attend(q, k, v, hidden[:, None, None])


class CrossModalCell(AbstractCell):
    """f on states (z_a, z_b) of shapes (B, T_a, width) and (B, T_b, width), see the module.

    config: sizes of both blocks. u: for each stream {"stream" (B, T, width), "said" (B, T, 3 width), "there" (B, T, 1),
    1 at a token, 0 at padding}.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config, self.dropout = config, config.dropout
        self.blocks = nn.ModuleList(
            TransformerBlock(config, CrossAttention(config.width, config.heads)) for _ in range(2)
        )

    def forward(self, z: Pair, u: tuple[dict[str, Tensor], ...], masks: tuple[Any, ...] | None = None) -> Pair:
        """A tuple like z."""
        out = []
        for i, block in enumerate(self.blocks):
            assert isinstance(block, TransformerBlock) and isinstance(block.attention, CrossAttention)
            own, other = u[i], u[1 - i]
            heard = block.attention.across(
                block.seen(z[i]), own["said"], block.seen(z[1 - i]), other["said"], other["there"][..., 0] == 0
            )
            stream = z[i] + own["stream"] if self.config.norm == "post" else own["stream"]
            out.append(block.finish(stream, heard, None if masks is None else masks[i]) * own["there"])
        return out[0], out[1]

    def initial_state(self, u: tuple[dict[str, Tensor], ...]) -> Pair:
        """Zeros."""
        a, b = (torch.zeros_like(part["stream"]) for part in u)
        return a, b

    def draw_masks(self, z: Pair, generator: torch.Generator) -> tuple[Any, ...] | None:
        """Of both blocks."""
        if not self.dropout:
            return None
        return tuple(block.draw_masks(part, generator) for block, part in zip(self.blocks, z, strict=True))  # type: ignore[operator]


class CrossModalInjection(SampleBySample, nn.Module):
    """Streams (B, T_a, n_a) and (B, T_b, n_b) -> u for :class:`CrossModalCell`: embedded, with the sines of places."""

    def __init__(self, inputs: tuple[int, int], config: TransformerConfig) -> None:
        super().__init__()
        self.inputs, self.width = inputs, config.width
        embed = [nn.Linear(n, config.width) for n in inputs]
        for layer in embed:
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)
        self.embed = nn.ModuleList(embed)
        self.inject = nn.ModuleList(TransformerInjection(config) for _ in inputs)

    def forward(self, x: Pair, there: Pair | None = None) -> tuple[dict[str, Tensor], ...]:
        """there: two masks (B, T), True at a token; None where there is no padding."""
        if not isinstance(x, (tuple, list)) or len(x) != 2:
            fail("x", "a pair of streams", x, error=CellError)
        for i, (part, n) in enumerate(zip(x, self.inputs, strict=True)):
            check_dtype(f"x[{i}]", check_tokens(f"x[{i}]", part, n), next(self.parameters()))
        said = []
        for part, held, embed, inject in zip(x, present(x, there), self.embed, self.inject, strict=True):
            clean = torch.where(held > 0, part, torch.zeros_like(part))
            u = inject(embed(clean) + sinusoids(part.shape[1], self.width, part))
            said.append(u | {"there": held})
        return tuple(said)


class CrossModalHead(SampleBySample, nn.Module):
    """The mean of each stream's tokens, one after the other, through a linear layer -> (B, outputs)."""

    def __init__(self, config: TransformerConfig, outputs: int) -> None:
        super().__init__()
        self.last = nn.LayerNorm(config.width) if config.norm == "pre" else nn.Identity()
        self.linear = nn.Linear(2 * config.width, check_integer("outputs", outputs, 1))

    def forward(self, z: Pair, there: Pair | None = None) -> Tensor:
        means = [(self.last(part) * held).sum(1) / held.sum(1) for part, held in zip(z, present(z, there), strict=True)]
        return self.linear(torch.cat(means, dim=1))


def present(x: Pair, there: Pair | None) -> list[Tensor]:
    """For each stream (B, T, n) of x a tensor (B, T, 1) like it, 1 at a token, 0 at padding."""
    if there is None:
        return [torch.ones_like(part[..., :1]) for part in x]
    if not isinstance(there, (tuple, list)) or len(there) != 2:
        fail("there", "a pair of masks, one for each stream", there)
    for part, held in zip(x, there, strict=True):
        if not isinstance(held, Tensor) or held.dtype != torch.bool or held.shape != part.shape[:2]:
            fail("there", f"a bool tensor of shape {tuple(part.shape[:2])}, True at a token", held)
        if not bool(held.any(1).all()):
            fail("there", "at least one token in every stream", f"sample {int((~held.any(1)).nonzero()[0])} without")
    return [held[..., None].to(part) for part, held in zip(x, there, strict=True)]


class _Masked(nn.Module):
    """A module whose second argument is bound."""

    def __init__(self, module: nn.Module, there: Pair | None) -> None:
        super().__init__()
        self.module, self.there = module, there

    def forward(self, x: Pair) -> Any:
        return self.module(x, self.there)

    def rows(self, index: Tensor) -> _Masked | None:
        """The samples ``index`` (k,), with their masks."""
        module = rows_of(self.module, index)
        return None if module is None else _Masked(module, None if self.there is None else taken(self.there, index))


def _check_inputs(inputs: Any) -> tuple[int, int]:
    if not isinstance(inputs, (tuple, list)) or len(inputs) != 2:
        fail("inputs", "a pair, the numbers per token of either stream", inputs)
    a, b = (check_integer("inputs", n, 1) for n in inputs)
    return a, b


class CrossModalModel(nn.Module):
    """Two streams of features -> outputs (B, outputs), by one equilibrium in which each attends to the other.

    inputs: numbers per token of either stream. width, heads, inner, norm, activation, dropout, weight_norm, drive: as
    in :class:`jiio.models.TransformerConfig`, of both streams. ``options``: the settings of the solve, as in
    :class:`jiio.models.EquilibriumModel`.
    """

    def __init__(
        self,
        inputs: tuple[int, int],
        outputs: int,
        *,
        width: int = 32,
        heads: int = 4,
        inner: int = 64,
        norm: str = "post",
        activation: str = "gelu",
        dropout: float = 0.0,
        weight_norm: bool = False,
        drive: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__()
        # Nothing is remembered: both streams are there as a whole.
        sizes = {"width": width, "heads": heads, "inner": inner, "norm": norm, "activation": activation}
        config = TransformerConfig(**sizes, memory=0, dropout=dropout, weight_norm=weight_norm, drive=drive)

        self.inject, self.cell = CrossModalInjection(_check_inputs(inputs), config), CrossModalCell(config)
        self.head = CrossModalHead(config, outputs)
        # Checked here, so that an unknown option is told now and not at the first solve.
        self.settings = SolveSettings().merged(**options)

    def at(self, there: Pair | None = None, **options: Any) -> EquilibriumModel:
        """The equilibrium model from the pair of streams to the outputs under these masks, with these very weights: for
        :func:`jiio.solve` over one or both streams, and for the diagnostics. there: as in :meth:`forward`. options:
        settings of the solve.
        """
        inject, head = _Masked(self.inject, there), _Masked(self.head, there)
        return EquilibriumModel(inject, self.cell, head, **self.settings.merged(**options).arguments())

    def forward(self, x: Pair, there: Pair | None = None) -> Tensor:
        """x: streams (B, T_a, inputs[0]) and (B, T_b, inputs[1]). there: two bool masks (B, T), True at a token, False
        at padding, which may hold anything; None where there is no padding. -> (B, outputs).

        Errors: CellError for streams of other shapes, ArgumentError for masks that do not fit or leave no token.
        """
        return self.at(there)(x)
