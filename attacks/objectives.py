"""What an attack makes large, one number per sample: cross-entropy, margin and DLR, and their targeted forms.

Every objective is a small object called with scores (B, classes) and labels (B,); a targeted one also wants the class
to be reached (B,). Larger is worse for the model, for all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio.checks import check_integer, fail


def unusable(logits: Tensor) -> Tensor:
    """(B,) whether a score is NaN or +infinite: such scores rank nothing. -infinity rules a class out, as it should,
    unless it rules out all.
    """
    wrong = torch.isnan(logits) | (logits == torch.inf)
    return wrong.any(1) | (logits == -torch.inf).all(1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """(B,) best wrong score minus the right one: above 0 the sample is misclassified; infinite where
    the scores are unusable (NaN, +infinite, or -infinite all).

    logits: scores (B, classes). y: the right classes (B,), int64.
    """
    right = logits.gather(1, y[:, None])[:, 0]
    wrong = logits.scatter(1, y[:, None], float("-inf")).amax(1)
    gap = wrong - right
    return torch.where(unusable(logits) | torch.isnan(gap), torch.full_like(gap, float("inf")), gap)


@dataclass(frozen=True)
class AbstractObjective(ABC):
    """(scores, y, target) -> (B,). ``least_classes``: how many scores it needs."""

    targeted = False
    least_classes = 2

    def rows(self, index: Tensor) -> AbstractObjective | None:
        """The objective of the samples ``index`` (k,): itself, where its fields are numbers and words."""
        plain = all(isinstance(value, (bool, int, float, str)) for value in vars(self).values())
        return self if plain else None

    @abstractmethod
    def value(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        """(B,), from logits (B, classes) and labels y (B,); ``target`` is y again for an objective without a target."""

    def __call__(self, logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        if logits.shape[1] < self.least_classes:
            remedy = "Use Margin() or CrossEntropy()."
            fail(type(self).__name__, f"at least {self.least_classes} classes", f"{logits.shape[1]}", remedy)
        if self.targeted and target is None:
            fail(type(self).__name__, "the classes to reach (B,)", "no target", "Pass target=...")
        return self.value(logits, y, y if target is None else target)


@dataclass(frozen=True)
class CrossEntropy(AbstractObjective):
    """-log softmax(scores)[y]."""

    def value(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, y, reduction="none")


@dataclass(frozen=True)
class Margin(AbstractObjective):
    """Best wrong score minus the right one (Carlini and Wagner 2017); its gradient does not fade with confidence."""

    def value(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        return margin(logits, y)


@dataclass(frozen=True)
class DLR(AbstractObjective):
    """Difference of logits ratio (Croce and Hein 2020): the margin over the gap between first and third score."""

    least_classes = 3

    def value(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        ordered = logits.sort(dim=1, descending=True).values
        return margin(logits, y) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


@dataclass(frozen=True)
class TargetedCrossEntropy(AbstractObjective):
    """log softmax(scores)[target]."""

    targeted = True

    def value(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        return -F.cross_entropy(logits, target, reduction="none")


@dataclass(frozen=True)
class TargetedMargin(AbstractObjective):
    """Score of the target minus the right score."""

    targeted = True

    def value(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]


@dataclass(frozen=True)
class TargetedDLR(AbstractObjective):
    """Targeted DLR (Croce and Hein 2020): that gap over first score minus the mean of third and fourth."""

    targeted = True
    least_classes = 4

    def value(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        ordered = logits.sort(dim=1, descending=True).values
        gap = (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]
        return gap / (ordered[:, 0] - 0.5 * (ordered[:, 2] + ordered[:, 3]) + 1e-12)


def likeliest_targets(logits: Tensor, y: Tensor, count: int) -> list[Tensor]:
    """The ``count`` best wrong classes, best first, each (B,); fewer where there are fewer classes."""
    check_integer("targets", count, 1)
    wrong = logits.detach().scatter(1, y[:, None], float("-inf"))
    found = wrong.topk(min(count, logits.shape[1] - 1), dim=1).indices
    return list(torch.unbind(found, dim=1))
