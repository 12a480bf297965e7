"""What the audit looks at and what it says: thresholds, samples, findings, and what every check gets to see."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from jiio.checks import check_integer, check_number
from jiio.outputs.digest import fingerprint
from jiio.outputs.seeds import generator

from ..base import AbstractAttack
from ..inside import Reached
from ..objectives import margin
from ..target import Target
from ..threat import ThreatModel
from .records import WRONG, Entry


@dataclass(frozen=True)
class Audit:
    """The thresholds of the checks; pass it to :func:`jiio.attacks.evaluate`.

    samples: how many rightly classified samples they run on. steps: of the Auto-PGD among them. queries: of the
    random search. share: of the samples beyond which a difference is a finding. cosine: below this a gradient differs
    from the converged implicit one.
    """

    samples: int = 64
    steps: int = 100
    queries: int = 200
    share: float = 0.02
    cosine: float = 0.95

    def __post_init__(self) -> None:
        for name in ("samples", "steps", "queries"):
            check_integer(f"Audit.{name}", getattr(self, name), 1)
        check_number("Audit.share", self.share, 0.0, 1.0)
        check_number("Audit.cosine", self.cosine, -1.0, 1.0)


@dataclass(frozen=True)
class Finding:
    """name: which check. severity: "error" (the figure cannot be believed) or "warning" (it may flatter the model).
    sentence: what was found. evidence: the numbers behind it.
    """

    name: str
    severity: str
    sentence: str
    evidence: dict[str, float]

    def plain(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)


@dataclass
class Evidence:
    """The samples that the checks run on: the first ones that are classified rightly when untouched.

    parts: per batch the images, labels, worst images and statuses. threats: per batch the threat to just these.
    """

    parts: list[tuple[Tensor, ...]] = field(default_factory=list)
    threats: list[ThreatModel] = field(default_factory=list)
    count: int = 0

    def collect(self, audit: Audit, x: Tensor, y: Tensor, entry: Entry, threat: ThreatModel) -> None:
        """Take what is still wanted of one batch x (B, ...), y (B,)."""
        record = entry.tensors
        right = torch.nonzero(record["status"] != WRONG)[:, 0][: audit.samples - self.count]
        if len(right):
            self.count += len(right)
            place = right.to(x.device)
            self.parts.append((x[place], y[place], record["worst"][right].to(x), record["status"][right]))
            self.threats.append(threat.select(place))

    def fingerprint(self) -> str:
        """Of all samples, so that findings about others are not taken for those about these."""
        return fingerprint(*(t for part in self.parts for t in part))


@dataclass(frozen=True)
class AuditCase:
    """What every check gets to see. evidence: has one sample at least. entries: what is kept of every batch."""

    audit: Audit
    target: Target
    attacks: tuple[AbstractAttack, ...]
    evidence: Evidence
    entries: list[Entry]
    seed: int

    # -- the samples under audit, N of them

    @cached_property
    def x(self) -> Tensor:
        """(N, ...) untouched."""
        return self._joined(0)

    @cached_property
    def y(self) -> Tensor:
        """(N,)"""
        return self._joined(1)

    @cached_property
    def worst(self) -> Tensor:
        """(N, ...) the strongest images that the attacks found."""
        return self._joined(2)

    @cached_property
    def status(self) -> Tensor:
        """(N,)"""
        return self._joined(3)

    @cached_property
    def threat(self) -> ThreatModel:
        """The threat to these samples."""
        return ThreatModel.joined(self.evidence.threats)

    def _joined(self, place: int) -> Tensor:
        return torch.cat([part[place] for part in self.evidence.parts])

    def few(self, count: int) -> Tensor:
        """(2 count, ...) or fewer: some images, untouched and attacked."""
        return torch.cat([self.x[:count], self.worst[:count]])

    # -- the equilibria

    @cached_property
    def seen(self) -> bool:
        """Whether a prediction asks for equilibria, so that something can be said of them."""
        return self.target.implicit and self._reached is not None

    @cached_property
    def single(self) -> bool:
        """Whether it asks for one, once, from which a solver can start."""
        return self._reached is not None and self._reached.state is not None

    @cached_property
    def _reached(self) -> Reached | None:
        with torch.no_grad():
            return self.target.forward(self.x[:1])[1]

    # -- all samples of the evaluation

    def total(self, status: int) -> int:
        """How many ended in this status."""
        return sum(int((entry.tensors["status"] == status).sum()) for entry in self.entries)

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(len(entry.tensors["status"]) for entry in self.entries)

    # -- measurements

    def gap(self, logits: Tensor) -> Tensor:
        """(N,) the margin of the samples under audit."""
        return margin(logits, self.y)

    def accuracy(self, attacks: tuple[AbstractAttack, ...], threat: ThreatModel, purpose: str) -> float:
        """Share of the samples that resists these attacks, one after the other."""
        left = torch.arange(len(self.x), device=self.x.device)

        for place, attack in enumerate(attacks):
            if not len(left):
                break
            draws = generator(self.seed, "audit", purpose, place)
            part = threat.select(left)
            done = attack.until_broken()(self.target, self.x[left], self.y[left], part, generator=draws)
            left = left[~done.success]  # the next attack sees only what resisted this one

        return len(left) / len(self.x)
