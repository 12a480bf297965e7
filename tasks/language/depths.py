"""What stands between the embedding of a token and the prediction of the next: an equilibrium, or layers.

One configuration key, ``depth``, says which; everything around it is the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

import jiio
from jiio.checks import check_integer, check_number, describe, fail
from jiio.models.sequences.model import (
    AbstractSequenceModel,
    EquilibriumSequenceModel,
    ExplicitTransformer,
    Memory,
    TransformerModel,
)
from jiio.models.sequences.transformer import TransformerConfig
from jiio.models.sequences.trellis import TrellisConfig, TrellisModel
from jiio.models.tied import sparse_masks
from jiio.outputs.seeds import generator
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.config import whole
from jiio.tasks.frame.load import ConfigError


@dataclass(frozen=True)
class SolveConfig:
    """The solve for the states of a segment.

    Args:
        solver: how the iteration is accelerated
        adjoint: Implicit, Phantom or Unrolled; Implicit solves with the solver, tolerances and steps of the state
        atol: absolute tolerance of the residual
        rtol: relative tolerance of the residual
        max_steps: steps after which the solve ends without convergence
    """

    solver: Choice = Choice("Anderson", {"memory": 6})
    adjoint: Choice = Choice("Implicit")
    atol: float = 1e-4
    rtol: float = 1e-3
    max_steps: int = 24

    def __post_init__(self) -> None:
        whole("solve.max_steps", self.max_steps, 2, 100_000)
        self.solve_settings()

    def solve_settings(self) -> jiio.SolveSettings:
        """Of the equilibrium; a failure is no warning, because the log has the share that converged."""
        solver = self.solver.make("solver", "solve.solver")
        tolerance = jiio.Tolerance(atol=self.atol, rtol=self.rtol)
        adjoint = self.adjoint.make("adjoint", "solve.adjoint")
        if isinstance(adjoint, (jiio.KKT, jiio.Envelope)):
            remedy = "An equilibrium has no objective: Implicit, Phantom or Unrolled."
            fail("solve.adjoint.name", "one for an equilibrium", self.adjoint.name, remedy, ConfigError)

        # Where nothing else is said, the adjoint system is solved as the state is.
        if self.adjoint == Choice("Implicit"):
            adjoint = jiio.Implicit(solver=solver, tolerance=tolerance, max_steps=self.max_steps)
        return jiio.SolveSettings(solver, adjoint, tolerance, self.max_steps, on_failure="ignore")


@dataclass(frozen=True)
class ReadSegment:
    """What a depth makes of one segment of text.

    state: (B, T, width). memory: for the next segment. penalty: scalar, or None. figures: for the log.
    """

    state: Tensor
    memory: Memory | None
    penalty: Tensor | None = None
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AbstractDepth(ABC):
    """From embeddings to states."""

    @abstractmethod
    def build(self, config: TransformerConfig, solve: SolveConfig) -> AbstractSequenceModel:
        """A fresh model."""

    def read(self, model: AbstractSequenceModel, x: Tensor, memory: Memory | None, *, penalty: bool) -> ReadSegment:
        """The states of embeddings (B, T, width). penalty: whether the Jacobian penalty is wanted."""
        return ReadSegment(*model.states(x, memory))


@dataclass(frozen=True)
class Equilibrium(AbstractDepth):
    """The fixed point of one layer."""

    def build(self, config: TransformerConfig, solve: SolveConfig) -> AbstractSequenceModel:
        return TransformerModel(config, **solve.solve_settings().arguments())

    def read(self, model: AbstractSequenceModel, x: Tensor, memory: Memory | None, *, penalty: bool) -> ReadSegment:
        assert isinstance(model, EquilibriumSequenceModel)
        found = model.solved(x, memory)
        figures = {
            "evaluations": float(found.solution.evaluations.cell),
            "converged": float(found.solution.converged.float().mean()),
        }
        return ReadSegment(found.state, found.memory, found.penalty().mean() if penalty else None, figures)


@dataclass(frozen=True)
class Trellis(Equilibrium):
    """The fixed point of one trellis layer: gated causal convolution in the place of attention.

    Of the sizes it takes width, dropout, weight_norm, cutoffs, divisor and memory, of which one token is all it hears;
    heads and inner are those of the transformer that it is as large as.

    Args:
        hidden: units; none, as many as make the number of parameters equal to that of the transformer's equilibrium
    """

    hidden: int | None = None

    def __post_init__(self) -> None:
        if self.hidden is not None:
            whole("depth.options.hidden", self.hidden, 1, 1_000_000)

    def build(self, config: TransformerConfig, solve: SolveConfig) -> AbstractSequenceModel:
        for name in OTHERS if self.hidden is None else (*OTHERS, "heads", "inner"):
            if getattr(config, name) != getattr(TransformerConfig, name):
                came, remedy = describe(getattr(config, name)), "A trellis has no attention and no feed-forward layer."
                fail(f"model.{name}", "the default where depth is Trellis", came, remedy, ConfigError)
        names = ("vocabulary", "width", "memory", "dropout", "weight_norm", "cutoffs", "divisor")
        own = TrellisConfig(**{name: getattr(config, name) for name in names})
        options = solve.solve_settings().arguments()
        if self.hidden is None:
            with torch.device("meta"):
                twin = TransformerModel(config)
            return TrellisModel.of_size(own, twin, **options)
        return TrellisModel(replace(own, hidden=self.hidden), **options)


OTHERS = ("norm", "attention", "activation", "span", "drive", "injection")


@dataclass(frozen=True)
class WeightTied(AbstractDepth):
    """The same layer applied so many times, from zero.

    Args:
        layers: how many times
        sparsity: share of the matrices that is masked away, by a mask of its own in each layer
        mask_seed: of the masks
    """

    layers: int = 4
    sparsity: float = 0.0
    mask_seed: int = 0

    def __post_init__(self) -> None:
        whole("depth.options.layers", self.layers, 1, 1000)
        check_number("depth.options.sparsity", self.sparsity, 0.0, 0.99)
        check_integer("depth.options.mask_seed", self.mask_seed, 0)

    def build(self, config: TransformerConfig, solve: SolveConfig) -> AbstractSequenceModel:
        return TransformerModel(config, **solve.solve_settings().arguments())

    def read(self, model: AbstractSequenceModel, x: Tensor, memory: Memory | None, *, penalty: bool) -> ReadSegment:
        assert isinstance(model, TransformerModel)
        masks = None
        if self.sparsity > 0:
            source = generator(self.mask_seed, "masks")
            masks = sparse_masks(model.cell, self.layers, self.sparsity, generator=source)
        return ReadSegment(*model.unrolled(x, memory, layers=self.layers, masks=masks))


@dataclass(frozen=True)
class Explicit(AbstractDepth):
    """Layers with weights of their own, as wide as makes the number of parameters equal to the equilibrium's.

    Args:
        layers: how many
    """

    layers: int = 3

    def __post_init__(self) -> None:
        whole("depth.options.layers", self.layers, 1, 1000)

    def build(self, config: TransformerConfig, solve: SolveConfig) -> AbstractSequenceModel:
        return ExplicitTransformer.of_equal_size(config, self.layers)
