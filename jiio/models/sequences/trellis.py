"""The trellis cell: causal temporal convolution with injected input and gated activation, as an equilibrium.

The second architecture of Bai, Kolter and Koltun, "Deep equilibrium models" (2019), after their "Trellis networks for
sequence modeling" (2019): an LSTM whose recurrence runs over depth as well as over time. The state of a token is
z = [h, c], and one application of f is

    a_t = W [h_t, h_(t-1)] + V x_t + V' x_(t-1) + b,      (i, f, o, g) = a_t
    c_t <- sigma(f) c_(t-1) + sigma(i) tanh(g),           h_t <- sigma(o) tanh(c_t)

with one W at every depth. All that a token hears of what came before is the state of its neighbour, so a memory of one
token is a memory of the whole past; an ordinary LSTM would be the same with W for h_(t-1) alone, and solved by one pass
from left to right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm as apply_weight_norm

from ...checks import check_instance, check_integer, check_number
from ...outputs.shares import drawn
from ...persample import SampleBySample
from ...settings import SolveSettings
from ..cells.base import AbstractCell
from ..layers import zeros
from .attention import check_tokens
from .model import AbstractSequenceModel, EquilibriumSequenceModel, count
from .tokens import check_cutoffs

FORGET = 1.0  # bias of the forget gate at the start, as in an LSTM


@dataclass(frozen=True)
class TrellisConfig:
    """The sizes of a trellis network.

    vocabulary: number of tokens. width: of an embedding. hidden: of h and of c. memory: tokens before the segment that
    are remembered; one is all that it hears. dropout: variational, of h, one mask per solve. weight_norm: of the cell's
    matrix. cutoffs, divisor: of the adaptive softmax, see :class:`jiio.models.Tokens`.
    """

    vocabulary: int = 256
    width: int = 64
    hidden: int = 64
    memory: int = 1
    dropout: float = 0.0
    weight_norm: bool = False
    cutoffs: tuple[int, ...] = ()
    divisor: float = 4.0

    def __post_init__(self) -> None:
        check_integer("vocabulary", self.vocabulary, 2)
        check_integer("width", self.width, 1)
        check_integer("hidden", self.hidden, 1)
        check_integer("memory", self.memory, 0)
        check_number("dropout", self.dropout, 0.0, 0.95)
        check_cutoffs(self.cutoffs, self.vocabulary)
        check_number("divisor", self.divisor, 1.0)


class TrellisCell(AbstractCell):
    """f, see the module. u: {"said" (B, T, 4 hidden), "before" (B, T, 4 hidden), and, with a memory, "past" (B, 1,
    6 hidden)}: what an embedding says to its own token and to the next, and state and word of the token before all.
    config: its sizes.
    """

    def __init__(self, config: TrellisConfig) -> None:
        super().__init__()
        self.config, self.dropout = config, config.dropout
        self.gates = nn.Linear(2 * config.hidden, 4 * config.hidden, bias=False)
        nn.init.normal_(self.gates.weight, std=0.5 * (2 * config.hidden) ** -0.5)
        if config.weight_norm:
            apply_weight_norm(self.gates)

    def forward(self, z: Tensor, u: dict[str, Tensor], masks: Tensor | None = None) -> Tensor:
        """z (B, T, 2 hidden) -> the same shape. u: see the class. masks: (B, 1, hidden) or None."""
        n = self.config.hidden
        check_tokens("z", z, 2 * n)
        past = u.get("past")
        past = z.new_zeros(len(z), 1, 6 * n) if past is None else past

        # Every token beside the one before it.
        earlier = torch.cat([past[:, :, : 2 * n], z[:, :-1]], dim=1)
        word = torch.cat([past[:, :, 2 * n :], u["before"][:, :-1]], dim=1)
        heard = torch.cat([z[:, :, :n], earlier[:, :, :n]], dim=2)
        heard = heard if masks is None else heard * masks.repeat(1, 1, 2)

        i, f, o, g = (self.gates(heard) + u["said"] + word).chunk(4, dim=2)
        c = f.sigmoid() * earlier[:, :, n:] + i.sigmoid() * g.tanh()
        return torch.cat([o.sigmoid() * c.tanh(), c], dim=2)

    def initial_state(self, u: dict[str, Tensor]) -> Tensor:
        """Zeros (B, T, 2 hidden)."""
        return zeros(u["said"], u["said"].shape[1], 2 * self.config.hidden)

    def draw_masks(self, z: Tensor, generator: torch.Generator) -> Tensor | None:
        """(B, 1, hidden): one mask for all tokens. generator: what draws."""
        if not self.dropout:
            return None
        hidden = self.config.hidden
        chances = drawn(lambda n: torch.rand((n, 1, hidden), generator=generator, device=z.device), len(z))
        return (chances >= self.dropout).to(z.dtype) / (1.0 - self.dropout)

    def past(self, state: Tensor, u: dict[str, Tensor]) -> Tensor:
        """Of a remembered state (B, M, 2 hidden) and its u, what the last token leaves the next: (B, 1, 6 hidden)."""
        return torch.cat([state[:, -1:], u["before"][:, -1:]], dim=2)


class TrellisInjection(SampleBySample, nn.Module):
    """Embeddings (B, T, width) -> {"said", "before"} for :class:`TrellisCell`. config: its sizes."""

    def __init__(self, config: TrellisConfig) -> None:
        super().__init__()
        self.width = config.width
        self.said = nn.Linear(config.width, 4 * config.hidden)
        self.before = nn.Linear(config.width, 4 * config.hidden, bias=False)
        for layer in (self.said, self.before):
            nn.init.normal_(layer.weight, std=config.width**-0.5)
        nn.init.zeros_(self.said.bias)
        nn.init.constant_(self.said.bias[config.hidden : 2 * config.hidden], FORGET)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        check_tokens("x", x, self.width)
        return {"said": self.said(x), "before": self.before(x)}


class TrellisHead(SampleBySample, nn.Module):
    """States (B, T, 2 hidden) -> (B, T, width) that ``tokens`` predicts from, from h alone."""

    def __init__(self, config: TrellisConfig) -> None:
        super().__init__()
        self.hidden, self.out = config.hidden, nn.Linear(config.hidden, config.width)

    def forward(self, z: Tensor) -> Tensor:
        return self.out(z[:, :, : self.hidden])


class TrellisModel(EquilibriumSequenceModel):
    """The equilibrium of a trellis layer over a vocabulary. config: its sizes; None for the defaults. options: the
    settings of the solve, as in :class:`jiio.models.EquilibriumModel`.
    """

    config: TrellisConfig
    inject: TrellisInjection
    cell: TrellisCell

    def __init__(self, config: TrellisConfig | None = None, **options: Any) -> None:
        own = check_instance("config", TrellisConfig() if config is None else config, TrellisConfig)
        super().__init__(own, TrellisHead(own))
        self.inject, self.cell = TrellisInjection(own), TrellisCell(own)
        self.settings = SolveSettings().merged(**options)

    @classmethod
    def of_size(cls, config: TrellisConfig, other: AbstractSequenceModel, **options: Any) -> TrellisModel:
        """As many parameters as ``other``, to within one hidden unit, whatever ``config.hidden`` says. options:
        settings of the solve.
        """
        check_instance("other", other, AbstractSequenceModel)

        def size(hidden: int) -> int:
            with torch.device("meta"):
                return count(cls(replace(config, hidden=hidden)))

        wanted, low, high = count(other), 1, 2
        while size(high) <= wanted:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if size(middle) <= wanted else (low, middle)
        best = min((low, high), key=lambda hidden: abs(size(hidden) - wanted))
        return cls(replace(config, hidden=best), **options)
