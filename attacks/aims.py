"""What an attack is for, and so when it is through with a sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from .objectives import margin


@dataclass(frozen=True)
class AbstractAim(ABC):
    """Asked after every point that an attack looks at; who is through leaves the batch and costs nothing more."""

    @abstractmethod
    def reached(self, logits: Tensor, y: Tensor) -> Tensor:
        """(B,) which of the samples with these logits (B, classes) and labels y (B,) the attack is through with."""


@dataclass(frozen=True)
class Strongest(AbstractAim):
    """The largest margin that can be found: every run goes on to its end."""

    def reached(self, logits: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(y, dtype=torch.bool)


@dataclass(frozen=True)
class Success(AbstractAim):
    """A misclassified image, whatever its margin.

    The margin has to be clear of rounding: the scores of a sample differ in their last digits from batch to batch, and
    the verdict is given in another one.
    """

    def reached(self, logits: Tensor, y: Tensor) -> Tensor:
        rounding = 64 * torch.finfo(logits.dtype).eps * logits.abs().amax(1)
        return margin(logits, y) > rounding
