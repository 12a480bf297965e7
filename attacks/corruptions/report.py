"""What corruptions leave of a classifier: plain numbers, as JSON, as a table for a terminal, and as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from jiio.checks import CheckpointError, fail
from jiio.outputs.atomic import write_whole
from jiio.outputs.page import Page
from jiio.outputs.tables import table

from ..evaluation.page import Row, add_findings
from ..evaluation.provenance import in_words
from ..evaluation.report import Share
from .families import FAMILIES, SEVERITIES

KIND = "corruptions"
FROST = "frost is a pane drawn here, not the photographs of the published set"


@dataclass(frozen=True)
class CorruptionReport:
    """The result of :func:`jiio.attacks.evaluate_corruptions`.

    model: its name. seed: of the draws. total: pictures. clean: how many of them are misclassified untouched. errors:
    family -> how many at each of the five severities. unconverged: answers without an equilibrium, which count as
    errors. findings: whether the answers are a function of the picture. provenance: model, weights, data, versions and
    date. base: name, clean and errors of the baseline, where there is one.
    """

    model: dict[str, Any]
    seed: int
    total: int
    clean: int
    errors: dict[str, list[int]]
    unconverged: int = 0
    findings: list[dict[str, Any]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] | None = None

    # -- figures

    @property
    def mean_error(self) -> float:
        """Over severities, then families."""
        return sum(self.family_error(name) for name in self.errors) / len(self.errors)

    def family_error(self, name: str) -> float:
        """The mean over the severities of the family of this name."""
        return sum(self.errors[name]) / (len(SEVERITIES) * self.total)

    def ratio(self, name: str) -> float | None:
        """CE of the family of this name: its errors over those of the baseline, summed over severities; None where that
        has none.
        """
        if self.base is None:
            return None
        below = sum(self.base["errors"][name])
        return sum(self.errors[name]) / below if below else None

    @property
    def mce(self) -> float | None:
        """The mean of the CEs (Hendrycks and Dietterich 2019, section 3); None without a baseline that errs."""
        return _mean([self.ratio(name) for name in self.errors])

    @property
    def relative_mce(self) -> float | None:
        """The same of what corruption adds to the clean error; None where it adds nothing to that of the baseline."""
        if self.base is None:
            return None
        ratios = []
        for name, counts in self.errors.items():
            own, other = (sum(c) - len(SEVERITIES) * clean for c, clean in ((counts, self.clean), self._other(name)))
            ratios.append(own / other if other > 0 else None)
        return _mean(ratios)

    def _other(self, name: str) -> tuple[list[int], int]:
        assert self.base is not None
        return self.base["errors"][name], self.base["clean"]

    @property
    def trusted(self) -> bool:
        """Whether the audit found no error."""
        return not any(finding["severity"] == "error" for finding in self.findings)

    @property
    def verdict(self) -> str:
        """What is to be said of the audit where it has found nothing."""
        return "" if self.findings else "The answers hang on the picture alone."

    # -- baselines

    def against(self, baseline: CorruptionReport) -> CorruptionReport:
        """The same, counted against a baseline: the report of another model on the same pictures."""
        baseline.check_serves(list(self.errors), self.seed)
        digests = [one.provenance.get("data", "").rpartition("digest ")[2] for one in (self, baseline)]
        if baseline.total != self.total or digests[0] != digests[1]:
            came = f"one on {baseline.total} pictures, which are others"
            fail("baseline", f"a report on the same {self.total} pictures", came)
        errors = {name: baseline.errors[name] for name in self.errors}
        return replace(self, base={"name": baseline.model["name"], "clean": baseline.clean, "errors": errors})

    def check_serves(self, families: Sequence[str], seed: int) -> None:
        """Raise unless it has all these families, drawn from this seed."""
        missing = [name for name in families if name not in self.errors]
        if missing:
            fail("baseline", f"a report that has {', '.join(missing)}", "one without")
        if self.seed != seed:
            fail("baseline", f"a report with seed {seed}", f"one with seed {self.seed}")

    @classmethod
    def read(cls, path: str | Path) -> CorruptionReport:
        """What :meth:`save` wrote to ``path`` as JSON. Errors: CheckpointError."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content.pop("kind") != KIND:
                raise ValueError
            found = cls(**{name: content[name] for name in cls.__dataclass_fields__})
            sound = found.total > 0 and all(
                name in FAMILIES and len(c) == len(SEVERITIES) and all(0 <= n <= found.total for n in c)
                for name, c in found.errors.items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{path} is no report of corruptions that was written as JSON.") from error
        if not sound or not found.errors:
            raise CheckpointError(f"{path} is a report of corruptions that was changed.")
        return found

    # -- words

    def to_json(self) -> str:
        """All of it, with the figures that follow from the counts."""
        figures = {
            "kind": KIND,
            "mean_error": self.mean_error,
            "mce": self.mce,
            "relative_mce": self.relative_mce,
            "clean_error": asdict(Share.of(self.clean, self.total)),
        }
        return json.dumps(asdict(self) | figures, indent=1, sort_keys=True)

    def rows(self) -> list[Row]:
        """A line for each family."""
        found: list[Row] = []
        for name, counts in self.errors.items():
            row: Row = {"corruption": name, "kind": FAMILIES[name].kind}
            row |= {f"severity {s}": f"{count / self.total:.1%}" for s, count in zip(SEVERITIES, counts, strict=True)}
            row["mean"] = f"{self.family_error(name):.1%}"
            if self.base is not None:
                ratio = self.ratio(name)
                row["CE"] = "" if ratio is None else f"{ratio:.1%}"
            found.append(row)
        return found

    def shares(self) -> list[tuple[str, str, str]]:
        """The figures that matter: a number, what it is of, a remark."""
        clean = Share.of(self.clean, self.total)
        found = [(f"{clean.share:.1%}", "clean error", clean.within)]
        found.append((f"{self.mean_error:.1%}", "mean error under corruption", f"{len(self.errors)} families"))
        if self.base is not None:
            for value, name in ((self.mce, "mCE"), (self.relative_mce, "relative mCE")):
                told = "not defined: it makes no errors there" if value is None else f"against {self.base['name']}"
                found.append(("" if value is None else f"{value:.1%}", name, told))
        return found

    def remarks(self) -> list[str]:
        """What has to be said beside the figures."""
        told = [] if self.base else ["No baseline: this is the mean error, not the mCE of published tables."]
        if "frost" in self.errors:
            told.append(f"{FROST[0].upper()}{FROST[1:]}.")
        if self.unconverged:
            told.append(f"{self.unconverged} answers without an equilibrium count as errors.")
        return told

    def __str__(self) -> str:
        head = [f"{self.model['name']} under common corruptions, {self.total} pictures"]
        warned = "" if self.trusted else "   NOT TO BE TRUSTED, see below"
        head += [f"  {name:<28} {number} {remark}{warned}" for number, name, remark in self.shares()]
        findings = [f"  {f['severity']}: {f['sentence']} ({f['name']})" for f in self.findings]
        blocks = ["\n".join(head), table(self.rows(), indent="  "), "\n".join(self.remarks())]
        return "\n\n".join(block for block in [*blocks, "\n".join(findings)] if block)

    def to_html(self) -> str:
        """A self-contained page."""
        page = Page(f"{self.model['name']} under common corruptions", f"{self.total} pictures, five severities each.")
        page.boxes(self.shares())
        page.note(" ".join(["In brackets: the 95 % interval of Clopper and Pearson.", *self.remarks()]))
        add_findings(page, self.findings, self.verdict, good=True)
        page.heading("Error by corruption and severity")
        page.table(self.rows())
        page.heading("Where it comes from")
        page.facts(in_words(self.provenance))
        return page.render(f"Seed {self.seed}.")

    def save(self, path: str | Path) -> None:
        """Write ``path`` as a page (.html) or as JSON (any other name); it appears whole or not at all."""
        target = Path(path)
        write_whole(target, (self.to_html() if target.suffix == ".html" else self.to_json()).encode())


def _mean(values: Sequence[float | None]) -> float | None:
    """None where a value is missing."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there and len(there) == len(values) else None
