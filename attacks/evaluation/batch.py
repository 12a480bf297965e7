"""All attacks at all radii on one batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from jiio.outputs import seeds

from ..base import AttackResult
from .certificates import certify
from .records import Entry
from .standing import Standing
from .terms import Terms


def attacked(terms: Terms, x: Tensor, y: Tensor, number: int) -> Entry:
    """What is kept of the batch with this number, x (B, ...), y (B,)."""
    target, threat = terms.target, terms.threat
    with target.held():
        clean = target.predict(x)
        target.check_labels(clean.logits, y)
        certificate = certify(target, x, y, threat)

    standing = Standing(x, y, clean, len(terms.factors), terms.main)
    tally = _run(terms, standing, number)

    tensors = standing.tensors(threat)
    # A certificate speaks of the same balls: what an attack breaks inside it disproves one of the two.
    if certificate is not None:
        tensors |= {"certified_radius": certificate.radius, "certified": certificate.certified}
    return Entry({name: value.detach().cpu() for name, value in tensors.items()}, {"tally": tally})


def _run(terms: Terms, standing: Standing, number: int) -> dict[str, dict[str, Any]]:
    """Every attack at every radius, on what is left each time. Returns per attack what it did at the threat's own."""
    tally: dict[str, dict[str, Any]] = {a.name: {"tried": 0, "broken": 0, "cost": {}} for a in terms.attacks}

    for level, factor in enumerate(terms.factors):
        scaled = terms.threat if level == terms.main else terms.threat.scaled(factor)
        for place, attack in enumerate(terms.attacks):
            left = standing.left(level)
            if not len(left):
                break

            # A generator of its own: what an attack draws depends neither on other attacks nor on other batches.
            draws = seeds.generator(terms.seed, "attack", number, factor, place)
            x, y, clean = standing.x[left], standing.y[left], standing.clean_part(left)
            one, part = attack.until_broken(), scaled.select(left)
            result = one(terms.target, x, y, part, generator=draws, clean=clean)

            standing.offer(result, left, level, place)
            if level == terms.main:
                _count(tally[attack.name], result)
    return tally


def _count(line: dict[str, Any], result: AttackResult) -> None:
    line["tried"] += len(result.success)
    line["broken"] += int(result.success.sum())
    line["cost"] = result.cost
