"""The one call: how many samples resist every attack, with what certainty, and whether the figure can be believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jiio.checks import check_instance, check_integer, fail
from jiio.outputs.digest import fingerprint

from ..modes import ordinary, outside_inference
from ..target import Target
from ..threat import ThreatModel
from .asked import Suite, asked, opened, pairs, place, the_threat
from .batch import attacked
from .evidence import Audit, AuditCase, Evidence
from .figures import Books, report
from .findings import audited
from .gallery import Gallery
from .provenance import Digest, check_about
from .records import ROBUST, Entry
from .report import Report
from .saved import Saved, saved
from .shards import Shard
from .terms import Terms, check_factors

Batches = Iterable[tuple[Tensor, Tensor]]


def evaluate(
    model: nn.Module | Target,
    batches: Batches,
    threat: ThreatModel | str,
    radius: float | Tensor | Suite | None = None,
    attacks: Suite | None = None,
    *,
    bounds: tuple[float | Tensor, float | Tensor] | None = None,
    generator: torch.Generator | None = None,
    state_path: str | Path | None = None,
    curve: Sequence[float] = (),
    audit: Audit | None = Audit(),  # noqa: B008 (a frozen record)
    pictures: int = 6,
    progress: Callable[[str], None] | None = None,
    about: Mapping[str, str] | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Report:
    """Clean and robust accuracy: a sample is robust if it is classified rightly and resists every attack.

    Either ``evaluate(model, batches, "linf", 8 / 255, attacks)`` or ``evaluate(model, batches, ThreatModel(...),
    attacks)``.

    model: any module x (B, ...) -> scores (B, classes); put into eval mode meanwhile, and left as it was. batches:
    pairs of images (B, ...) and labels (B,) int64, moved to where the model is; the same in the same order when an
    evaluation is resumed. threat, radius: "linf", "l2" or "l1" with a number above 0 in units of the images, or a
    :class:`ThreatModel` alone. bounds: of valid images, (0, 1) where None. attacks: the name of a suite, which is
    fitted to the model ("standard" by default), or a list, of which every entry has to fit. Each sees only the samples
    that resisted the ones before it; gradient-free ones come last. generator: only its initial seed counts (None: seed
    0); every attack on every batch gets a generator of its own made from it. state_path: a folder in which finished
    batches are kept; the same call again goes on where it stopped, to the same report. curve: multiples of the radius
    at which the robust accuracy is wanted as well, in ascending order of cost: a sample that is broken at one radius
    counts as broken at every larger one. audit: None leaves the checks out. pictures: how many examples the report
    keeps. progress: called with one line per batch. about: the caller's words for "model", "data", "suite" and
    "command". shard: (index, count), of ``count`` processes with the same ``state_path`` the one that does the batches
    with this rest; it reports on these alone, and the same call without it on all.

    A sample whose equilibrium was not reached, clean or attacked, is counted apart and never as robust. Raises
    ArgumentError or ArgumentTypeError for unusable arguments, before anything is attacked where that can be known,
    CellError where the model breaks its contract, CheckpointError where ``state_path`` belongs to another evaluation or
    holds a damaged file, and ``jiio.outputs.lock.InUseError`` where an evaluation is at work in it.
    """
    target = Target.of(model)
    against, chosen = the_threat(threat, radius, attacks, bounds)
    draws = torch.Generator().manual_seed(0) if generator is None else generator
    check_instance("generator", draws, torch.Generator)
    check_integer("pictures", pictures, 0)
    if audit is not None:
        check_instance("audit", audit, Audit)
    words, part, factors = check_about(about or {}), _part(shard, state_path), check_factors(curve)

    # What the first batch shows to be wrong is said before anything is attacked.
    first, whole = opened(pairs(batches, place(target)))
    target.check(*first, against)
    what = asked(target, against, chosen, first)
    terms = Terms(target, against, what.attacks, factors, draws.initial_seed())

    with outside_inference(), saved(None if state_path is None else Path(state_path), terms.plain(), part) as kept:
        going = _Evaluation(terms, kept, audit, Gallery(pictures), part, {"suite": what.called} | words)
        for x, y in whole:
            going.take(x, y)
            if progress is not None and going.news:
                progress(going.so_far())
        return going.report()


def _part(shard: Any, state_path: Any) -> Shard:
    if not isinstance(shard, tuple) or len(shard) != 2:
        fail("shard", "a pair (index, count)", shard)
    part = Shard(*shard).check()
    if part.count > 1 and state_path is None:
        fail("state_path", "a folder that all parts of the evaluation share", "none")
    return part


@dataclass
class _Evaluation:
    """One evaluation at work, batch by batch. number: of batches seen. news: whether the last one was its own."""

    terms: Terms
    kept: Saved
    audit: Audit | None
    gallery: Gallery
    part: Shard
    words: dict[str, str]
    evidence: Evidence = field(default_factory=Evidence)
    entries: list[Entry] = field(default_factory=list)
    originals: list[Tensor] = field(default_factory=list)
    digest: Digest = field(default_factory=Digest)
    number: int = 0
    news: bool = False

    def take(self, x: Tensor, y: Tensor) -> None:
        """Attack the next batch, or read what is kept of it; pass over that of another part."""
        self.terms.target.check(x, y, self.terms.threat)
        for attack in self.terms.attacks:
            attack.fits(self.terms.target, x, self.terms.threat)
        number, self.number = self.number, self.number + 1
        self.news = self.part.has(number)
        if not self.news:
            return
        x, y = ordinary(x), ordinary(y)
        data = fingerprint(x, y)

        # The fingerprint of the data: other images under the same number would make a figure of two evaluations.
        name = f"batch-{number:05d}"
        entry = self.kept.load(name, data)
        if entry is None:
            entry = attacked(self.terms, x, y, number)
            self.kept.save(name, data, entry)

        if self.audit is not None:
            self.evidence.collect(self.audit, x, y, entry, self.terms.threat)
        self.gallery.collect(x, entry.tensors)
        self.digest.add(x, y)
        self.originals.append(x.detach().cpu())
        self.entries.append(entry)

    def so_far(self) -> str:
        """A line of news after a batch."""
        status = torch.cat([entry.tensors["status"] for entry in self.entries])
        return f"batch {self.number}: {int((status == ROBUST).sum())} of {len(status)} robust so far"

    def report(self) -> Report:
        """What all batches together say."""
        if not self.entries:
            expected = f"a batch for each of the {self.part.count} parts"
            fail("shard", expected, f"{self.number} batches", "Take fewer parts, or smaller batches.")
        told = self.words | {"digest": str(self.digest), "date": self.kept.begun}
        return report(Books(self.terms, self.entries, self.originals, self._findings(), self.gallery, told))

    def _findings(self) -> list[dict[str, Any]] | None:
        """Those of the audit, as plain data; None where there was none. It judges whole evaluations alone."""
        if self.audit is None or self.part.count > 1:
            return None
        data, terms = self.evidence.fingerprint(), self.terms
        entry = self.kept.load("audit", data)

        if entry is None:
            case = AuditCase(self.audit, terms.target, terms.attacks, self.evidence, self.entries, terms.seed)
            entry = Entry({}, {"findings": [finding.plain() for finding in audited(case)]})
            self.kept.save("audit", data, entry)
        return entry.words["findings"]
