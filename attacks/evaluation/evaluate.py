"""The one call: how many samples resist every attack, with what certainty, and whether the figure can be believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import jiio
from jiio.checks import ArgumentTypeError, check_instance, check_integer, check_number, fail
from jiio.layout import map_tree
from jiio.outputs import seeds
from jiio.outputs.digest import fingerprint, of_model

from ..base import AbstractAttack, AttackResult, rows
from ..target import Prediction, Target
from ..threat import ThreatModel
from .certificates import certify
from .evidence import Audit, Case, Evidence
from .findings import audited
from .gallery import Gallery
from .records import BROKEN, ROBUST, UNCONVERGED, WRONG, Entry
from .report import Report, assemble
from .saved import State


@dataclass(frozen=True)
class _Plan:
    """What is the same for every batch."""

    target: Target
    threat: ThreatModel
    attacks: tuple[AbstractAttack, ...]
    factors: tuple[float, ...]
    seed: int


def evaluate(
    model: nn.Module | Target,
    batches: Iterable[tuple[Tensor, Tensor]],
    threat: ThreatModel,
    attacks: Sequence[AbstractAttack],
    *,
    generator: torch.Generator,
    state_path: str | Path | None = None,
    curve: Sequence[float] = (),
    audit: Audit | None = Audit(),  # noqa: B008 (a frozen record)
    pictures: int = 6,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Clean and robust accuracy: a sample is robust if it is classified rightly and resists every attack.

    batches: pairs of images (B, ...) and labels (B,) int64, on the device of the model; the same in the same order
    when an evaluation is resumed. attacks: each sees only the samples that resisted the ones before it; gradient-free
    ones come last. generator: only its initial seed counts; every attack on every batch gets a generator of its own
    made from it. state_path: a folder in which finished batches are kept; the same call again goes on where it
    stopped, to the same report. curve: multiples of the radius at which the robust accuracy is wanted as well, in
    ascending order of cost: a sample that is broken at one radius counts as broken at every larger one. audit: None
    leaves the checks out. pictures: how many examples the report keeps. progress: called with one line per batch.

    A sample whose equilibrium was not reached, clean or attacked, is counted apart and never as robust. Raises
    ArgumentError or ArgumentTypeError for unusable arguments, CellError where the model breaks its contract,
    CheckpointError where ``state_path`` belongs to another evaluation.
    """
    target = Target.of(model)
    check_instance("threat", threat, ThreatModel)
    ordered = _check_attacks(attacks)
    check_instance("generator", generator, torch.Generator)
    check_integer("pictures", pictures, 0)
    if audit is not None:
        check_instance("audit", audit, Audit)
    factors = tuple(sorted({1.0, *(check_number("curve", f, 0.0, open_low=True) for f in curve)}))
    plan = _Plan(target, threat, ordered, factors, generator.initial_seed())
    state = State(None if state_path is None else Path(state_path), _settings(plan))
    evidence, records, gallery = Evidence(), [], Gallery(pictures)
    for number, (x, y) in enumerate(_pairs(batches)):
        target.check(x, y, threat)
        data = fingerprint(x, y)
        record = state.load(f"batch-{number:05d}", data)
        if record is None:
            record = _attack(plan, x, y, number)
            state.save(f"batch-{number:05d}", data, record)
        if audit is not None:
            evidence.collect(audit, x, y, record, threat)
        gallery.collect(x, record.tensors)
        records.append(record)
        if progress is not None:
            robust = sum(int((r[0]["status"] == ROBUST).sum()) for r in records)
            progress(f"batch {number + 1}: {robust} of {sum(len(r[0]['status']) for r in records)} robust so far")
    if not records:
        fail("batches", "at least one batch", "none", "Is the loader empty, or an iterator that was used up?")
    findings: list[dict[str, Any]] = []
    if audit is not None:
        found = state.load("audit", evidence.fingerprint())
        if found is None:
            case = Case(audit, target, plan.attacks, evidence, records, plan.seed)
            findings = [finding.plain() for finding in audited(case)]
            state.save("audit", evidence.fingerprint(), Entry({}, {"findings": findings}))
        else:
            findings = found.words["findings"]
    return assemble(target, threat, ordered, factors, plan.seed, records, findings, gallery)


