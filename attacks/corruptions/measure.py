"""The error of a classifier on corrupted pictures, family by family and severity by severity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from jiio.checks import check_choice, check_instance, check_integer, check_number, fail
from jiio.outputs.digest import of_model

from ..evaluation.asked import check_answers, opened, pairs, place
from ..evaluation.evidence import Audit, AuditCase, Evidence, Finding
from ..evaluation.model_checks import around_the_equilibrium, one_answer
from ..evaluation.provenance import Digest, check_about, now, versions
from ..evaluation.records import ROBUST, WRONG, Entry
from ..modes import ordinary, outside_inference
from ..target import Target
from ..threat import ThreatModel
from .families import FAMILIES, SEVERITIES, corrupt
from .report import CorruptionReport

Batches = Iterable[tuple[Tensor, Tensor]]
LOOKED_AT = 16  # pictures of the first batch by which the model is audited
NEAR = 8 / 255  # how near pictures are to those that a memory might know


def evaluate_corruptions(
    model: nn.Module | Target,
    batches: Batches,
    families: Sequence[str] | None = None,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    baseline: CorruptionReport | None = None,
    progress: Callable[[str], None] | None = None,
    about: Mapping[str, str] | None = None,
) -> CorruptionReport:
    """The error on clean pictures and on each family of common corruptions at its five severities.

    model: any module x (B, C, H, W) -> scores (B, classes). batches: pairs of pictures and labels. families: names of
    some of the fifteen (None: all). bounds: black and white of the pictures. seed: of everything random; one
    picture is corrupted alike for every model. baseline: the report of another model on the same pictures, against
    which the mean corruption error is counted; without one it is the mean error. progress: called with a line per
    batch. about: the caller's words for "model", "data" and "command".

    Answers that are NaN, and equilibria that were not reached, count as errors. Raises ArgumentError or
    ArgumentTypeError for unusable arguments, CellError where the model breaks its contract.
    """
    target, words = Target.of(model), check_about(about or {})
    chosen, black, white = _families(families), *_bounds(bounds)
    check_integer("seed", seed, 0)
    if baseline is not None:
        check_instance("baseline", baseline, CorruptionReport).check_serves(chosen, seed)

    # What the first batch shows to be wrong is said before anything is corrupted.
    first, whole = opened(pairs(batches, place(target)))
    target.check(*first)
    check_answers(target, first)
    tally = _Tally(target, chosen, black, white - black, seed)
    with outside_inference(), target.held():
        for x, y in whole:
            target.check(x, y)
            tally.take(ordinary(x), ordinary(y))
            if progress is not None:
                progress(tally.so_far())
        findings = _findings(target, first, (black, white))

    # The counts are kept, and every figure follows from them.
    found = CorruptionReport(
        model={"name": words.get("model", type(target.model).__name__)},
        seed=seed,
        total=tally.total,
        clean=tally.clean,
        errors=tally.errors,
        unconverged=tally.unconverged,
        findings=findings,
        provenance=_provenance(target, words, tally),
    )
    return found if baseline is None else found.against(baseline)


@dataclass
class _Tally:
    """Wrong answers up to now. errors: family -> a count for each severity."""

    target: Target
    families: Sequence[str]
    black: float
    span: float
    seed: int
    total: int = 0
    clean: int = 0
    unconverged: int = 0
    errors: dict[str, list[int]] = field(default_factory=dict)
    digest: Digest = field(default_factory=Digest)

    def take(self, x: Tensor, y: Tensor) -> None:
        """Corrupt and ask about one more batch."""
        pictures, first = (x - self.black) / self.span, self.total
        self.clean += self.wrong(x, y)

        for family in self.families:
            counts = self.errors.setdefault(family, [0] * len(SEVERITIES))
            for severity in SEVERITIES:
                changed = corrupt(pictures, family, severity, seed=self.seed, first=first)
                counts[severity - 1] += self.wrong(changed * self.span + self.black, y)
        self.total += len(x)
        self.digest.add(x, y)

    def wrong(self, x: Tensor, y: Tensor) -> int:
        """How many are not answered rightly from an equilibrium that was reached."""
        said = self.target.predict(x)
        self.target.check_labels(said.logits, y)
        self.unconverged += int((~said.converged).sum())
        return int(((said.label != y) | ~said.converged).sum())

    def so_far(self) -> str:
        """A line of news after a batch."""
        asked = sum(len(counts) for counts in self.errors.values()) * self.total
        mean = sum(sum(counts) for counts in self.errors.values()) / asked
        return f"{self.total} pictures: error {self.clean / self.total:.1%} clean, {mean:.1%} corrupted so far"


def _families(families: Any) -> list[str]:
    if families is None:
        return list(FAMILIES)
    if isinstance(families, str) or not isinstance(families, Sequence) or not families:
        fail("families", "names of families in a list", families, f"There are {', '.join(FAMILIES)}.")
    return list(dict.fromkeys(check_choice("families", name, FAMILIES) for name in families))


def _bounds(bounds: Any) -> tuple[float, float]:
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        fail("bounds", "a pair of numbers, black and white", bounds)
    black, white = (check_number("bounds", value) for value in bounds)
    if not black < white:
        fail("bounds", "black below white", bounds)
    return black, white


def _findings(target: Target, first: tuple[Tensor, Tensor], bounds: tuple[float, float]) -> list[dict[str, Any]]:
    """Whether the answers are a function of the picture alone, from a few that are answered rightly."""
    x, y = (ordinary(part[:LOOKED_AT]) for part in first)
    status = torch.where(target.predict(x).label == y, ROBUST, WRONG).cpu()
    evidence, threat = Evidence(), ThreatModel("linf", NEAR * (bounds[1] - bounds[0]), bounds)
    evidence.collect(Audit(), x, y, Entry({"status": status, "worst": x.cpu()}, {}), threat)
    if not evidence.parts:
        return [
            Finding("labels", "error", "Not one of the first pictures is classified rightly.", {"clean": 0.0}).plain()
        ]

    case = AuditCase(Audit(), target, (), evidence, [], 0)
    found = [finding for check in (one_answer, around_the_equilibrium) for finding in check(case)]
    return [finding.plain() for finding in sorted(found, key=lambda finding: finding.severity)]


def _provenance(target: Target, words: dict[str, str], tally: _Tally) -> dict[str, Any]:
    """All that it takes to make the report again."""
    told = {
        "weights": of_model(target.model),
        "data": " ".join((*([words["data"]] if "data" in words else []), f"digest {tally.digest}")),
        "versions": versions(),
        "date": now(),
    }
    return told | ({"command": words["command"]} if "command" in words else {})
