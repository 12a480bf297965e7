"""An attack on another model, its finds handed to the one that is evaluated.

Against a defence whose own gradient may mislead: the undefended twin (the transfer attack by which many defences were
published), a smoothed twin, a plain network trained on the same data. What is found counts only where the evaluated
model falls for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jiio.checks import check_instance, fail

from ..base import AbstractAttack
from ..runs import Best
from ..target import Target
from ..threat import ThreatModel


@dataclass(frozen=True)
class SurrogateAttack(AbstractAttack):
    """``attack`` on ``surrogate``, a classifier of the same inputs. label: a word for the report, as two surrogates of
    one class look alike.
    """

    surrogate: nn.Module
    attack: AbstractAttack
    label: str = ""

    def __post_init__(self) -> None:
        check_instance("SurrogateAttack.surrogate", self.surrogate, nn.Module)
        check_instance("SurrogateAttack.attack", self.attack, AbstractAttack)
        if not isinstance(self.label, str):
            fail("SurrogateAttack.label", "a word", self.label)

    def fits(self, model: Target, x: Tensor, threat: ThreatModel) -> None:
        self.attack.fits(self._twin(model), x, threat)

    def _twin(self, model: Target) -> Target:
        """The surrogate under the normalisation of the model."""
        return Target(self.surrogate, mean=model.mean, std=model.std)

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        other = self._twin(model)
        with other.held():
            found = self.attack.run(other, x, y, threat, generator)
        model.counts.add(other.counts.plain())
        best = Best.empty(x)
        for point in (x, threat.project(found, x)):
            best.offer(point, model.predict(point).logits, y)
        return best.x