def _attack(plan: _Plan, x: Tensor, y: Tensor, number: int) -> Entry:
    """All attacks at all radii on one batch; what is kept of it."""
    target, threat = plan.target, plan.threat
    with target.held():
        clean = target.predict(x)
        target.check_labels(clean.logits, y)
        certificate = certify(target, x, y, threat)
    wrong = clean.label != y
    # Broken samples carry the index of the factor at which they fell; a wrong one fell before all of them.
    fell = torch.where(wrong, -1, len(plan.factors)).to(torch.int64)
    by = torch.full_like(fell, -1)
    # A certificate speaks of the same balls: what an attack breaks inside it disproves one of the two.
    settled = clean.converged.clone()
    worst, last = x.clone(), clean
    margins = torch.full((len(x),), float("-inf"), dtype=x.dtype, device=x.device)
    tally = {a.name: {"tried": 0, "broken": 0, "cost": {}} for a in plan.attacks}
    for level, factor in enumerate(plan.factors):
        scaled = threat if factor == 1.0 else threat.scaled(factor)
        for place, attack in enumerate(plan.attacks):
            left = torch.nonzero(fell > level)[:, 0]
            if not len(left):
                break
            draws = seeds.generator(plan.seed, "attack", number, factor, place)
            part = Prediction(*(v[left] if isinstance(v, Tensor) else _rows(v, left) for v in clean))
            result = attack(target, x[left], y[left], scaled.select(left), generator=draws, clean=part)
            hit = left[result.success]
            fell[hit], by[hit] = level, place
            if factor == 1.0:
                _count(tally[attack.name], result)
            if factor <= 1.0:
                stronger = result.success | (result.margin > margins[left])
                change = torch.zeros_like(wrong)
                change[left[stronger]] = True
                worst = torch.where(rows(change, x), _spread(result.x, left, worst), worst)
                margins = torch.where(change, _spread(result.margin, left, margins), margins)
                last = last._replace(
                    **{
                        n: torch.where(
                            change, _spread(getattr(result.prediction, n), left, getattr(last, n)), getattr(last, n)
                        )
                        for n in ("label", "converged", "steps", "residual")
                    }
                )
                settled[left] &= result.settled
    main = plan.factors.index(1.0)
    broken = (fell <= main) & ~wrong
    status = torch.full_like(fell, ROBUST)
    status[~settled & ~broken & ~wrong] = UNCONVERGED
    status[broken], status[wrong] = BROKEN, WRONG
    tensors = {
        "y": y, "worst": worst, "status": status, "fell": fell, "by": by, "clean_label": clean.label,
        "label": last.label, "margin": margins, "distance": threat.distance(worst, x),
        "clean_converged": clean.converged, "clean_steps": clean.steps, "clean_residual": clean.residual,
        "converged": last.converged, "steps": last.steps, "residual": last.residual,
    }  # fmt: skip
    if certificate is not None:
        tensors |= {"certified_radius": certificate.radius, "certified": certificate.certified}
    return Entry({name: value.detach().cpu() for name, value in tensors.items()}, {"tally": tally})


def _count(line: dict[str, Any], result: AttackResult) -> None:
    line["tried"] += len(result.success)
    line["broken"] += int(result.success.sum())
    line["cost"] = result.cost


def _rows(state: Any, index: Tensor) -> Any:
    return None if state is None else map_tree(lambda leaf: leaf[index], state)


def _spread(part: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """Rows of a part of the batch at their places in the whole."""
    whole = like.clone()
    whole[index] = part.to(like.dtype)
    return whole


def _settings(plan: _Plan) -> dict[str, Any]:
    return {
        "model": of_model(plan.target.model),
        "solver": {name: repr(value) for name, value in plan.target.options.items()},
        "threat": plan.threat.describe(),
        "attacks": [attack.name for attack in plan.attacks],
        "curve": list(plan.factors),
        "seed": plan.seed,
        "version": jiio.__version__,
    }


def _check_attacks(attacks: Any) -> tuple[AbstractAttack, ...]:
    if isinstance(attacks, AbstractAttack) or not isinstance(attacks, Sequence):
        fail("attacks", "a list of attacks", attacks, "Put it into a list: [PGD()].", ArgumentTypeError)
    if not attacks:
        fail("attacks", "at least one attack", "an empty list", "For example [PGD(), Square()].")
    for attack in attacks:
        check_instance("attacks", attack, AbstractAttack)
    names = [attack.name for attack in attacks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        fail("attacks", "attacks that differ", f"{twice[0]} twice", "Change a setting of one of them, or drop it.")
    return tuple(sorted(attacks, key=lambda attack: attack.gradient_free))


def _pairs(batches: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(batches, Tensor) or not isinstance(batches, Iterable):
        remedy = "For one batch pass [(x, y)]."
        fail("batches", "an iterable of pairs (images, labels)", batches, remedy, ArgumentTypeError)
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            fail("batches", "pairs (images, labels)", batch, "For one batch pass [(x, y)].", ArgumentTypeError)
        yield batch[0], batch[1]
