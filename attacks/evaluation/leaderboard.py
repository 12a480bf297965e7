"""Several reports on one threat and the same data, side by side: the most robust model first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from jiio.checks import ArgumentTypeError, check_instance, fail
from jiio.outputs.atomic import write_whole
from jiio.outputs.page import Page
from jiio.outputs.tables import table

from .page import Row, add_findings
from .report import Report


@dataclass(frozen=True)
class Leaderboard:
    """reports: of :func:`jiio.attacks.evaluate`, two at least, under one threat and with one number of samples."""

    reports: tuple[Report, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.reports, (tuple, list)) or len(self.reports) < 2:
            fail("reports", "two reports or more", self.reports, error=ArgumentTypeError)
        for report in self.reports:
            check_instance("reports", report, Report)
        first = self.reports[0]
        for other in self.reports[1:]:
            if other.threat != first.threat or other.samples["y"] != first.samples["y"]:
                came = f"{first.model['name']} and {other.model['name']} under different ones"
                fail("reports", "reports on one threat and the same samples", came)

    @property
    def ranked(self) -> list[Report]:
        """The most robust first; one that is not to be trusted stands behind all others."""
        return sorted(self.reports, key=lambda report: (report.trusted, report.robust.count), reverse=True)

    def rows(self) -> list[Row]:
        """A line for each model."""
        return [
            {
                "model": report.model["name"],
                "clean": str(report.clean),
                "robust": str(report.robust),
                "no equilibrium": str(report.unconverged),
                "parameters": f"{report.model['parameters']:,}",
                "audit": judgement(report),
            }
            for report in self.ranked
        ]

    def __str__(self) -> str:
        told = [f"{report.model['name']}\n{report.audit_lines()}" for report in self.ranked]
        return "\n\n".join([f"{self._lead()}:", table(self.rows(), indent="  "), *told])

    def to_json(self) -> str:
        """All reports, the most robust model first."""
        return json.dumps({"models": [json.loads(report.to_json()) for report in self.ranked]}, indent=1)

    def to_html(self) -> str:
        """A self-contained page: the table, then what the audit and the attacks say of each model."""
        page = Page(f"{len(self.reports)} models under attack", f"{self._lead()}, the most robust first.")
        page.table(self.rows())
        page.note(
            "In brackets: the 95 % interval of Clopper and Pearson. A model whose figure cannot be believed is last."
        )
        for report in self.ranked:
            page.heading(report.model["name"])
            add_findings(page, report.findings, report.verdict, good=report.audited)
            page.table(report.attack_rows())
            page.facts(report.facts())
        return page.render(f"Seed {self.reports[0].seed}.")

    def save(self, path: str | Path) -> None:
        """Write ``path`` as a page (.html) or as JSON (any other name); it appears whole or not at all."""
        target = Path(path)
        write_whole(target, (self.to_html() if target.suffix == ".html" else self.to_json()).encode())

    def _lead(self) -> str:
        return f"{self.reports[0].reach()}, {self.reports[0].total} samples"


def judgement(report: Report) -> str:
    """What the audit says, in a few words."""
    if not report.audited:
        return "none"
    errors = sum(finding["severity"] == "error" for finding in report.findings)
    if errors:
        return f"NOT TO BE TRUSTED, {errors} error{'s' if errors > 1 else ''}"
    return f"{len(report.findings)} warnings" if report.findings else "passed"
