"""What the audit looks at and what it says: findings, the samples behind them, and what every check gets to see."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jiio.outputs.digest import fingerprint
from jiio.outputs.seeds import generator

from ..base import AbstractAttack
from ..objectives import margin
from ..target import Target
from ..threat import ThreatModel
from .report import WRONG, Record

if TYPE_CHECKING:
    from .audit import Audit


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
        return asdict(self)


@dataclass
class Evidence:
    """The samples that the checks run on: the first ones that are classified rightly when untouched."""

    parts: list[tuple[Tensor, ...]] = field(default_factory=list)
    threats: list[ThreatModel] = field(default_factory=list)
    count: int = 0

    def collect(self, audit: Audit, x: Tensor, y: Tensor, record: dict[str, Tensor], threat: ThreatModel) -> None:
        right = torch.nonzero(record["status"] != WRONG)[:, 0][: audit.samples - self.count]
        if len(right):
            self.count += len(right)
            place = right.to(x.device)
            self.parts.append((x[place], y[place], record["worst"][right].to(x), record["status"][right]))
            self.threats.append(threat.select(place))

    def fingerprint(self) -> str:
        return fingerprint(*(t for part in self.parts for t in part))


@dataclass
class Case:
    """What every check gets to see."""

    audit: Audit
    target: Target
    threat: ThreatModel
    attacks: tuple[AbstractAttack, ...]
    x: Tensor
    y: Tensor
    worst: Tensor
    status: Tensor
    records: list[Record]
    seed: int

    def total(self, status: int) -> int:
        return sum(int((r[0]["status"] == status).sum()) for r in self.records)

    @property
    def samples(self) -> int:
        return sum(len(r[0]["status"]) for r in self.records)

    def gap(self, logits: Tensor) -> Tensor:
        return margin(logits, self.y)

    def accuracy(self, attacks: tuple[AbstractAttack, ...], threat: ThreatModel, purpose: str) -> float:
        """Share of the samples that resists these attacks, one after the other."""
        left = torch.arange(len(self.x), device=self.x.device)
        for place, attack in enumerate(attacks):
            if not len(left):
                break
            draws = generator(self.seed, "audit", purpose, place)
            done = attack(self.target, self.x[left], self.y[left], threat.select(left), generator=draws)
            left = left[~done.success]
        return len(left) / len(self.x)
