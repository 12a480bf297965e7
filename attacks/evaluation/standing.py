"""One batch under attack: which of its samples still stand, and the worst that was done to each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from jiio.layout import map_tree

from ..base import AttackResult
from ..target import Prediction
from ..threat import ThreatModel
from .records import BROKEN, ROBUST, UNCONVERGED, WRONG

TOLD = ("label", "converged", "steps", "residual")  # what is told of the prediction for the worst image


@dataclass
class Standing:
    """x: (B, ...) images. y: (B,) labels. clean: the prediction for x. levels: how many radii there are, by ascending
    size; a *level* is the place of one among them. main: the level of the threat's own radius.

    fell: (B,) the level at which a sample was broken, -1 where it was wrong from the start, ``levels`` where it stands.
    by: (B,) the place of the attack that broke it, else -1. settled: (B,) all equilibria up to the main level were
    reached. worst: (B, ...) the strongest image up to the main level, with its margin (B,) and what ``TOLD`` names of
    its prediction.
    """

    x: Tensor
    y: Tensor
    clean: Prediction
    levels: int
    main: int
    wrong: Tensor = field(init=False)
    fell: Tensor = field(init=False)
    by: Tensor = field(init=False)
    settled: Tensor = field(init=False)
    worst: Tensor = field(init=False)
    margin: Tensor = field(init=False)
    told: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        # The books of a batch on which nothing has been tried.
        self.wrong = self.clean.label != self.y
        self.fell = torch.where(self.wrong, -1, self.levels).to(torch.int64)
        self.by = torch.full_like(self.fell, -1)
        self.settled = self.clean.converged.clone()

        # The worst image of a sample is the image itself until an attack does better, however little.
        self.worst = self.x.clone()
        self.margin = torch.full((len(self.x),), float("-inf"), dtype=self.x.dtype, device=self.x.device)
        self.told = {name: getattr(self.clean, name).clone() for name in TOLD}

    def left(self, level: int) -> Tensor:
        """The indices of the samples that nothing has broken up to this level."""
        return torch.nonzero(self.fell > level)[:, 0]

    def clean_part(self, left: Tensor) -> Prediction:
        """The prediction for these samples untouched."""
        parts: list[Any] = [None if part is None else map_tree(lambda leaf: leaf[left], part) for part in self.clean]
        return Prediction(*parts)

    def offer(self, result: AttackResult, left: Tensor, level: int, place: int) -> None:
        """Enter what the attack at ``place`` did at ``level`` to the samples ``left``."""
        hit = left[result.success]
        self.fell[hit], self.by[hit] = level, place
        if level > self.main:  # a larger radius says where a sample falls, not what the threat can do to it
            return

        stronger = result.success | (result.margin > self.margin[left])
        at = left[stronger]
        self.worst[at] = result.x[stronger].to(self.worst.dtype)
        self.margin[at] = result.margin[stronger].to(self.margin.dtype)
        for name, value in self.told.items():
            value[at] = getattr(result.prediction, name)[stronger].to(value.dtype)

        # Whatever was found on the way: where an equilibrium was missed, resistance has not been shown.
        self.settled[left] &= result.settled

    def status(self) -> Tensor:
        """(B,) how each sample ended at the main level."""
        broken = (self.fell <= self.main) & ~self.wrong
        status = torch.full_like(self.fell, ROBUST)
        status[~self.settled & ~broken & ~self.wrong] = UNCONVERGED
        status[broken], status[self.wrong] = BROKEN, WRONG
        return status

    def tensors(self, threat: ThreatModel) -> dict[str, Tensor]:
        """All that is kept of the batch, each (B, ...)."""
        clean: dict[str, Any] = {f"clean_{name}": getattr(self.clean, name) for name in TOLD}
        return {
            "y": self.y,
            "worst": self.worst,
            "status": self.status(),
            "fell": self.fell,
            "by": self.by,
            "margin": self.margin,
            "distance": threat.distance(self.worst, self.x),
            **clean,
            **self.told,
        }
