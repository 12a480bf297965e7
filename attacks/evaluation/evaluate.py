"""The one call: how many samples resist every attack, with what certainty, and whether the figure can be believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jiio.checks import ArgumentTypeError, check_instance, check_integer, fail
from jiio.outputs.digest import fingerprint

from ..base import AbstractAttack
from ..modes import ordinary, outside_inference
from ..target import Target
from ..threat import ThreatModel
from .batch import attacked
from .evidence import Audit, AuditCase, Evidence
from .figures import Books, report
from .findings import audited
from .gallery import Gallery
from .records import ROBUST, Entry
from .report import Report
from .saved import Saved, saved
from .terms import Terms, check_attacks, check_factors


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
    CheckpointError where ``state_path`` belongs to another evaluation or holds a damaged file, and
    ``jiio.outputs.lock.InUseError`` where an evaluation is at work in it.
    """
    target = Target.of(model)
    check_instance("threat", threat, ThreatModel)
    ordered = check_attacks(attacks)
    check_instance("generator", generator, torch.Generator)
    check_integer("pictures", pictures, 0)
    if audit is not None:
        check_instance("audit", audit, Audit)
    terms = Terms(target, threat, ordered, check_factors(curve), generator.initial_seed())

    with outside_inference(), saved(None if state_path is None else Path(state_path), terms.plain()) as kept:
        going = _Evaluation(terms, kept, audit, Gallery(pictures))
        for x, y in _pairs(batches):
            going.take(x, y)
            if progress is not None:
                progress(going.so_far())
        return going.report()


@dataclass
class _Evaluation:
    """One evaluation at work, batch by batch."""

    terms: Terms
    kept: Saved
    audit: Audit | None
    gallery: Gallery
    evidence: Evidence = field(default_factory=Evidence)
    entries: list[Entry] = field(default_factory=list)

    def take(self, x: Tensor, y: Tensor) -> None:
        """Attack the next batch, or read what is kept of it."""
        self.terms.target.check(x, y, self.terms.threat)
        for attack in self.terms.attacks:
            attack.fits(self.terms.target, x, self.terms.threat)
        x, y = ordinary(x), ordinary(y)
        number, data = len(self.entries), fingerprint(x, y)

        # The fingerprint of the data: other images under the same number would make a figure of two evaluations.
        name = f"batch-{number:05d}"
        entry = self.kept.load(name, data)
        if entry is None:
            entry = attacked(self.terms, x, y, number)
            self.kept.save(name, data, entry)

        if self.audit is not None:
            self.evidence.collect(self.audit, x, y, entry, self.terms.threat)
        self.gallery.collect(x, entry.tensors)
        self.entries.append(entry)

    def so_far(self) -> str:
        """A line of news after a batch."""
        status = torch.cat([entry.tensors["status"] for entry in self.entries])
        return f"batch {len(self.entries)}: {int((status == ROBUST).sum())} of {len(status)} robust so far"

    def report(self) -> Report:
        """What all batches together say."""
        if not self.entries:
            fail("batches", "at least one batch", "none", "Is the loader empty, or an iterator that was used up?")
        return report(Books(self.terms, self.entries, self._findings(), self.gallery))

    def _findings(self) -> list[dict[str, Any]]:
        """Those of the audit, as plain data."""
        if self.audit is None:
            return []
        data, terms = self.evidence.fingerprint(), self.terms
        entry = self.kept.load("audit", data)

        if entry is None:
            case = AuditCase(self.audit, terms.target, terms.attacks, self.evidence, self.entries, terms.seed)
            entry = Entry({}, {"findings": [finding.plain() for finding in audited(case)]})
            self.kept.save("audit", data, entry)
        return entry.words["findings"]


def _pairs(batches: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(batches, Tensor) or not isinstance(batches, Iterable):
        remedy = "For one batch pass [(x, y)]."
        fail("batches", "an iterable of pairs (images, labels)", batches, remedy, ArgumentTypeError)
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            fail("batches", "pairs (images, labels)", batch, "For one batch pass [(x, y)].", ArgumentTypeError)
        yield batch[0], batch[1]
