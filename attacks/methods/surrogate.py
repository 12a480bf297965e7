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

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        other = Target(self.surrogate, mean=model.mean, std=model.std)
        with other.held():
            found = self.attack.run(other, x, y, threat, generator)
        model.counts.solves.extend(other.counts.solves)
        model.counts.forward += other.counts.forward
        model.counts.backward += other.counts.backward
        best = Best.empty(x)
        for point in (x, threat.project(found, x)):
            best.offer(point, model.predict(point).logits, y)
        return best.x
