"""The cell of the DEQ transformer, its injection, its configuration and the sizes of known models.

Bai, Kolter and Koltun, "Deep equilibrium models", NeurIPS 2019.

One application of f to the states z (B, T, width) of a segment, with u from the embeddings (see
:class:`TransformerInjection`), A the attention and F a feed-forward layer:

    post-norm:  h = LN(z + s + A(z));   f = LN(h + F(h))
    pre-norm:   h = s + A(LN(z));       f = h + F(LN(h))

The paper injects into queries, keys and values alone. Here the stream s is a fourth part: without it a token hears of
itself through a softmax only, and f starts near the identity, whose fixed point is wherever one began. Pre-norm leaves
z out of the sum: z = c z + g(z) and z = g(z) / (1 - c) have the same solutions. ``injection="attention"`` is the model
as published, with z in the place of z + s and of s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm as apply_weight_norm

from ...checks import check_choice, check_integer, check_number, fail
from ...outputs.shares import drawn
from ...persample import SampleBySample
from ..cells.base import AbstractCell
from ..layers import ACTIVATIONS, elementwise, zeros
from .attention import ATTENTIONS, AbstractAttention, check_tokens
from .tokens import check_cutoffs

INJECTIONS = ("stream", "attention")


@dataclass(frozen=True)
class TransformerConfig:
    """The sizes of a transformer.

    vocabulary: number of tokens. width: of a state. heads: of the attention. inner: width of the feed-forward layer.
    memory: tokens before the segment that are remembered. norm: "post" or "pre". attention: "relative", or a product of
    symmetric kernels, "rbf" or "exponential". activation: of the feed-forward layer, "relu", "tanh", "elu", "softplus",
    "silu" or "gelu". span: tokens that one token sees at most (None: all). dropout: variational, one mask per solve.
    weight_norm: of the cell's matrices. cutoffs, divisor: of the adaptive softmax, see :class:`jiio.models.Tokens`.
    drive: size of the stream beside the state at the start; more makes f forget z. injection: where embeddings enter,
    "stream" or, as published, "attention" alone, where there is no drive.
    """

    vocabulary: int = 256
    width: int = 64
    heads: int = 4
    inner: int = 256
    memory: int = 64
    norm: str = "post"
    attention: str = "relative"
    activation: str = "gelu"
    span: int | None = None
    dropout: float = 0.0
    weight_norm: bool = False
    cutoffs: tuple[int, ...] = ()
    divisor: float = 4.0
    drive: float = 2.0
    injection: str = "stream"

    def __post_init__(self) -> None:
        check_integer("vocabulary", self.vocabulary, 2)
        check_integer("width", self.width, 2)
        if self.width % check_integer("heads", self.heads, 1):
            fail("heads", f"a divisor of the width {self.width}", self.heads)
        check_integer("inner", self.inner, 1)
        check_integer("memory", self.memory, 0)

        check_choice("norm", self.norm, ("post", "pre"))
        check_choice("attention", self.attention, ATTENTIONS)
        check_choice("activation", self.activation, ACTIVATIONS)
        if self.span is not None:
            check_integer("span", self.span, 1)

        # The rest belongs to training, to the vocabulary and to the start.
        check_number("dropout", self.dropout, 0.0, 0.95)
        check_cutoffs(self.cutoffs, self.vocabulary)
        check_number("divisor", self.divisor, 1.0)
        check_number("drive", self.drive, 0.0, open_low=True)
        published = check_choice("injection", self.injection, INJECTIONS) == "attention"
        if published and self.drive != TransformerConfig.drive:
            remedy = "Without a stream there is nothing that it scales."
            fail("drive", f"{TransformerConfig.drive:g} with injection 'attention'", self.drive, remedy)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> TransformerConfig:
        """The one of :data:`TRANSFORMERS` with this name, ``changes`` laid on it."""
        return replace(TRANSFORMERS[check_choice("name", name, TRANSFORMERS)], **changes)


class TransformerBlock(AbstractCell):
    """One transformer layer whose residual stream is handed to it; :class:`TransformerCell` closes the circle.

    config: its sizes. attention: of your own; None for that of the configuration.
    """

    def __init__(self, config: TransformerConfig, attention: AbstractAttention | None = None) -> None:
        super().__init__()
        self.config, self.dropout = config, config.dropout
        cls, options = ATTENTIONS[config.attention]
        own = cls(config.width, config.heads, span=config.span, **options) if attention is None else attention
        self.attention = own

        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.up, self.down = nn.Linear(config.width, config.inner), nn.Linear(config.inner, config.width)
        # F begins at about half the size of its input.
        nn.init.normal_(self.up.weight, std=config.width**-0.5)
        nn.init.normal_(self.down.weight, std=0.5 * config.inner**-0.5)
        nn.init.zeros_(self.up.bias)
        nn.init.zeros_(self.down.bias)
        self.act = elementwise(config.activation)
        if config.weight_norm:
            for layer in (self.attention.project, self.attention.out, self.up, self.down):
                apply_weight_norm(layer)

    def seen(self, z: Tensor) -> Tensor:
        """What the attention projects: z, or LN(z) with pre-norm."""
        return z if self.config.norm == "post" else self.norm1(z)

    def layer(
        self, z: Tensor, stream: Tensor, said: Tensor, past: Tensor | None, masks: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """The equations of the module with ``stream`` for what is added to A: z + s, s, or z in an ordinary layer.
        said, past: see :class:`TransformerCell`. masks: from :meth:`draw_masks`.
        """
        return self.finish(stream, self.attention(self.seen(z), said, past), masks)

    def finish(self, stream: Tensor, heard: Tensor, masks: tuple[Tensor, Tensor] | None) -> Tensor:
        """The equations from A on: ``heard`` is what the attention said, ``stream`` what it is added to. masks: from
        :meth:`draw_masks`.
        """
        h = stream + (heard if masks is None else heard * masks[0])
        h = self.norm1(h) if self.config.norm == "post" else h
        inner = self.act(self.up(h if self.config.norm == "post" else self.norm2(h)))
        h = h + self.down(inner if masks is None else inner * masks[1])
        return self.norm2(h) if self.config.norm == "post" else h

    def forward(self, z: Tensor, u: dict[str, Tensor], masks: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """An ordinary layer z -> z (B, T, width) of a stack; u: {"said", "past" with a memory}."""
        return self.layer(z, z, u["said"], u.get("past"), masks)

    def initial_state(self, u: dict[str, Tensor]) -> Tensor:
        """Zeros (B, T, width)."""
        return zeros(u["said"], u["said"].shape[1], self.config.width)

    def draw_masks(self, z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor] | None:
        """(B, 1, width) and (B, 1, inner): one mask for all tokens (Gal and Ghahramani 2016)."""
        if not self.dropout:
            return None

        def mask(width: int) -> Tensor:
            chances = drawn(lambda n: torch.rand((n, 1, width), generator=generator, device=z.device), len(z))
            return (chances >= self.dropout).to(z.dtype) / (1.0 - self.dropout)

        return mask(self.config.width), mask(self.config.inner)

    def past(self, state: Tensor, u: dict[str, Tensor]) -> Tensor:
        """The projected memory of a state (B, M, width), given u, with what was said to it."""
        return self.remembered(state, u["said"])

    def remembered(self, state: Tensor, said: Tensor) -> Tensor:
        """The projected memory (B, M, parts * width) of a state (B, M, width) with what was said to it."""
        return self.attention.project(self.seen(state)) + said


class TransformerCell(TransformerBlock):
    """f of the DEQ transformer, see the module. u: {"stream" (B, T, width), unless the configuration has none, "said"
    (B, T, parts * width), and, with a memory, "past" (B, M, parts * width)}.
    """

    def forward(self, z: Tensor, u: dict[str, Tensor], masks: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """z (B, T, width) -> the same shape."""
        if self.config.injection == "attention":
            stream = z
        else:
            stream = z + u["stream"] if self.config.norm == "post" else u["stream"]
        return self.layer(z, stream, u["said"], u.get("past"), masks)


class TransformerInjection(SampleBySample, nn.Module):
    """Embeddings (B, T, width) -> {"stream", "said"} for :class:`TransformerCell`. config: its sizes."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.width = config.width
        parts = ATTENTIONS[config.attention][0].parts
        self.stream = nn.Linear(config.width, config.width) if config.injection == "stream" else None
        self.said = nn.Linear(config.width, parts * config.width)
        if self.stream is not None:
            nn.init.orthogonal_(self.stream.weight, config.drive)
            nn.init.zeros_(self.stream.bias)
        nn.init.normal_(self.said.weight, std=0.5 * config.width**-0.5)
        nn.init.zeros_(self.said.bias)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        check_tokens("x", x, self.width)
        said = {"said": self.said(x)}
        return said if self.stream is None else {"stream": self.stream(x), **said}


TRANSFORMERS: dict[str, TransformerConfig] = {
    # Characters, for a CPU.
    "tiny": TransformerConfig(),
    # Words of the Penn Treebank, for a CPU and an hour.
    "small": TransformerConfig(10_000, 128, 4, 512, memory=64, dropout=0.1, cutoffs=(1000, 4000)),
    # WikiText-103, the sizes in the paper's code: 97 million parameters here (the paper counts 110).
    "medium": TransformerConfig(
        267_735,
        700,
        10,
        48_000,
        memory=150,
        activation="relu",
        dropout=0.06,
        weight_norm=True,
        cutoffs=(20_000, 40_000, 200_000),
    ),
}
