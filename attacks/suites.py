"""Lists of attacks that make an evaluation."""

from __future__ import annotations

from collections.abc import Callable

from .base import AbstractAttack
from .methods.equilibrium import AdjointEnsemble, IntermediateAttack, SimultaneousAttack
from .methods.gradient import APGD, PGD
from .methods.joint import JointAttack
from .methods.search import Square
from .methods.tools import AutoAttack
from .objectives import DLR, Margin, TargetedMargin


def standard() -> list[AbstractAttack]:
    """A strong evaluation of any classifier with what is in this package."""
    return [
        PGD(steps=50),
        APGD(steps=100),
        APGD(steps=100, objective=TargetedMargin(), targets=9),
        Square(queries=1000),
    ]


def autoattack() -> list[AbstractAttack]:
    """The original AutoAttack alone, for figures that compare with published ones."""
    return [AutoAttack()]


def deq() -> list[AbstractAttack]:
    """For equilibrium models: the joint attack, attacks through intermediate states and several adjoints, then the
    standard ones.
    """
    return [
        JointAttack(objective=TargetedMargin(), targets=9),
        IntermediateAttack(),
        IntermediateAttack(objective=Margin(), damping=1.0),
        SimultaneousAttack(),
        AdjointEnsemble(objective=DLR()),
        *standard(),
    ]


SUITES: dict[str, Callable[[], list[AbstractAttack]]] = {"standard": standard, "autoattack": autoattack, "deq": deq}
