"""Models of sequences: the DEQ transformer, its unrolled twin, and an ordinary stack of layers.

All have the same way of use, :meth:`AbstractSequenceModel.states`: embeddings of a segment and the memory of what came
before, to states and the memory for the next segment. The state of the DEQ transformer that is remembered is its
equilibrium, which does not depend on what follows; so with a memory as long as the past, a text in segments has the
very states of the text in one piece.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...checks import check_instance, check_integer, fail
from ...diagnostics import jacobian_penalty
from ...persample import rows_of, taken
from ...settings import SolveSettings
from ...solution import Solution
from ...solving import equilibrium
from ..cells.base import AbstractCell
from ..equilibrium import BoundCell, EquilibriumModel, arithmetic_of
from ..tied import thinned
from .tokens import Tokens
from .transformer import TransformerBlock, TransformerCell, TransformerConfig, TransformerInjection


@dataclass(frozen=True)
class Memory:
    """The last M tokens before a segment.

    states: one tensor (B, M, width), or one for each layer. embedding: (B, M, width), of the tokens. Both are
    constants: no gradient runs into an earlier segment (Dai et al. 2019).
    """

    states: tuple[Tensor, ...]
    embedding: Tensor

    def extended(self, states: tuple[Tensor, ...], embedding: Tensor, length: int) -> Memory | None:
        """This memory and a further segment, its states and its embedding (B, T, width), cut to the last ``length``
        tokens; None where that is no token.
        """
        joined = tuple(torch.cat(pair, dim=1) for pair in zip(self.states, states, strict=True))
        return Memory.of(joined, torch.cat([self.embedding, embedding], dim=1), length)

    @classmethod
    def of(cls, states: tuple[Tensor, ...], embedding: Tensor, length: int) -> Memory | None:
        """The last ``length`` tokens of a segment, of its states and its embedding (B, T, width); None where that is no
        token.
        """
        if length == 0:
            return None
        return cls(tuple(s.detach()[:, -length:] for s in states), embedding.detach()[:, -length:])


def remember(memory: Memory | None, states: tuple[Tensor, ...], embedding: Tensor, length: int) -> Memory | None:
    """The memory after a segment."""
    if memory is None:
        return Memory.of(states, embedding, length)
    return memory.extended(tuple(s.detach() for s in states), embedding.detach(), length)


class _Sizes(Protocol):
    """What the configuration of a sequence model has in any case; see :class:`jiio.models.TransformerConfig`."""

    @property
    def vocabulary(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def memory(self) -> int: ...
    @property
    def cutoffs(self) -> tuple[int, ...]: ...
    @property
    def divisor(self) -> float: ...


class AbstractSequenceModel(nn.Module, ABC):
    """A model over a vocabulary: ``tokens`` embeds and predicts, :meth:`states` lies between, ``last`` ends it.

    config: what has vocabulary, width, memory, cutoffs and divisor, such as :class:`TransformerConfig`. last: from the
    states of the network to (B, T, width), which ``tokens`` predicts from.
    """

    def __init__(self, config: _Sizes, last: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.tokens = Tokens(config.vocabulary, config.width, cutoffs=config.cutoffs, divisor=config.divisor)
        self.last = last

    @abstractmethod
    def states(self, x: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory | None]:
        """Embeddings x (B, T, width) -> states (B, T, width) that ``tokens`` predicts from, and the memory for the next
        segment. memory: of the segments before.
        """

    def forward(self, tokens: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory | None]:
        """tokens, numbers (B, T) -> log-probabilities of every next token (B, T, vocabulary), and the memory."""
        state, memory = self.states(self.tokens.embed(tokens), memory)
        return self.tokens.log_probabilities(state), memory


class _Remembering(nn.Module):
    """The injection with a memory: embeddings (B, T, width) -> u."""

    def __init__(self, inject: nn.Module, cell: Any, memory: Memory | None) -> None:
        super().__init__()
        self.inject, self.cell, self.memory = inject, cell, memory

    def rows(self, index: Tensor) -> _Remembering | None:
        """The samples ``index`` (k,), with what they remember."""
        inject, memory = rows_of(self.inject, index), self.memory
        if memory is not None:
            memory = Memory(taken(memory.states, index), taken(memory.embedding, index))
        return None if inject is None else _Remembering(inject, self.cell, memory)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        u = self.inject(x)
        if self.memory is None:
            return u
        return u | {"past": self.cell.past(self.memory.states[0], self.inject(self.memory.embedding))}


@dataclass(frozen=True, eq=False)
class Read:
    """What an equilibrium over a sequence made of a segment.

    state: (B, T, width), what ``tokens`` predicts from. memory: for the next segment. solution: of the solve, with the
    equilibrium as ``z`` and what the injection said as ``x``. cell: as it was solved, with its dropout masks.
    """

    state: Tensor
    memory: Memory | None
    solution: Solution
    cell: BoundCell

    def penalty(self) -> Tensor:
        """The Jacobian penalty (B,) at the equilibrium, under the dropout masks of the solve; draws one probe.

        Differentiable with respect to the parameters; the equilibrium is held constant, as in the paper.
        """
        return jacobian_penalty(self.cell, self.solution.z.detach(), self.solution.x)


class EquilibriumSequenceModel(AbstractSequenceModel):
    """The equilibrium of a cell over the states of a segment.

    inject: embeddings (B, T, width) -> u, a dict of tensors. cell: f(z, u), with ``past(state, u)``, which makes of a
    remembered state what is added to u as "past". settings: of the solve.
    """

    inject: nn.Module
    cell: AbstractCell
    settings: SolveSettings

    def at(self, memory: Memory | None = None, **options: Any) -> EquilibriumModel:
        """The equilibrium model from embeddings (B, T, width) to states (B, T, width) after ``memory``, with these very
        weights: for :func:`jiio.solve` over embeddings, and for the diagnostics. options: settings of the solve.
        """
        inject = _Remembering(self.inject, self.cell, memory)
        return EquilibriumModel(inject, self.cell, self.last, **self.settings.merged(**options).arguments())

    def states(self, x: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory | None]:
        read = self.solved(x, memory)
        return read.state, read.memory

    def solved(self, x: Tensor, memory: Memory | None = None) -> Read:
        """As :meth:`states` of x (B, T, width) and a memory, with the solution that the states come from."""
        around = arithmetic_of(x)
        with around.asked(self.settings.tolerance.rtol, torch.float32):
            u, bound = self.at(memory).inject(around.raised(x)), BoundCell(self.cell, self.cell, None)
        solution = equilibrium(bound, u, **self.settings.arguments())
        z: Tensor = solution.z
        return Read(self.last(z), remember(memory, (z,), x, self.config.memory), solution, bound)

    def unrolled(
        self,
        x: Tensor,
        memory: Memory | None = None,
        *,
        layers: int,
        masks: tuple[dict[str, Tensor], ...] | None = None,
    ) -> tuple[Tensor, Memory | None]:
        """The same parameters as an ordinary weight-tied network of ``layers`` layers, with ordinary gradients.

        x, memory: as for :meth:`states`. masks: from :func:`jiio.models.sparse_masks`, one for each
        layer. The last layer is what is remembered.
        """
        check_integer("layers", layers, 1)
        if masks is not None and len(masks) != layers:
            fail("masks", f"one for each of the {layers} layers", f"{len(masks)}")

        # From zero, as the solve begins, and under one set of dropout masks for all layers.
        u, bound = self.at(memory).inject(x), BoundCell(self.cell, self.cell, None)
        z = self.cell.initial_state(u)
        for i in range(layers):
            z = bound(z, u) if masks is None else thinned(bound, z, u, masks[i])
        return self.last(z), remember(memory, (z,), x, self.config.memory)


class TransformerModel(EquilibriumSequenceModel):
    """The DEQ transformer. config: its sizes; None for the defaults. options: the settings of the solve, as in
    :class:`jiio.models.EquilibriumModel`.
    """

    config: TransformerConfig
    inject: TransformerInjection
    cell: TransformerCell

    def __init__(self, config: TransformerConfig | None = None, **options: Any) -> None:
        own = check_instance("config", TransformerConfig() if config is None else config, TransformerConfig)
        super().__init__(own, scaled(own))
        self.inject, self.cell = TransformerInjection(own), TransformerCell(own)
        self.settings = SolveSettings().merged(**options)


def scaled(config: TransformerConfig) -> nn.Module:
    """Pre-norm states have no fixed scale; what predicts gets them normalised."""
    return nn.LayerNorm(config.width) if config.norm == "pre" else nn.Identity()


class ExplicitTransformer(AbstractSequenceModel):
    """``layers`` ordinary layers with weights of their own, each with a memory of its own: Transformer-XL.

    config: sizes of a layer, and of the vocabulary.
    """

    def __init__(self, config: TransformerConfig, layers: int) -> None:
        super().__init__(check_instance("config", config, TransformerConfig), scaled(config))
        self.layers = nn.ModuleList(TransformerBlock(config) for _ in range(check_integer("layers", layers, 1)))

    def states(self, x: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory | None]:
        z, kept = x, []
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, TransformerBlock)
            kept.append(z)
            quiet = x.new_zeros(1, 1, layer.attention.parts * self.config.width)
            u = {"said": quiet.expand(len(x), x.shape[1], -1)}
            if memory is not None:
                u["past"] = layer.remembered(memory.states[i], quiet)
            z = BoundCell(layer, layer, None)(z, u)
        return self.last(z), remember(memory, tuple(kept), x, self.config.memory)

    @classmethod
    def of_equal_size(cls, config: TransformerConfig, layers: int) -> ExplicitTransformer:
        """``layers`` layers that together have as many parameters as the DEQ transformer of ``config``, to within one
        unit of the feed-forward layers, whose width gives way.

        Errors: ArgumentError where the attentions alone are already too large.
        """
        check_integer("layers", layers, 1)
        with torch.device("meta"):
            total = count(TransformerModel(config))
            bare, wider = (count(cls(replace(config, inner=n), layers)) for n in (1, 2))
        inner = 1 + round((total - bare) / (wider - bare))
        if inner < 1:
            fail("layers", f"fewer, for the {total:,} parameters of the DEQ transformer", layers, "Or widen inner.")
        return cls(replace(config, inner=inner), layers)


def count(module: nn.Module) -> int:
    """Its parameters."""
    return sum(p.numel() for p in module.parameters())
