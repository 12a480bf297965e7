"""Several models under the same corruptions of the same pictures, side by side: the smallest error first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from jiio.checks import ArgumentTypeError, check_instance, fail
from jiio.outputs.atomic import write_whole
from jiio.outputs.page import Page
from jiio.outputs.tables import table

from ..evaluation.page import Row, add_findings
from ..evaluation.provenance import in_words
from .families import FAMILIES
from .report import CorruptionReport


@dataclass(frozen=True)
class CorruptionBoard:
    """reports: of :func:`jiio.attacks.evaluate_corruptions`, two at least, of the same families and pictures."""

    reports: tuple[CorruptionReport, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.reports, (tuple, list)) or len(self.reports) < 2:
            fail("reports", "two reports or more", self.reports, error=ArgumentTypeError)
        for report in self.reports:
            check_instance("reports", report, CorruptionReport)
        first = self.reports[0]
        for other in self.reports[1:]:
            if (other.total, other.seed, list(other.errors)) != (first.total, first.seed, list(first.errors)):
                came = f"{first.model['name']} and {other.model['name']} under different ones"
                fail("reports", "reports on the same corruptions of the same pictures", came)

    @property
    def ranked(self) -> list[CorruptionReport]:
        """The smallest mean error first; one that is not to be trusted stands behind all others."""
        return sorted(self.reports, key=lambda report: (not report.trusted, report.mean_error))

    def rows(self) -> list[Row]:
        """A line for each model."""
        kinds = list(dict.fromkeys(FAMILIES[name].kind for name in self.reports[0].errors))
        found: list[Row] = []
        for report in self.ranked:
            row: Row = {"model": report.model["name"], "clean": f"{report.clean / report.total:.1%}"}
            for kind in kinds:
                each = [report.family_error(name) for name in report.errors if FAMILIES[name].kind == kind]
                row[kind] = f"{sum(each) / len(each):.1%}"
            row["mean error"] = f"{report.mean_error:.1%}"
            if report.base is not None:
                row["mCE"] = "" if report.mce is None else f"{report.mce:.1%}"
            found.append(row | {"audit": "passed" if report.trusted else "NOT TO BE TRUSTED"})
        return found

    def __str__(self) -> str:
        return "\n\n".join([table(self.rows(), indent="  "), *(str(report) for report in self.ranked)])

    def to_json(self) -> str:
        """All reports, the smallest mean error first."""
        return json.dumps({"models": [json.loads(report.to_json()) for report in self.ranked]}, indent=1)

    def to_html(self) -> str:
        """A self-contained page: the table, then each model."""
        first = self.reports[0]
        page = Page(
            f"{len(self.reports)} models under common corruptions",
            f"Errors on {first.total} pictures, the smallest first.",
        )
        page.table(self.rows())
        page.note(" ".join(first.remarks()))
        for report in self.ranked:
            page.heading(report.model["name"])
            add_findings(page, report.findings, report.verdict, good=True)
            page.table(report.rows())
            page.facts(in_words(report.provenance))
        return page.render(f"Seed {first.seed}.")

    def save(self, path: str | Path) -> None:
        """Write ``path`` as a page (.html) or as JSON (any other name); it appears whole or not at all."""
        target = Path(path)
        write_whole(target, (self.to_html() if target.suffix == ".html" else self.to_json()).encode())
