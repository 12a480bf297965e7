"""Checks of the audit on attacks, labels and certificates: what must break does break, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from jiio.outputs.seeds import generator

from ..base import AbstractAttack
from ..methods.apgd import APGD
from ..methods.search import Square
from ..objectives import Margin
from ..statistics import interval
from .evidence import AuditCase, Finding
from .probes import whole_range
from .records import BROKEN, ROBUST, WRONG


def search_wins(case: AuditCase) -> Iterator[Finding]:
    """A search without gradients that finds what gradients do not: the sure sign of masked ones."""
    free = [i for i, attack in enumerate(case.attacks) if attack.gradient_free]
    if len(free) == len(case.attacks):
        return
    taken, total = _taken(case, free), case.samples

    # Where no search was among the attacks, one is made on the samples under audit, if it knows this threat.
    one_ball = len(case.threat.parts(case.x[0].numel())) == 1
    if not free and case.threat.norm != "l1" and one_ball:
        broken = _broken_by(case, Square(queries=case.audit.queries), "search")
        taken, total = (taken, total) if broken is None else (broken, len(case.x))

    if taken > max(1.0, case.audit.share * total):
        yield _masked(taken, total)


def _taken(case: AuditCase, free: list[int]) -> int:
    """How many samples fell to the attacks at these places."""
    taken = 0
    for entry in case.entries:
        by, broken = entry.tensors["by"], entry.tensors["status"] == BROKEN
        taken += sum(int(((by == i) & broken).sum()) for i in free)
    return taken


def _masked(taken: int, total: int) -> Finding:
    return Finding(
        "search-wins",
        "error",
        f"A random search without gradients breaks {taken} of {total} samples that every gradient attack left "
        "standing: the gradients are masked. Give the search more queries, and attack a stand-in with an honest "
        "gradient: SurrogateAttack(stand_in, PGD()).",
        {"broken": float(taken), "samples": float(total)},
    )


def labels(case: AuditCase) -> Iterator[Finding]:
    """An accuracy that knowing the labels' frequencies would give."""
    truth = torch.cat([entry.tensors["y"] for entry in case.entries])
    right = case.samples - case.total(WRONG)
    chance = torch.bincount(truth).max().item() / len(truth)

    # The lower end of the interval: a small sample must not pass by luck.
    low, _ = interval(right, case.samples)
    if low <= chance:
        yield Finding(
            "labels",
            "error",
            f"Clean accuracy ({right / case.samples:.1%}) is not above that of the most frequent label ({chance:.1%}): "
            "are labels, scaling or normalisation of the inputs those of the training?",
            {"clean": right / case.samples, "most_frequent": chance},
        )


def large_radius(case: AuditCase) -> Iterator[Finding]:
    """Samples that resist where every image is allowed."""
    threat = whole_range(case.threat, case.x)
    gradients = tuple(a for a in case.attacks if not a.gradient_free)
    left = case.accuracy(gradients or case.attacks, threat, "large")
    if left > 2.5 * case.audit.share:
        yield Finding(
            "large-radius",
            "error",
            f"{left:.0%} of the samples resist even at a radius that covers the whole range of images, where every "
            "classifier must fail: the attacks do not work on this model. Take other objectives (Margin()), more "
            "steps, and a search without gradients.",
            {"accuracy": left, "radius": float(torch.as_tensor(threat.radius).max())},
        )


def monotone(case: AuditCase) -> Iterator[Finding]:
    """An attack that a larger radius helps less."""
    attack = next((a for a in case.attacks if not a.gradient_free), case.attacks[0])
    factors = (0.5, 1.0, 2.0)
    kept = [case.accuracy((attack,), case.threat.scaled(f), f"radius {f}") for f in factors]

    # Some samples may come and go by chance; more than that is the attack's fault.
    if any(after > before + 2.5 * case.audit.share for before, after in itertools.pairwise(kept)):
        told = ", ".join(f"{a:.1%} at {f:g}" for f, a in zip(factors, kept, strict=True))
        yield Finding(
            "radius",
            "error",
            f"A larger radius helps the attack less: {attack.name} leaves {told} times the radius. Take "
            "more steps, or another objective.",
            {f"accuracy_at_{f:g}": a for f, a in zip(factors, kept, strict=True)},
        )


def stronger(case: AuditCase) -> Iterator[Finding]:
    """Robust samples that a plain Auto-PGD breaks."""
    attack = APGD(steps=case.audit.steps, objective=Margin())
    broken = _broken_by(case, attack, "steps")
    if broken is not None and broken > max(1.0, 2.5 * case.audit.share * len(case.x)):
        yield Finding(
            "steps",
            "warning",
            f"Auto-PGD with {case.audit.steps} steps breaks {broken} of {len(case.x)} samples more than the "
            "attacks given: they are too weak for this model, so use more steps, restarts or objectives.",
            {"broken": float(broken), "samples": float(len(case.x))},
        )


def _broken_by(case: AuditCase, attack: AbstractAttack, purpose: str) -> int | None:
    """How many of the samples that count as robust this attack breaks; None where there are none."""
    left = torch.nonzero(case.status == ROBUST)[:, 0].to(case.x.device)
    if not len(left):
        return None
    draws = generator(case.seed, "audit", purpose)
    threat = case.threat.select(left)
    result = attack.until_broken()(case.target, case.x[left], case.y[left], threat, generator=draws)
    return int(result.success.sum())


def certificate(case: AuditCase) -> Iterator[Finding]:
    """Samples that were broken inside their certified radius."""
    kept = [entry.tensors for entry in case.entries if "certified" in entry.tensors]
    against = sum(int((record["certified"] & (record["status"] == BROKEN)).sum()) for record in kept)
    if against:
        yield Finding(
            "certificate",
            "error",
            f"{against} samples were broken inside their certified radius: the certificate or the model is wrong.",
            {"samples": float(against)},
        )
