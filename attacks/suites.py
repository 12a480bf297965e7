"""Lists of attacks that make an evaluation, and what a model and a threat leave of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jiio.checks import check_choice, fail

from .base import AbstractAttack
from .methods.apgd import APGD
from .methods.ensemble import AdjointEnsemble
from .methods.equilibrium import IntermediateAttack, SimultaneousAttack
from .methods.gradient import PGD
from .methods.joint import JointAttack
from .methods.search import Square
from .methods.tools import AutoAttack
from .objectives import DLR, Margin, TargetedMargin
from .target import Target
from .threat import ThreatModel


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
    """For equilibrium models: the joint attack, attacks through intermediate states and several adjoints, then those of
    :func:`standard` at their price for an equilibrium. While they search, every solve starts where the last one ended
    and stops early; what it breaks has to be broken from a fresh start, solved to the model's own tolerance.
    """
    near: dict[str, Any] = {"warm": True, "tolerance": 3e-2}
    return [
        JointAttack(objective=TargetedMargin(), targets=9),
        IntermediateAttack(),
        IntermediateAttack(objective=Margin(), damping=1.0),
        SimultaneousAttack(),
        AdjointEnsemble(objective=DLR()),
        PGD(steps=50, **near),
        APGD(steps=100, **near),
        APGD(steps=100, objective=TargetedMargin(), targets=9, **near),
        Square(queries=1000),
    ]


SUITES: dict[str, Callable[[], list[AbstractAttack]]] = {"standard": standard, "autoattack": autoattack, "deq": deq}


def suite(name: str, target: Target, argument: str = "attacks") -> list[AbstractAttack]:
    """The suite of this name, where the model is of the kind that it is for. argument: its name in sentences."""
    found = SUITES[check_choice(argument, name, SUITES)]()
    if not target.implicit and any(one.needs_equilibrium for one in found):
        remedy = "Take standard or autoattack, or make it one by EquilibriumModel.of(inject, cell, head)."
        fail(argument, f"an equilibrium model for {name}", f"a {type(target.model).__name__}", remedy)
    return found


def fitted(
    attacks: Sequence[AbstractAttack], target: Target, threat: ThreatModel, classes: int
) -> tuple[list[AbstractAttack], list[str]]:
    """The attacks of a suite that this threat allows, and the names of those that were left out.

    An objective that needs more classes than there are becomes the margin.
    """
    kept: list[AbstractAttack] = []
    lost: list[str] = []
    for one in attacks:
        if threat.norm not in one.norms:
            lost.append(one.name)
            continue

        # Two attacks may have become the same by now, as with two classes there is only one other.
        one = with_enough(one, classes)
        if all(one.name != other.name for other in kept):
            kept.append(one)
    return kept, lost


def with_enough(one: AbstractAttack, classes: int) -> AbstractAttack:
    """The attack with an objective that there are enough classes for."""
    objective = getattr(one, "objective", None)
    if objective is None or objective.least_classes <= classes:
        return one
    return dataclasses.replace(one, objective=Margin())  # type: ignore[type-var]
