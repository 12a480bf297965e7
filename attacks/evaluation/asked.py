"""What an evaluation was asked for, in the words of the caller, as objects that fit each other; said before it runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jiio.checks import ArgumentTypeError, CellError, JiioError, check_instance, fail

from ..base import AbstractAttack
from ..suites import fitted, suite
from ..target import Target
from ..threat import ThreatModel
from .terms import check_attacks

Suite = str | Sequence[AbstractAttack]
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Asked:
    """threat: what the adversary may do. attacks: in the order in which they run. called: the suite, in words."""

    threat: ThreatModel
    attacks: tuple[AbstractAttack, ...]
    called: str


def the_threat(threat: ThreatModel | str, radius: Any, attacks: Suite | None, bounds: Any) -> tuple[ThreatModel, Suite]:
    """The threat and the attacks; after a :class:`ThreatModel`, which has a radius, attacks stand in its place."""
    if isinstance(threat, str):
        remedy = "For example evaluate(model, loader, 'linf', 8 / 255)."
        if radius is None:
            fail("radius", f"a radius for the norm {threat!r}", "none", remedy)
        return ThreatModel(
            threat, radius, (0.0, 1.0) if bounds is None else bounds
        ), "standard" if attacks is None else attacks

    check_instance("threat", threat, ThreatModel, "Or name a norm and a radius: 'linf', 8 / 255.")
    if bounds is not None:
        fail("bounds", "none beside a ThreatModel, which has them", bounds)
    if radius is not None and attacks is not None:
        fail("radius", "none beside a ThreatModel, which has one", radius)
    chosen = radius if attacks is None else attacks
    return threat, "standard" if chosen is None else chosen


def asked(target: Target, threat: ThreatModel, attacks: Suite, first: Pair) -> Asked:
    """The attacks, each of them fit for this model and threat. first: a batch, from which the classes are known.

    A suite is fitted to them; of a list that somebody wrote every entry has to fit as it is.
    """
    named = isinstance(attacks, str)
    listed = suite(attacks, target) if isinstance(attacks, str) else attacks
    ordered = check_attacks(listed)
    called = attacks if isinstance(attacks, str) else ", ".join(one.name for one in ordered)

    if named:
        check_answers(target, first)
        kept, lost = fitted(ordered, target, threat, classes(target, first))
        without = f" without {', '.join(lost)}, which knows no {threat.norm}" if lost else ""
        return Asked(threat, check_attacks(kept), f"{called}{without}")
    for one in ordered:
        one.fits(target, first[0], threat)
    check_answers(target, first)
    return Asked(threat, ordered, called)


def classes(target: Target, first: Pair) -> int:
    """How many scores the model gives."""
    with target.held():
        return target.predict(first[0][:1]).logits.shape[1]


def check_answers(target: Target, first: Pair) -> None:
    """Raise, in a sentence, where the model has no answer for a part of a batch: attacks ask for those."""
    x = first[0][:1]
    try:
        with target.held():
            target.predict(x)
    except JiioError:
        raise
    except Exception as error:  # whatever a stranger's model says
        weight = next((p.dtype for p in target.model.parameters() if p.is_floating_point()), x.dtype)
        remedy = "Attacks ask for the images that are left, in batches of any size."
        if weight != x.dtype:
            remedy = f"Its weights are {weight}: take model.to({x.dtype}), or images of that type."
        told = str(error).splitlines()[0][:150] if str(error) else ""
        came = f"{type(error).__name__}: {told}"
        fail("model", f"scores for images of shape {tuple(x.shape)}, {x.dtype}", came, remedy, CellError)


def place(target: Target) -> torch.device | None:
    """Where the model is; None where it has neither parameters nor buffers, and so works anywhere."""
    parts = itertools.chain(target.model.parameters(), target.model.buffers())
    return next((part.device for part in parts), None)


def pairs(batches: Any, device: torch.device | None) -> Iterator[Pair]:
    """Images and labels of each batch, where the model is."""
    if isinstance(batches, Tensor) or not isinstance(batches, Iterable):
        remedy = "For one batch pass [(x, y)]."
        fail("batches", "an iterable of pairs (images, labels)", batches, remedy, ArgumentTypeError)

    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            fail("batches", "pairs (images, labels)", batch, "For one batch pass [(x, y)].", ArgumentTypeError)
        x, y = (part.to(device) if isinstance(part, Tensor) and device is not None else part for part in batch)
        yield x, y


def opened(batches: Iterator[Pair]) -> tuple[Pair, Iterator[Pair]]:
    """The first batch, and all of them."""
    first = next(batches, None)
    if first is None:
        fail("batches", "at least one batch", "none", "Is the loader empty, or an iterator that was used up?")
    return first, itertools.chain([first], batches)
