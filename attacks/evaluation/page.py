"""The report as one HTML page that fetches nothing: figures, tables, findings, curve and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jiio.outputs.page import Page

from . import drawings
from .gallery import Gallery

Row = dict[str, str | float]
CURVE = "Robust accuracy by radius, with the interval at every point; the dotted line is the radius of this evaluation."
BROKEN = "Image, attacked image, perturbation. The perturbation is scaled to full contrast: red adds, blue takes away."


@dataclass(frozen=True)
class Content:
    """What the page shows, in plain rows and in the order of its fields. figures: each a number in words, what it is
    of, and what is to be said about it. verdict: of the audit, without findings. curve: None where there is one radius
    alone. facts: the provenance.
    """

    title: str
    lead: str
    figures: list[tuple[str, str, str]]
    findings: list[dict[str, Any]]
    verdict: str
    audited: bool
    attacks: list[Row]
    curve: drawings.Decline | None
    solver: list[Row]
    pictures: Gallery
    facts: dict[str, str]
    footer: str


def render(content: Content) -> str:
    """The page as text."""
    page = Page(content.title, content.lead)
    page.boxes(content.figures)
    page.note("In brackets: the 95 % interval of Clopper and Pearson.")

    # Whether the figures can be believed stands before how they came about.
    page.heading("The audit")
    add_findings(page, content.findings, content.verdict, good=content.audited)

    page.heading("Attacks")
    page.table(content.attacks)
    page.note("Each attack saw what the ones above it left standing. Calls count whole batches.")

    _add_rest(page, content)
    if content.facts:
        page.heading("Where it comes from")
        page.facts(content.facts)
    return page.render(content.footer)


def add_findings(page: Page, findings: list[dict[str, Any]], verdict: str, *, good: bool) -> None:
    """What the audit says; its verdict where there is no finding, which is no good news where there was no audit."""
    if verdict:
        page.notice("good" if good else "warning", verdict)
    for finding in findings:
        page.notice(finding["severity"], finding["sentence"], code=finding["name"])


def _add_rest(page: Page, content: Content) -> None:
    """What only some evaluations have."""
    if content.curve is not None:
        page.heading("Robust accuracy by radius")
        page.picture(drawings.decline(content.curve), CURVE, paper=True)
    if content.solver:
        page.heading("The solver")
        page.table(content.solver)
    if content.pictures.clean:
        page.heading("Broken samples")
        page.picture(drawings.broken(content.pictures), BROKEN, paper=True)
