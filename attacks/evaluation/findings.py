"""Can the figure be believed? Checks that catch evaluations which fool themselves, each finding with its evidence.

Robustness that a better attack takes away has a few well-known shapes (Athalye, Carlini and Wagner 2018; Carlini et al.
2019; Croce and Hein 2020, section on checks): gradients that are missing or wrong, a prediction that is not the
equilibrium it is said to be, an attack too weak to break what must break. Equilibrium models add their own: a gradient
that depends on the adjoint, an accuracy that depends on the solver's budget, tolerance or start.
"""

from __future__ import annotations

from .attack_checks import certificate, labels, large_radius, monotone, search_wins, stronger
from .evidence import AuditCase, Finding
from .gradient_checks import adjoint, wrong_gradients, zero_gradients
from .model_checks import around_the_equilibrium, level_scores, one_answer, probabilities, unusable_scores
from .solver_checks import solver_budget, start, unconverged

CHECKS = (
    unusable_scores,
    level_scores,
    probabilities,
    one_answer,
    around_the_equilibrium,
    zero_gradients,
    wrong_gradients,
    adjoint,
    solver_budget,
    start,
    unconverged,
    search_wins,
    labels,
    large_radius,
    monotone,
    stronger,
    certificate,
)


def audited(case: AuditCase) -> list[Finding]:
    """All findings, errors first."""
    if not case.evidence.parts:
        none = Finding("labels", "error", "Not one sample is classified rightly.", {"clean": 0.0})
        return [*unusable_scores(case), none]
    with case.target.held():
        found = [finding for check in CHECKS for finding in check(case)]
    return sorted(found, key=lambda finding: finding.severity)
