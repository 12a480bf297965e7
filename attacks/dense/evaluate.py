"""The one call for dense prediction: which pixels are still right in the worst image of each ball."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from jiio.checks import ArgumentTypeError, check_instance, check_integer, fail
from jiio.outputs import seeds
from jiio.outputs.digest import of_model

from ..base import rows
from ..evaluation.asked import check_answers, opened, pairs, place, the_threat
from ..evaluation.evidence import Finding
from ..evaluation.provenance import Digest, check_about, now, versions
from ..methods.apgd import APGD
from ..methods.gradient import PGD
from ..modes import ordinary, outside_inference
from ..target import Prediction
from ..threat import ThreatModel
from .attack import BalancedPixels, PixelAttack, PixelCrossEntropy, wrong_pixels
from .audit import audited
from .report import DenseReport, PixelShares
from .target import DenseTarget, counted


def standard_pixels() -> list[PixelAttack]:
    """Both losses, by fixed steps and by Auto-PGD."""
    return [
        PixelAttack(PGD(steps=40), BalancedPixels()),
        PixelAttack(APGD(steps=60), PixelCrossEntropy()),
    ]


def evaluate_dense(
    model: nn.Module | DenseTarget,
    batches: Iterable[tuple[Tensor, Tensor]],
    threat: ThreatModel | str,
    radius: float | Tensor | None = None,
    attacks: Sequence[PixelAttack] | None = None,
    *,
    bounds: tuple[float | Tensor, float | Tensor] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    about: Mapping[str, str] | None = None,
) -> DenseReport:
    """Pixel accuracy and mean IoU, clean and under attack, of a model that gives every pixel a class.

    model: x (B, C, H, W) -> scores (B, classes, H, W), see :class:`DenseTarget`. batches: pairs of images and masks
    (B, H, W), in which 255 and what is below 0 mean no class. threat, radius, bounds: as for
    :func:`jiio.attacks.evaluate`. attacks: each is run on every image, and the worst image of all is kept (None: SegPGD
    and Auto-PGD on the cross-entropy). seed: of everything random. progress, about: as there.

    Raises ArgumentError or ArgumentTypeError for unusable arguments, CellError where the model breaks its contract.
    """
    target = model if isinstance(model, DenseTarget) else DenseTarget(model)
    if isinstance(threat, ThreatModel) and radius is not None:
        fail("radius", "none beside a ThreatModel, which has one", radius)
    ball, _ = the_threat(threat, radius, None, bounds)
    chosen, words = _check_attacks(attacks), check_about(about or {})
    check_integer("seed", seed, 0)

    # What the first batch shows to be wrong is said before anything is attacked.
    first, whole = opened(pairs(batches, place(target)))
    target.check(*first, ball)
    check_answers(target, first)
    books = _Books(target, ball, chosen, seed)
    with outside_inference():
        for x, y in whole:
            target.check(x, y, ball)
            books.take(ordinary(x), ordinary(y).long())
            if progress is not None:
                progress(books.so_far())
        with target.held():
            findings = audited(target, ordinary(first[0]), ordinary(first[1]).long(), ball)
    return books.report(words, findings)


def _check_attacks(attacks: Any) -> list[PixelAttack]:
    if attacks is None:
        return standard_pixels()
    if isinstance(attacks, PixelAttack) or not isinstance(attacks, Sequence) or not attacks:
        fail("attacks", "a list of PixelAttack", attacks, "For example [PixelAttack(PGD())].", ArgumentTypeError)
    return [check_instance("attacks", one, PixelAttack) for one in attacks]


@dataclass
class _Books:
    """What is known of the images up to now. clean, robust: (B, 3, K) counts per batch. alone: the same per attack."""

    target: DenseTarget
    threat: ThreatModel
    attacks: list[PixelAttack]
    seed: int
    clean: list[Tensor] = field(default_factory=list)
    robust: list[Tensor] = field(default_factory=list)
    worst: list[Tensor] = field(default_factory=list)
    alone: dict[int, list[Tensor]] = field(default_factory=dict)
    costs: dict[int, dict[str, int]] = field(default_factory=dict)
    missed: int = 0
    none: int = 0
    digest: Digest = field(default_factory=Digest)

    def take(self, x: Tensor, y: Tensor) -> None:
        """Attack one more batch."""
        # One calm model for everything that is compared.
        with self.target.held():
            untouched = self.target.predict(x)
            classes = untouched.logits.shape[1]
            if bool((y[counted(y)] >= classes).any()):
                came = f"labels up to {int(y[counted(y)].max())}"
                fail("y", f"labels from 0 to {classes - 1}, or 255 for none", came)
            worst, label, settled = x.clone(), _told(untouched), untouched.converged.clone()
            self.clean.append(_counts(label, y, classes))
            self.none += int((untouched.label < 0).sum())

            # Each attack sees every image: the worst of an image may be found by any of them.
            most = _wrong(untouched, y)
            for number, attack in enumerate(self.attacks):
                found, after = self._one(number, attack, x, y, len(self.worst))
                self.alone.setdefault(number, []).append(_counts(_told(after), y, classes))
                wrong = _wrong(after, y)
                worse = wrong > most
                worst = torch.where(rows(worse, x), found, worst)
                label = torch.where(rows(worse, y), _told(after), label)
                most, settled = torch.maximum(wrong, most), settled & after.converged
        self.robust.append(_counts(label, y, classes))
        self.worst.append(worst.cpu())
        self.missed += int((~settled).sum())
        self.digest.add(x, y)

    def _one(self, number: int, attack: PixelAttack, x: Tensor, y: Tensor, batch: int) -> tuple[Tensor, Prediction]:
        """What an attack finds, and the prediction there."""
        before = self.target.counts.plain()
        draws = seeds.generator(self.seed, "pixels", batch, number)
        found = attack.run(self.target, x, y, self.threat, draws)
        after = self.target.predict(found)
        self.none += int((after.label < 0).sum())

        cost = self.costs.setdefault(number, dict.fromkeys(before, 0))
        for name, count in self.target.counts.plain().items():
            cost[name] += count - before[name]
        return found, after

    def so_far(self) -> str:
        """A line of news after a batch."""
        clean, robust = (PixelShares.of(torch.cat(part)) for part in (self.clean, self.robust))
        images = sum(len(part) for part in self.worst)
        return f"{images} images: pixel accuracy {clean.accuracy:.1%}, {robust.accuracy:.1%} under attack so far"

    def report(self, words: dict[str, str], findings: list[Finding]) -> DenseReport:
        """What all batches together say."""
        name = words.get("model", type(self.target.model).__name__)
        # Beside the worst of all, what each attack leaves by itself.
        lines = []
        for number, attack in enumerate(self.attacks):
            left = PixelShares.of(torch.cat(self.alone[number]))
            lines.append({"name": attack.name, "accuracy": left.accuracy, "iou": left.iou, "cost": self.costs[number]})
        if self.none:
            findings = [*findings, _no_numbers(self.none)]

        counts = torch.cat(self.robust)
        if not int(counts[:, 2].sum()):
            fail("batches", "at least one pixel with a class", "masks without any")
        told = {"weights": of_model(self.target.model), "data": f"{words.get('data', '')} digest {self.digest}".strip()}
        told |= {"versions": versions(), "date": now(), **{k: v for k, v in words.items() if k == "command"}}
        return DenseReport(
            model={"name": name},
            threat=self.threat.describe(),
            seed=self.seed,
            images=len(counts),
            pixels=int(counts[:, 2].sum()),
            clean=PixelShares.of(torch.cat(self.clean)),
            robust=PixelShares.of(counts),
            attacks=lines,
            unconverged=self.missed,
            findings=[asdict(finding) for finding in sorted(findings, key=lambda f: f.severity)],
            provenance=told,
            worst=torch.cat(self.worst) if len({part.shape[1:] for part in self.worst}) == 1 else None,
        )


def _told(prediction: Prediction) -> Tensor:
    """(B, H, W): the classes that were told, -1 without scores that are numbers or without an equilibrium."""
    return torch.where(rows(prediction.converged, prediction.label), prediction.label, -1)


def _wrong(prediction: Prediction, y: Tensor) -> Tensor:
    """(B,) how many pixels are wrong."""
    wrong = wrong_pixels(prediction.logits, y) | (counted(y) & rows(~prediction.converged, y))
    return wrong.flatten(1).sum(1)


def _counts(label: Tensor, y: Tensor, classes: int) -> Tensor:
    """(B, 3, K): pixels of each class that were told as such, that were told, and that are there."""
    told = torch.where(counted(y), label, -1)
    both = torch.where(told == y, told, -1)
    there = torch.where(counted(y), y, -1)
    each = [torch.stack([(part == k).flatten(1).sum(1) for k in range(classes)], 1) for part in (both, told, there)]
    return torch.stack(each, 1).cpu()


def _no_numbers(count: int) -> Finding:
    return Finding(
        "nan-scores",
        "error",
        f"The scores of {count} pixels, clean and attacked, are NaN or infinite. They count as wrong: look for an "
        "overflow, a logarithm or a division.",
        {"pixels": float(count)},
    )
