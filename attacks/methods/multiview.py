"""Attacks on several views of one thing: TSA, which knows single-view models alone, and ETEA on one view at a time.

Sun and Sun ("Multi-view adversarial attacks") attack a multi-view model in two ways: the two-stage attack (TSA) knows
the single-view models only, attacks each on its own view and hands the attacked views to the multi-view model; the
end-to-end attack (ETEA) differentiates the multi-view model itself. Here ETEA is any attack of this package under a
:class:`jiio.attacks.MultiViewThreat`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from jiio.checks import ArgumentTypeError, check_instance, fail

from ..base import AbstractAttack
from ..runs import Best
from ..target import Target
from ..threat import ThreatModel
from ..views import MultiViewThreat


@dataclass(frozen=True)
class TwoStageAttack(AbstractAttack):
    """TSA: ``attack`` on each single-view model alone, the attacked views put together, handed to the multi-view model.

    models: one classifier per view, x_v (B, size) -> scores. The multi-view model is never differentiated.
    """

    models: tuple[nn.Module, ...]
    attack: AbstractAttack

    def __post_init__(self) -> None:
        if not isinstance(self.models, (tuple, list)) or not self.models:
            fail("TwoStageAttack.models", "one model per view", self.models, error=ArgumentTypeError)
        for model in self.models:
            check_instance("TwoStageAttack.models", model, nn.Module)
        check_instance("TwoStageAttack.attack", self.attack, AbstractAttack)

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        flat = x.flatten(1)
        parts = threat.parts(flat.shape[1])
        if len(parts) != len(self.models):
            fail("TwoStageAttack.models", f"one model for each of {len(parts)} views", f"{len(self.models)} models")
        low, high = (bound.expand_as(x).flatten(1) for bound in threat.box(x))
        found = flat.clone()

        # Each view is attacked as if it were all there is; nobody has seen the multi-view model.
        for single, (part, radius) in zip(self.models, parts, strict=True):
            if isinstance(radius, float) and radius == 0.0:
                continue
            one = ThreatModel(threat.norm, radius, (low[0, part], high[0, part]))
            other = Target.of(single)
            result = self.attack(other, flat[:, part].contiguous(), y, one, generator=generator)
            model.counts.add(result.cost)
            found[:, part] = result.x

        return found.view_as(x)


@dataclass(frozen=True)
class SingleViewAttack(AbstractAttack):
    """ETEA on one view at a time: ``attack`` under the threat to that view alone, the worst view per sample."""

    attack: AbstractAttack

    def __post_init__(self) -> None:
        check_instance("SingleViewAttack.attack", self.attack, AbstractAttack)
        object.__setattr__(self, "gradient_free", self.attack.gradient_free)

    def until_broken(self) -> SingleViewAttack:
        return replace(self, attack=self.attack.until_broken())

    def fits(self, model: Target, x: Tensor, threat: ThreatModel) -> None:
        if not isinstance(threat, MultiViewThreat):
            remedy = "Say which numbers belong to which view."
            fail("threat", "a MultiViewThreat", type(threat).__name__, remedy, ArgumentTypeError)

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        assert isinstance(threat, MultiViewThreat)
        best = Best.empty(x)
        for view, radius in enumerate(threat.radii):
            if radius > 0.0:
                result = self.attack(model, x, y, threat.only(view), generator=generator)
                best.offer(result.x, result.prediction.logits, y)
        return best.x
