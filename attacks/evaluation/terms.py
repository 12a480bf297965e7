"""The terms of an evaluation: all that decides its figures, apart from the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jiio
from jiio.checks import ArgumentTypeError, check_instance, check_number, fail
from jiio.outputs.digest import of_model

from ..base import AbstractAttack
from ..target import Target
from ..threat import ThreatModel


@dataclass(frozen=True)
class Terms:
    """What is the same for every batch. attacks: in the order in which they run. factors: ascending multiples of the
    radius, 1 among them. seed: of everything random.
    """

    target: Target
    threat: ThreatModel
    attacks: tuple[AbstractAttack, ...]
    factors: tuple[float, ...]
    seed: int

    @property
    def main(self) -> int:
        """The place of the threat's own radius among the factors."""
        return self.factors.index(1.0)

    def plain(self) -> dict[str, Any]:
        """As JSON knows it; two evaluations with equal terms of equal images are the same evaluation."""
        return {
            "model": of_model(self.target.model),
            "solver": {name: repr(value) for name, value in self.target.options.items()},
            "threat": self.threat.describe(),
            "attacks": [attack.name for attack in self.attacks],
            "curve": list(self.factors),
            "seed": self.seed,
            "version": jiio.__version__,
        }


def check_factors(curve: Sequence[float]) -> tuple[float, ...]:
    """The multiples of the radius in ascending order, 1 among them."""
    return tuple(sorted({1.0, *(check_number("curve", f, 0.0, open_low=True) for f in curve)}))


def check_attacks(attacks: Any) -> tuple[AbstractAttack, ...]:
    """The attacks in the order in which they run: gradient-free ones last."""
    if isinstance(attacks, AbstractAttack) or not isinstance(attacks, Sequence):
        fail("attacks", "a list of attacks", attacks, "Put it into a list: [PGD()].", ArgumentTypeError)
    if not attacks:
        fail("attacks", "at least one attack", "an empty list", "For example [PGD(), Square()].")
    for attack in attacks:
        check_instance("attacks", attack, AbstractAttack)

    # The books are kept by name: two attacks of one name would share a line.
    names = [attack.name for attack in attacks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        fail("attacks", "attacks that differ", f"{twice[0]} twice", "Change a setting of one of them, or drop it.")
    return tuple(sorted(attacks, key=lambda attack: attack.gradient_free))
