"""What an evaluation found: plain numbers, as JSON, as a table for a terminal, and as a page (:mod:`.page`)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jiio.outputs.atomic import write_whole
from jiio.outputs.tables import table

from ..statistics import interval
from .adversarial import Adversarial, check_there
from .drawings import Decline
from .gallery import Gallery
from .page import Content, Row, render
from .provenance import in_words


@dataclass(frozen=True)
class Share:
    """A count of samples, its share of all, and the 95 % interval of Clopper and Pearson, from low to high."""

    count: int
    share: float
    low: float
    high: float

    @classmethod
    def of(cls, count: int, total: int) -> Share:
        low, high = interval(count, total)
        return cls(count, count / total, low, high)

    @property
    def within(self) -> str:
        """The interval in words."""
        return f"[{self.low:.1%}, {self.high:.1%}]"

    def __str__(self) -> str:
        return f"{self.share:.1%} {self.within}"


@dataclass(frozen=True)
class Report:
    """The result of :func:`jiio.attacks.evaluate`.

    model: name, sizes and settings. threat: norm, radius and bounds. seed: of the evaluation. total: samples. clean,
    robust: shares; robust are the samples that are classified rightly, resist every attack and whose equilibria
    were reached. unconverged: how many were counted apart because theirs were not. attacks: per attack, in the order
    they ran, how many samples it saw and broke, and its calls. curve: robust share by multiple of the radius. solver:
    statistics at clean and attacked points (empty for a plain network). certified: share of the samples with a
    certificate for this threat (None where none is known). findings: of the audit, errors first. samples: what happened
    to each. pictures: for the page alone. audited: whether there was an audit. provenance: model, weights, data,
    versions, device, seed, date and command. adversarial: the images themselves, None where they differ in size.
    """

    model: dict[str, Any]
    threat: dict[str, Any]
    seed: int
    total: int
    clean: Share
    robust: Share
    unconverged: int
    attacks: list[dict[str, Any]]
    curve: list[dict[str, Any]]
    solver: dict[str, dict[str, float]]
    certified: Share | None
    findings: list[dict[str, Any]]
    samples: dict[str, list[Any]]
    pictures: Gallery = field(default_factory=Gallery, repr=False, compare=False)
    audited: bool = True
    provenance: dict[str, Any] = field(default_factory=dict)
    adversarial: Adversarial | None = field(default=None, repr=False, compare=False)

    @property
    def trusted(self) -> bool:
        """Whether the audit found no error."""
        return not any(finding["severity"] == "error" for finding in self.findings)

    def to_json(self) -> str:
        """All but the images; the same text for the same evaluation, however often it was interrupted."""
        images = ("pictures", "adversarial")
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in images}
        content = {name: asdict(value) if isinstance(value, Share) else value for name, value in values.items()}
        return json.dumps(content, indent=1, sort_keys=True)

    def to_html(self) -> str:
        """A self-contained page with curves and pictures; needs matplotlib."""
        settings = ", ".join(f"{name} {value}" for name, value in self.model["settings"].items())
        return render(
            Content(
                title=f"{self.model['name']} under attack",
                lead=f"{self.reach()}, {self.total} samples, {self.model['parameters']:,} parameters.",
                figures=self._figures(),
                findings=self.findings,
                verdict=self.verdict,
                audited=self.audited,
                attacks=self.attack_rows(),
                curve=self._decline() if len(self.curve) > 1 else None,
                solver=self.solver_rows(),
                pictures=self.pictures,
                facts=self.facts(),
                footer=f"Seed {self.seed}. {settings}.",
            )
        )

    def reach(self) -> str:
        """The threat in words."""
        norm, radius = self.threat["norm"], self.threat["radius"]
        if isinstance(radius, float):
            return f"{norm} radius {radius:g}"
        if "sizes" in self.threat:
            return f"{norm}, radii {', '.join(f'{r:g}' for r in radius)}, {self._views()}"
        return f"{norm}, one radius per sample"

    def _views(self) -> str:
        """Whether the views are attacked together."""
        return "one per view" + (", one view at a time" if "views at once" in self.threat else "")

    def _figures(self) -> list[tuple[str, str, str]]:
        """The figures that matter: a number, what it is of, its interval."""
        shares = [("clean accuracy", self.clean), ("robust accuracy", self.robust), ("certified", self.certified)]
        figures = [(f"{share.share:.1%}", name, share.within) for name, share in shares if share is not None]
        if self.unconverged:
            figures.append((f"{self.unconverged}", "without equilibrium", "not counted as robust"))
        return figures

    def _decline(self) -> Decline:
        """The curve with the clean accuracy at radius 0, over radii where there is one for all samples."""
        radius = self.threat["radius"]
        plain = isinstance(radius, float)
        unit = radius if plain else 1.0
        return Decline(
            at=[0.0, *(point["factor"] * unit for point in self.curve)],
            shares=[asdict(self.clean), *(point["robust"] for point in self.curve)],
            unit=unit,
            axis=f"radius, {self.threat['norm']}" if plain else "multiple of the radius",
        )

    def save(self, path: str | Path) -> None:
        """Write ``path`` as a page (.html), as the adversarial images (.npz, see :meth:`Adversarial.save`) or as JSON
        (any other name); it appears whole or not at all.
        """
        target = Path(path)
        if target.suffix == ".npz":
            check_there(self.adversarial).save(target)
            return
        write_whole(target, (self.to_html() if target.suffix == ".html" else self.to_json()).encode())

    def __str__(self) -> str:
        blocks = [self._head(), table(self.attack_rows(), indent="  ")]
        if len(self.curve) > 1:
            blocks.append(table(self.curve_rows(), indent="  "))
        if self.solver:
            blocks.append(table(self.solver_rows(), indent="  "))
        blocks.append(f"The audit:\n{self.audit_lines()}")
        if self.provenance:
            facts = [f"  {name:<9} {value}" for name, value in self.facts().items()]
            blocks.append("\n".join(["Made from:", *facts]))
        return "\n\n".join(blocks)

    def audit_lines(self) -> str:
        """The findings of the audit, or that there are none."""
        told = [f"  {f['severity']}: {f['sentence']} ({f['name']})" for f in self.findings]
        return "\n".join(told or [f"  {self.verdict}"])

    @property
    def verdict(self) -> str:
        """What is to be said of the audit where it has found nothing."""
        if not self.audited:
            return "There was none: it is not known whether these figures can be believed."
        return "" if self.findings else "Nothing speaks against these figures."

    def facts(self) -> dict[str, str]:
        """The provenance in words, name by name."""
        return in_words(self.provenance)

    def _head(self) -> str:
        """Model, threat and the shares, as lines of text."""
        radius = self.threat["radius"]
        many = self._views() if "sizes" in self.threat else "one per sample"
        told = f"{radius:g}" if isinstance(radius, float) else many
        lines = [
            f"{self.model['name']}, {self.threat['norm']} radius {told}, {self.total} samples",
            f"  clean accuracy   {self.clean}",
            f"  robust accuracy  {self.robust}" + ("" if self.trusted else "   NOT TO BE TRUSTED, see below"),
        ]

        # What only some evaluations have.
        if self.certified is not None:
            lines.append(f"  certified        {self.certified}")
        if self.unconverged:
            lines.append(f"  no equilibrium   {self.unconverged} samples, counted apart and not as robust")
        return "\n".join(lines)

    # -- rows of the tables, for terminal and page

    def attack_rows(self) -> list[Row]:
        """Per attack: what it saw, broke and called."""
        rows: list[Row] = []
        for line in self.attacks:
            calls = {name: f"{line['cost'].get(name, 0):,}" for name in ("forward", "backward", "evaluations", "vjps")}
            rows.append({"attack": line["name"], "saw": str(line["tried"]), "broke": str(line["broken"]), **calls})
        return rows

    def curve_rows(self) -> list[Row]:
        """Per multiple of the radius: the robust share."""
        return [{"x radius": f"{p['factor']:g}", "robust": str(Share(**p["robust"]))} for p in self.curve]

    def solver_rows(self) -> list[Row]:
        """At clean and attacked points: what the solver did."""
        return [
            {"solver": where, **{name: f"{value:.3g}" for name, value in line.items()}}
            for where, line in self.solver.items()
        ]
