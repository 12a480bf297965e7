"""PGD and Auto-PGD on all pixels of an image at once: their loss climbs, and what breaks most of them is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio.checks import check_instance, fail

from ..base import allowed
from ..climbing import W
from ..methods.apgd import APGD
from ..methods.gradient import PGD
from ..objectives import CrossEntropy, unusable
from ..runs import Best
from ..target import Slope
from ..threat import ThreatModel
from .target import DenseTarget, counted

UNUSED = ("targets", "warm", "tolerance", "inner_steps", "aim")  # settings of a climber that climbs over pixels lack


@dataclass(frozen=True)
class AbstractPixelObjective(ABC):
    """(scores (B, classes, H, W), masks (B, H, W), progress) -> (B,), larger is worse for the model."""

    @abstractmethod
    def weights(self, right: Tensor, progress: float) -> Tensor:
        """What each pixel counts, from whether it is right (B, H, W). progress: of the run, from 0 to 1."""

    def __call__(self, scores: Tensor, y: Tensor, progress: float) -> Tensor:
        there = counted(y)
        truth = torch.where(there, y.long(), 0)
        loss = F.cross_entropy(scores, truth, reduction="none")
        weight = self.weights(scores.detach().argmax(1) == truth, progress).to(loss) * there
        return (weight * loss).flatten(1).sum(1) / there.flatten(1).sum(1).clamp_min(1)


@dataclass(frozen=True)
class PixelCrossEntropy(AbstractPixelObjective):
    """The mean cross-entropy of all pixels."""

    def weights(self, right: Tensor, progress: float) -> Tensor:
        return torch.ones_like(right, dtype=torch.float32)


@dataclass(frozen=True)
class BalancedPixels(AbstractPixelObjective):
    """SegPGD (Gu, Zhao, Tresp and Torr, ECCV 2022): at first the pixels that are still right, at the end all alike.

    With lambda = progress / 2 a right pixel counts 1 - lambda, a wrong one lambda.
    """

    def weights(self, right: Tensor, progress: float) -> Tensor:
        share = 0.5 * progress
        return torch.where(right, 1.0 - share, share)


@dataclass(frozen=True)
class PixelAttack:
    """climber: PGD or APGD, of which steps, their sizes, momentum and restarts count. objective: what grows."""

    climber: PGD | APGD = field(default_factory=lambda: APGD(steps=50))
    objective: AbstractPixelObjective = field(default_factory=PixelCrossEntropy)

    def __post_init__(self) -> None:
        check_instance("PixelAttack.objective", self.objective, AbstractPixelObjective)
        if not isinstance(self.climber, (PGD, APGD)):
            fail("PixelAttack.climber", "PGD or APGD", self.climber)
        if not isinstance(self.climber.objective, CrossEntropy):
            remedy = "Set PixelAttack.objective."
            fail("PixelAttack.climber", "one without an objective of its own", self.climber.objective, remedy)
        plain = type(self.climber)()
        for name in UNUSED:
            value, default = getattr(self.climber, name), getattr(plain, name)
            if value != default:
                remedy = "It means nothing to a climb over pixels."
                fail(f"PixelAttack.climber.{name}", f"its default, {default}", value, remedy)

    @property
    def name(self) -> str:
        """In one word and its settings."""
        return f"{type(self.objective).__name__} by {self.climber.name}"

    def run(self, target: DenseTarget, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        """The image (B, C, H, W) in the ball, of all that were seen, in which the most pixels are wrong.

        target: the model. x: images (B, C, H, W). y: masks (B, H, W). threat: what is allowed. generator: of the
        starts.
        """
        best, nobody = Best.empty(x), torch.zeros(len(x), dtype=torch.int64, device=x.device)
        if self.climber.adjoint is not None:
            target = target.variant(adjoint=self.climber.adjoint)

        # Restarts see every image again: more of its pixels may fall.
        for number in range(self.climber.restarts):
            drawn = self.climber.random_start or number > 0
            start = threat.random_start(x, generator) if drawn else x
            ascent = PixelAscent(target, self.objective, y, self.climber.steps, Best.empty(x))
            found = self.climber.climb(ascent, start, x, threat)
            best.offer(found, ascent.scores(found), nobody)
        return allowed(best.x, x, threat)


@dataclass
class PixelAscent:
    """The objective of one run, in the words in which climbs ask: two scores per image stand for its pixels, whose
    margin is the share of the pixels that are wrong, less one. Nobody leaves: more pixels of every image may fall.
    """

    target: DenseTarget
    objective: AbstractPixelObjective
    y: Tensor
    steps: int
    best: Best
    asked: int = 0

    def slope(self, point: Tensor) -> Slope:
        """Objective, gradient and stand-in scores at ``point``."""
        progress, self.asked = min(self.asked / self.steps, 1.0), self.asked + 1
        found = self.target.slope(point, lambda scores: self.objective(scores, self.y, progress))
        return found._replace(logits=standing_in(found.logits, self.y))

    def keep(self, way: W) -> W:
        """Enter the points of this way, which goes on as it is."""
        self._enter(way.point, way.slope.logits)
        return way

    def look(self, point: Tensor) -> None:
        """Enter points without asking for a gradient."""
        self._enter(point, self.scores(point))

    @torch.no_grad()
    def scores(self, point: Tensor) -> Tensor:
        """The stand-in scores alone."""
        return standing_in(self.target.forward(point)[0], self.y)

    def _enter(self, point: Tensor, logits: Tensor) -> None:
        self.best.offer(point, logits, torch.zeros(len(point), dtype=torch.int64, device=point.device))


def wrong_pixels(scores: Tensor, y: Tensor) -> Tensor:
    """(B, H, W) whether a pixel has a class, and another one is told, or none."""
    return counted(y) & ((scores.argmax(1) != y) | unusable(scores))


def standing_in(scores: Tensor, y: Tensor) -> Tensor:
    """(B, 2), with a margin for class 0 of the share of wrong pixels less one."""
    there = counted(y).flatten(1).sum(1).clamp_min(1)
    share = wrong_pixels(scores, y).flatten(1).sum(1) / there
    return torch.stack([torch.zeros_like(share), share - 1.0], dim=1).to(scores.dtype)
