"""Redundancy reduction: features of two augmentations of an image that agree, and each of which says something else.

Zbontar, Jing, Misra, LeCun and Deny, "Barlow Twins" (2021); Tsai, Bai, Morency and Salakhutdinov, "A note on connecting
Barlow Twins with negative-sample-free contrastive learning" (2021), for the reading as HSIC. With C the correlation,
over a batch, of every feature of one view with every feature of the other,

    barlow:  sum_i (1 - C_ii)^2 + off sum_(i != j) C_ij^2
    hsic:    sum_i (1 - C_ii)^2 + off sum_(i != j) (1 + C_ij)^2

No label is needed, so it can train features alone; as a part of ``defence`` it is a term beside the cross-entropy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jiio.checks import check_choice, check_integer, check_number, fail
from jiio.draws import normal_like
from jiio.layout import Tree, leaves
from jiio.tasks.images.batches import augment
from jiio.tasks.images.config import DataConfig

from .defences import AbstractDefence, Answers, Batch

TARGETS = {"barlow": 0.0, "hsic": -1.0}  # of the correlation of two different features
FLAT = 1e-6  # a variance below it is none: such a feature says nothing, and correlates with nothing


def redundancy(first: Tensor, second: Tensor, *, off: float = 0.02, kind: str = "barlow") -> Tensor:
    """The loss of features (B, d) of two views of the same images, a scalar over d. Samples meet in it.

    off: weight of the pairs of different features. kind: "barlow" or "hsic".
    """
    check_number("off", off, 0.0)
    target = TARGETS[check_choice("kind", kind, TARGETS)]
    if first.dim() != 2 or first.shape != second.shape or len(first) < 2:
        fail("first, second", "two tensors of features (B, d) of two images or more", [first, second])

    a, b = (_standardised(v) for v in (first, second))
    correlation = a.T @ b / len(a)  # (d, d)
    own = correlation.diagonal()
    others = (correlation - target).square().sum() - (own - target).square().sum()
    return ((1.0 - own).square().sum() + off * others) / len(own)


def _standardised(v: Tensor) -> Tensor:
    """(B, d) with mean zero and variance one over the batch."""
    v = v - v.mean(0)
    return v / (v.square().mean(0) + FLAT).sqrt()


def features(z: Tree) -> Tensor:
    """(B, d) of a state: vectors as they are, feature maps by their means."""
    return torch.cat([leaf if leaf.dim() == 2 else leaf.flatten(2).mean(2) for leaf in leaves(z)], dim=1)


@dataclass(frozen=True)
class RedundancyReduction(AbstractDefence):
    """``weight`` times :func:`redundancy` of the equilibria of two augmentations of the clean images.

    off, kind: of the loss. shift: of an augmentation, in pixels. noise: standard deviation of what is added to pixels.
    """

    needs_equilibrium = True

    weight: float = 0.1
    off: float = 0.02
    kind: str = "barlow"
    shift: int = 1
    noise: float = 0.1

    def __post_init__(self) -> None:
        check_number("RedundancyReduction.weight", self.weight, 0.0, open_low=True)
        check_number("RedundancyReduction.off", self.off, 0.0)
        check_choice("RedundancyReduction.kind", self.kind, TARGETS)
        check_integer("RedundancyReduction.shift", self.shift, 0)
        check_number("RedundancyReduction.noise", self.noise, 0.0)
        if not self.shift and not self.noise:
            remedy = "Two views that are the same image teach nothing."
            fail("RedundancyReduction", "a shift or noise above zero", "neither", remedy)

    def view(self, x: Tensor, source: torch.Generator) -> Tensor:
        """One augmentation of images (B, C, H, W)."""
        moved = augment(x.cpu(), DataConfig(shift=self.shift), generator=source)
        noisy = moved + self.noise * normal_like(moved, source)
        return noisy.clamp(0.0, 1.0).to(x)

    def term(self, batch: Batch, answers: Answers) -> Tensor:
        model, source, seen = batch.target.equilibrium, batch.draws("views"), []
        for _ in range(2):
            solution = model.solve(batch.target.normalised(self.view(batch.x, source)))
            batch.target.counts.record(solution.evaluations)
            seen.append(features(solution.z))
        return self.weight * redundancy(*seen, off=self.off, kind=self.kind)
