"""Checks of the audit on equilibria: they were reached, and they do not depend on the solver's budget or start."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from jiio.outputs.seeds import generator

from .evidence import AuditCase, Finding
from .probes import converged, differ, labels_from_another_start
from .records import UNCONVERGED

APART = 0.02  # of the range of the scores: what two solves of one equilibrium may leave between them


def solver_budget(case: AuditCase) -> Iterator[Finding]:
    """Predictions that change with more steps and a tighter tolerance."""
    if not case.seen:
        return
    points, labels = torch.cat([case.x, case.worst]), torch.cat([case.y, case.y])
    own = case.target.predict(points)
    longer = converged(case.target, case.x.dtype).predict(points)

    # A label that moves is what counts: a residual alone says nothing about the figure.
    share = (own.label != longer.label).float().mean().item()
    if share > case.audit.share:
        now, then = ((p.label == labels).float().mean().item() for p in (own, longer))
        yield Finding(
            "solver-budget",
            "error",
            f"{share:.0%} of the predictions change when the solver gets more steps and a tighter tolerance (accuracy "
            f"{now:.1%} becomes {then:.1%} over clean and attacked points): the prediction is not that of the "
            "equilibrium. Raise max_steps of the model, or attack what converges: Target(model, max_steps=...).",
            {"share": share, "accuracy": now, "accuracy_converged": then},
        )


def start(case: AuditCase) -> Iterator[Finding]:
    """Predictions that change with the start of the solver."""
    if not case.single:
        return
    points = torch.cat([case.x, case.worst])
    longer = converged(case.target, case.x.dtype).predict(points)
    starts = labels_from_another_start(case.target, points, generator(case.seed, "audit", "start"))

    # Two equilibria are two only where both were reached, and where the scores differ by more than a tolerance makes:
    # an attacked point may lie so near the border that the last digits decide.
    apart = differ(longer.logits, starts.logits, APART)
    both = longer.converged & starts.converged & apart
    share = (both & (starts.label != longer.label)).float().mean().item()
    if share > case.audit.share:
        yield Finding(
            "start",
            "error",
            f"{share:.0%} of the predictions change when the solver starts elsewhere: there are several equilibria, "
            "and an attack can be lucky or unlucky with the start. Use a cell with one equilibrium (MonotoneCell, or a "
            "DenseCell that contracts).",
            {"share": share},
        )


def unconverged(case: AuditCase) -> Iterator[Finding]:
    """Equilibria that were not reached, over all batches."""
    clean, attacked = (
        sum(int((~entry.tensors[name]).sum()) for entry in case.entries) for name in ("clean_converged", "converged")
    )
    apart = case.total(UNCONVERGED)
    if clean + attacked + apart:
        yield Finding(
            "unconverged",
            "warning",
            f"The equilibrium was not reached for {clean} clean and {attacked} attacked of {case.samples} samples; "
            f"{apart} that were not broken are counted apart and not as robust. More steps may help: "
            "Target(model, max_steps=...).",
            {"clean": float(clean), "attacked": float(attacked), "apart": float(apart)},
        )
