"""Can the figure be believed? Checks that catch evaluations which fool themselves, each finding with its evidence.

Robustness that a better attack takes away has a few well-known shapes (Athalye, Carlini and Wagner 2018; Carlini et al.
2019; Croce and Hein 2020, section on checks): gradients that are missing or wrong, a prediction that is not the
equilibrium it is said to be, an attack too weak to break what must break. Equilibrium models add their own: a gradient
that depends on the adjoint, an accuracy that depends on the solver's budget, tolerance or start.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jiio.checks import check_integer, check_number

from ..base import AbstractAttack
from ..target import Target
from ..threat import ThreatModel
from .evidence import Case, Evidence, Finding
from .findings import CHECKS
from .report import Record


@dataclass(frozen=True)
class Audit:
    """The checks and their thresholds; call it through :func:`jiio.attacks.evaluate`.

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

    def __call__(
        self,
        target: Target,
        threat: ThreatModel,
        attacks: tuple[AbstractAttack, ...],
        evidence: Evidence,
        records: list[Record],
        seed: int,
    ) -> list[Finding]:
        """All findings, errors first."""
        if not evidence.parts:
            return [Finding("labels", "error", "Not one sample is classified rightly.", {"clean": 0.0})]
        x, y, worst, status = (torch.cat(parts) for parts in zip(*evidence.parts, strict=True))
        threat = ThreatModel.joined(evidence.threats)
        case = Case(self, target, threat, attacks, x, y, worst, status, records, seed)
        with target.held():
            found = [finding for check in CHECKS for finding in check(case)]
        return sorted(found, key=lambda finding: finding.severity)


__all__ = ["Audit", "Evidence", "Finding"]
