"""What is left of a segmentation: plain numbers, as JSON, as a table for a terminal, and as a page."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jiio.outputs.atomic import write_whole
from jiio.outputs.page import Page
from jiio.outputs.seeds import generator
from jiio.outputs.tables import table

from ..evaluation.page import Row, add_findings
from ..evaluation.provenance import in_words

DRAWS = 1000


@dataclass(frozen=True)
class PixelShares:
    """accuracy: share of the pixels that are right. iou: mean over the classes of intersection over union. Each with
    the 95 % percentile interval of a bootstrap over images.
    """

    accuracy: float
    accuracy_within: tuple[float, float]
    iou: float
    iou_within: tuple[float, float]

    @classmethod
    def of(cls, counts: Tensor) -> PixelShares:
        """counts: (N, 3, K) per image and class: pixels of the class told as such, told, and there."""
        chosen = torch.randint(len(counts), (DRAWS, len(counts)), generator=generator(0, "pixels"))
        drawn = counts.double()[chosen].sum(1)
        whole, found = counts.double().sum(0), []
        for statistic in (_accuracy, _iou):
            low, high = torch.quantile(statistic(drawn), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
            found += [float(statistic(whole)), (low, high)]
        return cls(*found)


def _accuracy(counts: Tensor) -> Tensor:
    """(...,) from (..., 3, K)."""
    return counts[..., 0, :].sum(-1) / counts[..., 2, :].sum(-1).clamp_min(1)


def _iou(counts: Tensor) -> Tensor:
    """(...,): the mean over the classes that are there or were told."""
    both, told, there = counts.unbind(-2)
    return (both / (told + there - both)).nanmean(-1)


@dataclass(frozen=True)
class DenseReport:
    """The result of :func:`jiio.attacks.evaluate_dense`.

    model: its name. threat: norm, radius and bounds. seed: of the draws. images, pixels: how many; pixels without a
    class are not counted. clean, robust: shares of pixels, untouched and in the worst image that any attack found for
    each image. attacks: per attack, what it leaves by itself, and its calls. unconverged: images whose equilibrium was
    not reached, clean or attacked; their pixels count as wrong. findings: of the audit, errors first. provenance:
    weights, data, versions and date. worst: the images themselves, None where they differ in size.
    """

    model: dict[str, Any]
    threat: dict[str, Any]
    seed: int
    images: int
    pixels: int
    clean: PixelShares
    robust: PixelShares
    attacks: list[dict[str, Any]]
    unconverged: int
    findings: list[dict[str, Any]]
    provenance: dict[str, Any] = field(default_factory=dict)
    worst: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def trusted(self) -> bool:
        """Whether the audit found no error."""
        return not any(finding["severity"] == "error" for finding in self.findings)

    def to_json(self) -> str:
        """All but the images."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "worst"}
        plain = {name: asdict(v) if isinstance(v, PixelShares) else v for name, v in content.items()}
        return json.dumps(plain, indent=1, sort_keys=True)

    def shares(self) -> list[tuple[str, str, str]]:
        """The figures that matter: a number, what it is of, its interval."""
        found = []
        for name, share in (("clean", self.clean), ("robust", self.robust)):
            for value, within, what in (
                (share.accuracy, share.accuracy_within, "pixel accuracy"),
                (share.iou, share.iou_within, "mean IoU"),
            ):
                found.append((f"{value:.1%}", f"{name} {what}", f"[{within[0]:.1%}, {within[1]:.1%}]"))
        return found

    def rows(self) -> list[Row]:
        """A line for each attack."""
        rows: list[Row] = []
        for line in self.attacks:
            left: Row = {"pixel accuracy": f"{line['accuracy']:.1%}", "mean IoU": f"{line['iou']:.1%}"}
            rows.append({"attack": line["name"], **left, **{k: f"{v:,}" for k, v in line["cost"].items()}})
        return rows

    def reach(self) -> str:
        """The threat in words."""
        return f"{self.threat['norm']} radius {self.threat['radius']:g}, {self.images} images"

    @property
    def verdict(self) -> str:
        """What is to be said of the audit where it has found nothing."""
        return "" if self.findings else "Nothing speaks against these figures."

    def remarks(self) -> str:
        """What has to be said beside the figures."""
        told = "Robust figures are of the worst image found for each image, by its wrong pixels."
        if self.unconverged:
            told += f" {self.unconverged} images whose equilibrium was not reached count as wrong in all their pixels."
        return told

    def __str__(self) -> str:
        warned = "" if self.trusted else "   NOT TO BE TRUSTED, see below"
        head = [f"{self.model['name']}, {self.reach()}"]
        head += [f"  {name:<22} {number} {within}{warned}" for number, name, within in self.shares()]
        told = [f"  {f['severity']}: {f['sentence']} ({f['name']})" for f in self.findings] or [f"  {self.verdict}"]
        audit = "\n".join(["The audit:", *told])
        return "\n\n".join(["\n".join(head), table(self.rows(), indent="  "), self.remarks(), audit])

    def to_html(self) -> str:
        """A self-contained page."""
        page = Page(f"{self.model['name']} under attack", f"{self.reach()}, {self.pixels:,} pixels.")
        page.boxes(self.shares())
        page.note(f"{self.remarks()} In brackets: the 95 % interval of a bootstrap over images.")
        page.heading("The audit")
        add_findings(page, self.findings, self.verdict, good=True)
        page.heading("Attacks")
        page.table(self.rows())
        page.facts(in_words(self.provenance))
        return page.render(f"Seed {self.seed}.")

    def save(self, path: str | Path) -> None:
        """Write ``path`` as a page (.html) or as JSON (any other name); it appears whole or not at all."""
        target = Path(path)
        write_whole(target, (self.to_html() if target.suffix == ".html" else self.to_json()).encode())
