"""A classifier that may say nothing: what it refuses, and what is right of the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jiio.attacks import Target
from jiio.checks import check_choice, check_finite, check_instance, check_number, fail

CHUNK = 250  # images asked about at a time
REFUSED = -1  # in the place of a label


def softmax(scores: Tensor) -> Tensor:
    """(B,) the largest probability of a class, from scores (B, classes)."""
    return scores.softmax(1).amax(1)


def evidence(scores: Tensor) -> Tensor:
    """(B,) log-sum-exp of scores (B, classes): log p(features) of a :class:`.density.HybridHead`, and minus the energy
    (Liu, Wang, Owens, Li 2020) of any other.
    """
    return scores.logsumexp(1)


SURE: Mapping[str, Callable[[Tensor], Tensor]] = {"evidence": evidence, "softmax": softmax}  # larger: more familiar


def scores_of(model: nn.Module, images: Tensor) -> Tensor:
    """(B, classes) what a classifier says of images (B, C, H, W).

    Errors: ArgumentError or ArgumentTypeError for what are no images.
    """
    target = Target.of(model)
    if not isinstance(images, Tensor) or images.dim() != 4 or not len(images) or not images.is_floating_point():
        fail("images", "floating-point images (B, C, H, W)", images)
    check_finite("images", images)
    with target.held(), torch.no_grad():
        return torch.cat([target.forward(part)[0] for part in images.split(CHUNK)])


@dataclass(frozen=True, eq=False)
class Rejection:
    """A classifier, and what it has to be sure of to say a label: ``by`` (of :data:`SURE`) at least ``threshold``."""

    model: nn.Module
    threshold: float
    by: str = "evidence"

    def __post_init__(self) -> None:
        check_instance("Rejection.model", self.model, nn.Module)
        check_number("Rejection.threshold", self.threshold)
        check_choice("Rejection.by", self.by, SURE)

    @classmethod
    def keeping(cls, model: nn.Module, familiar: Tensor, share: float = 0.95, *, by: str = "evidence") -> Rejection:
        """The one that answers a share of familiar images (B, C, H, W), best of some that it was not trained on."""
        check_number("share", share, 0.0, 1.0, open_low=True)
        check_choice("by", by, SURE)
        told = SURE[by](check_finite("scores", scores_of(model, familiar))).sort(descending=True).values
        return cls(model, float(told[max(1, round(share * len(told))) - 1]), by)

    def labels(self, images: Tensor) -> Tensor:
        """(B,) the class of every image, -1 where it is refused."""
        scores = scores_of(self.model, images)
        # Not "below": where a solve broke down the score is NaN, and that is no answer.
        return torch.where(SURE[self.by](scores) >= self.threshold, scores.argmax(1), REFUSED)


def accuracy_at(sure: Tensor, right: Tensor, share: float) -> float:
    """The accuracy on the share of the images that is surest. sure: (B,). right: (B,) bool.

    Errors: ArgumentError where the two do not fit, or the share leaves no image.
    """
    check_number("share", share, 0.0, 1.0, open_low=True)
    if sure.dim() != 1 or sure.shape != right.shape or not len(sure):
        fail("sure, right", "two tensors (B,) of the same images", [sure, right])
    kept = sure.argsort(descending=True, stable=True)[: max(1, round(share * len(sure)))]
    return float(right[kept].double().mean())
