"""The figures of a report, each a function of what was kept of the batches, under the name of the field it fills.

As nothing else goes in, an evaluation that was interrupted and went on gives the very same report.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from jiio.outputs.digest import of_model

from .adversarial import joined
from .asked import place
from .gallery import Gallery
from .provenance import versions
from .records import ROBUST, UNCONVERGED, WORDS, WRONG, Entry
from .report import Report, Share
from .terms import Terms


@dataclass(frozen=True)
class Books:
    """All that a report is made of. entries: of every batch, at least one, with its images in ``originals``. findings:
    of the audit, as plain data; None without one. words: of the caller, the digest of the data, the date.
    """

    terms: Terms
    entries: list[Entry]
    originals: list[Tensor]
    findings: list[dict[str, Any]] | None
    pictures: Gallery
    words: dict[str, str]

    @cached_property
    def whole(self) -> dict[str, Tensor]:
        """name -> (N, ...) over all batches; without the images, which differ in shape from one batch to another."""
        names = [name for name in self.entries[0].tensors if name != "worst"]
        return {name: torch.cat([entry.tensors[name] for entry in self.entries]) for name in names}

    @property
    def total(self) -> int:
        """How many samples there are."""
        return len(self.whole["status"])

    def share(self, mask: Tensor) -> Share:
        """Of the samples that a mask (N,) picks."""
        return Share.of(int(mask.sum()), self.total)


def report(books: Books) -> Report:
    """The whole of it."""
    status, target = books.whole["status"], books.terms.target
    settings = {name: repr(value) for name, value in target.options.items()}
    parameters = sum(p.numel() for p in target.model.parameters())
    name = books.words.get("model", type(target.model).__name__)

    return Report(
        model={"name": name, "parameters": parameters, "settings": settings},
        threat=books.terms.threat.describe(),
        seed=books.terms.seed,
        total=books.total,
        clean=books.share(status != WRONG),
        robust=books.share(status == ROBUST),
        unconverged=int((status == UNCONVERGED).sum()),
        attacks=attacks(books),
        curve=curve(books),
        solver=solver(books),
        certified=certified(books),
        findings=books.findings or [],
        samples=samples(books),
        pictures=books.pictures,
        audited=books.findings is not None,
        provenance=provenance(books),
        adversarial=joined(books.originals, [entry.tensors for entry in books.entries], books.terms.threat.describe()),
    )


def provenance(books: Books) -> dict[str, Any]:
    """All that it takes to make the report again."""
    terms, words = books.terms, books.words
    told = {
        "model": words.get("model", type(terms.target.model).__name__),
        "weights": of_model(terms.target.model),
        "data": " ".join((*([words["data"]] if "data" in words else []), f"digest {words['digest']}")),
        "suite": words["suite"],
        "seed": terms.seed,
        "device": str(place(terms.target) or "cpu"),
        "versions": versions(),
        "date": words["date"],
    }
    return told | ({"command": words["command"]} if "command" in words else {})


def attacks(books: Books) -> list[dict[str, Any]]:
    """Per attack: how many samples it saw and broke, and what it called, over all batches."""
    lines = []
    for attack in books.terms.attacks:
        tallies = [entry.words["tally"][attack.name] for entry in books.entries]
        cost: dict[str, int] = {}
        for name in sorted({name for tally in tallies for name in tally["cost"]}):
            cost[name] = sum(tally["cost"].get(name, 0) for tally in tallies)
        tried, broken = (sum(tally[name] for tally in tallies) for name in ("tried", "broken"))
        lines.append({"name": attack.name, "tried": tried, "broken": broken, "cost": cost})
    return lines


def curve(books: Books) -> list[dict[str, Any]]:
    """Per multiple of the radius: the robust share."""
    fell = books.whole["fell"]
    converged = books.whole["status"] != UNCONVERGED  # what did not converge is not robust at any radius
    return [
        {"factor": factor, "robust": asdict(books.share((fell > level) & converged))}
        for level, factor in enumerate(books.terms.factors)
    ]


def solver(books: Books) -> dict[str, dict[str, float]]:
    """What the solver did at clean and attacked points; empty for a plain network."""
    if not books.terms.target.implicit:
        return {}
    found = {}
    for where, prefix in (("clean", "clean_"), ("attacked", "")):
        converged, steps, residual = (
            books.whole[f"{prefix}{name}"].double() for name in ("converged", "steps", "residual")
        )

        # The worst beside the typical one: a mean hides a single sample that never settled.
        found[where] = {
            "converged": converged.mean().item(),
            "mean steps": steps.mean().item(),
            "most steps": steps.max().item(),
            "median residual": residual.median().item(),
            "worst residual": residual.max().item(),
        }
    return found


def certified(books: Books) -> Share | None:
    """The share with a certificate for this threat; None where no certificate is known."""
    return books.share(books.whole["certified"]) if "certified" in books.whole else None


def samples(books: Books) -> dict[str, list[Any]]:
    """What happened to each sample."""
    names, whole = [attack.name for attack in books.terms.attacks], books.whole
    numbers = ["y", "clean_label", "label", "margin", "distance"]
    if "certified" in whole:
        numbers.append("certified_radius")
    return {
        "status": [WORDS[s] for s in whole["status"].tolist()],
        "broken_by": [names[i] if i >= 0 else None for i in whole["by"].tolist()],
        **{name: _plain(whole[name]) for name in numbers},
    }


def _plain(values: Tensor) -> list[Any]:
    """Numbers as JSON knows them: what is not finite becomes None."""
    if not values.is_floating_point():
        return values.tolist()
    return [float(f"{v:.6g}") if abs(v) < float("inf") else None for v in values.tolist()]
