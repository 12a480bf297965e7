"""The configuration of the task ``language``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from jiio.checks import JiioError, check_number, fail
from jiio.models.sequences.transformer import TransformerConfig
from jiio.tasks.frame.choices import Choice, lists_choices
from jiio.tasks.frame.config import RunConfig, WarmConfig, whole
from jiio.tasks.frame.load import ConfigError

from .adversaries import AbstractAdversary
from .depths import Equilibrium, SolveConfig
from .text import TextConfig


@dataclass(frozen=True)
class SizeConfig:
    """Sizes of the transformer; the vocabulary comes from the text.

    Args:
        width: of a state
        heads: of the attention
        inner: width of the feed-forward layer
        memory: tokens before the segment that are remembered
        norm: post or pre
        attention: relative, rbf or exponential
        activation: of the feed-forward layer
        span: tokens that one token sees at most
        dropout: variational, one mask per solve
        weight_norm: of the matrices of the cell
        cutoffs: of the adaptive softmax; none means a plain one
        divisor: by which each cluster of the adaptive softmax is narrower than the one before
        drive: how much the input counts against the state at the start
        injection: where embeddings enter, stream, or, as published, attention alone
    """

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
        for name in ("width", "heads", "inner", "memory"):
            whole(f"model.{name}", getattr(self, name), 0, 1_000_000)
        self.plan(max((*self.cutoffs, 1)) + 1)

    def plan(self, vocabulary: int) -> TransformerConfig:
        """The configuration of the model for so many tokens."""
        try:
            return TransformerConfig(vocabulary=vocabulary, **dataclasses.asdict(self))
        except JiioError as error:
            raise ConfigError(f"model.{error}") from error


@dataclass(frozen=True)
class JacobianConfig:
    """The Jacobian penalty of Bai, Koltun and Kolter (2021), which keeps an equilibrium easy to find.

    Args:
        weight: in the training loss
        share: of the steps in which it is taken
    """

    weight: float = 0.5
    share: float = 0.3

    def __post_init__(self) -> None:
        check_number("jacobian.weight", self.weight, 0.0)
        check_number("jacobian.share", self.share, 0.0, 1.0)


@lists_choices
@dataclass(frozen=True)
class LanguageConfig(RunConfig):
    """A training of a language model. Weights that it begins with (``start``) bring their vocabulary along.

    Args:
        data: texts
        model: sizes of the transformer
        depth: what stands between a token and the prediction of the next, one of {depth}
        adversary: what perturbs the embeddings that are trained on, any of {adversary}; none means the embeddings as
            they are
        solve: how the equilibrium is found and differentiated
        jacobian: the Jacobian penalty
        warm: the beginning with a few layers
    """

    task: str = "language"
    output: str = "runs/language"
    data: TextConfig = field(default_factory=TextConfig)
    model: SizeConfig = field(default_factory=SizeConfig)
    depth: Choice = Choice("Equilibrium")
    adversary: tuple[Choice, ...] = ()
    solve: SolveConfig = field(default_factory=SolveConfig)
    jacobian: JacobianConfig = field(default_factory=JacobianConfig)
    warm: WarmConfig = field(default_factory=WarmConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        depth = self.depth.make("depth", "depth")
        if not isinstance(depth, Equilibrium) and self.warm.steps:
            fail("warm.steps", "0 where depth is not Equilibrium", self.warm.steps, error=ConfigError)
        for choice, adversary in zip(self.adversary, self.adversaries(), strict=True):
            if adversary.needs_equilibrium and not isinstance(depth, Equilibrium):
                remedy = f"{choice.name} needs the equilibrium."
                fail("adversary", "none where depth is not Equilibrium", choice.name, remedy, ConfigError)

    def adversaries(self) -> list[AbstractAdversary]:
        """The objects that ``adversary`` names."""
        return [choice.make("adversary", f"adversary[{i}]") for i, choice in enumerate(self.adversary)]
