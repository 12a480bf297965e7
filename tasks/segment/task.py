"""Segmentation and classification by one model with two heads on one equilibrium (Bai, Koltun and Kolter 2020).

The state of a multiscale cell holds every resolution, so the same z* tells the class of the image and the class of each
of its pixels. Both cross-entropies are one loss, and one adjoint solve differentiates them.
"""

from __future__ import annotations

import colorsys
import copy
import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jiio
from jiio import attacks
from jiio.checks import check_instance, check_number
from jiio.models import EquilibriumModel, SceneScores
from jiio.outputs.shares import ratio
from jiio.tasks.frame import drawings
from jiio.tasks.frame.checkpoint import Checkpoint
from jiio.tasks.frame.config import RunConfig
from jiio.tasks.frame.dealing import dealt
from jiio.tasks.frame.machine import check_device
from jiio.tasks.frame.task import AbstractTask, Figure

from .data import SegmentDataConfig, image_labels, load_segmented, segmented_batch
from .folders import IGNORED
from .metrics import ColourTable, bootstrap, confusion, intersection_over_union, mean_iou, pixel_accuracy
from .networks import SegmentNetworkConfig

Row = dict[str, str | float]
CHUNK = 100  # images per batch of an evaluation
SHOWN = 10  # on the sheet of pictures


@dataclass(frozen=True)
class SegmentConfig(RunConfig):
    """A training of a network that segments and classifies.

    Args:
        data: images with masks
        model: the network under both heads
        weight: of the cross-entropy of the class of the image, beside 1 for that of the pixels; 0 leaves it out
    """

    task: str = "segment"
    output: str = "runs/segment"
    data: SegmentDataConfig = field(default_factory=SegmentDataConfig)
    model: SegmentNetworkConfig = field(default_factory=SegmentNetworkConfig)
    weight: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("weight", self.weight, 0.0)
        self.model.plan(self.data)


@dataclass(frozen=True)
class Seen:
    """What a network said about images: its scores, and of an equilibrium its solution."""

    scores: SceneScores
    solution: jiio.Solution | None

    @property
    def converged(self) -> Tensor:
        """(B,), ones for a network without an equilibrium."""
        ones = torch.ones(len(self.scores.image))
        return ones if self.solution is None else self.solution.converged.float().cpu()


def see(model: nn.Module, x: Tensor) -> Seen:
    """Both heads at one equilibrium."""
    if not isinstance(model, EquilibriumModel):
        return Seen(model(x), None)
    solution = model.solve(x)
    return Seen(model.head(solution.z), solution)


def cross_entropy(scores: Tensor, true: Tensor) -> Tensor:
    """The mean over what has a class, in the whole batch of a step; zero where nothing has: scores (B, K) or
    (B, K, H, W), classes (B,) or (B, H, W).
    """
    known = true != IGNORED
    total = F.cross_entropy(scores, true, ignore_index=IGNORED, reduction="sum")
    return ratio(total, known.sum(), known[0].numel())


class Segment(AbstractTask):
    """The task ``segment`` of a training configuration."""

    PICTURES = ("segments.png",)

    def __init__(self, config: SegmentConfig, *, data_root: Path | None = None) -> None:
        self.config, self.device = config, check_device(config.device)
        self.data = load_segmented(config.data, data_root=data_root)
        self.classes = len(config.data.names)

    def model(self) -> nn.Module:
        return self.config.model.build(self.config.data)

    def examples(self) -> Tensor:
        return image_labels(self.data.train_masks, self.classes)

    def part(self, chosen: Tensor, config: SegmentConfig) -> Segment:
        mine = copy.copy(self)
        mine.config = config
        train, masks = self.data.train[chosen], self.data.train_masks[chosen]
        mine.data = dataclasses.replace(self.data, train=train, train_masks=masks)
        return mine

    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, Figure]]:
        """Cross-entropy of the pixels, plus ``weight`` times that of the images."""
        batch = segmented_batch(self.data, self.config.data, seed=self.config.seed, step=step)
        x, masks, labels = (part.to(self.device) for part in batch)
        seen = see(model, x.to(next(model.parameters()).dtype))
        pixels, image = cross_entropy(seen.scores.pixels, masks), cross_entropy(seen.scores.image, labels)
        told = {
            "epoch": step * len(x) / len(self.data.train),
            "pixel_cross_entropy": float(pixels.detach()),
            "image_cross_entropy": float(image.detach()),
        }
        return pixels + self.config.weight * image, told | self.figures(seen, masks, labels)

    def figures(self, seen: Seen, masks: Tensor, labels: Tensor) -> dict[str, Figure]:
        """For the log: shares that are right, of pixels (B, H, W) and of images (B,), and what the solve took."""
        counts = confusion(seen.scores.pixels.argmax(1), masks, self.classes).sum(0)
        told: dict[str, Figure] = {
            "pixel_accuracy": float(pixel_accuracy(counts)),
            "mean_iou": float(mean_iou(counts)),
            "accuracy": float((seen.scores.image.argmax(1) == labels).float().mean()),
            "converged": float(seen.converged.mean()),
        }
        if seen.solution is not None:
            made = seen.solution.evaluations
            told |= {"evaluations": float(made.cell), "vjps": lambda: float(made.adjoint_vjp)}
        return told

    def evaluate(self, model: nn.Module) -> list[Row]:
        """The network, what is found without one, and the network class by class, on the test images."""
        masks, labels = self.data.test_masks.long(), image_labels(self.data.test_masks, self.classes)
        begin = time.perf_counter()
        pixels, image, converged, steps = self.predict(model)
        ours = self.row("test", pixels, image, masks, labels)
        if isinstance(model, EquilibriumModel):
            ours |= {"converged": float(converged.mean()), "evaluations": float(steps.mean())}
        ours |= {"seconds": time.perf_counter() - begin}

        each = intersection_over_union(confusion(pixels, masks, self.classes).sum(0)).tolist()
        by_class: list[Row] = [{"images": name, "IoU": v} for name, v in zip(self.config.data.names, each, strict=True)]
        return [ours, *self.simple(masks, labels), *by_class]

    def simple(self, masks: Tensor, labels: Tensor) -> list[Row]:
        """What is found without a network: always the most frequent class, and the class that a colour has most."""
        colours = ColourTable(self.data.train, self.data.train_masks, self.classes)
        common = image_labels(self.data.train_masks, self.classes).mode().values
        always = torch.full_like(masks, colours.majority)
        coloured = colours.predict(self.data.test)
        return [
            self.row("most frequent class", always, common.expand_as(labels), masks, labels),
            self.row("colour alone", coloured, image_labels(coloured, self.classes), masks, labels),
        ]

    def row(self, name: str, pixels: Tensor, image: Tensor, masks: Tensor, labels: Tensor) -> Row:
        """Figures of predicted masks (N, H, W) and classes (N,), with their 95 % intervals over the images."""
        counts = confusion(pixels, masks, self.classes)
        low, high = bootstrap(counts, mean_iou)
        known = labels != IGNORED
        right = int((image == labels)[known].sum())
        bounds = attacks.interval(right, int(known.sum()))
        return {
            "images": name,
            "pixel accuracy": float(pixel_accuracy(counts.sum(0))),
            "mean IoU": float(mean_iou(counts.sum(0))),
            "mean IoU, 95 %": f"{low:.3f} to {high:.3f}",
            "accuracy": right / int(known.sum()),
            "accuracy, 95 %": f"{bounds[0]:.3f} to {bounds[1]:.3f}",
        }

    @classmethod
    def trained(cls, checkpoint: Checkpoint) -> nn.Module:
        """The network of a checkpoint, x (B, C, H, W) -> :class:`SceneScores`, in evaluation mode."""
        config = check_instance("checkpoint.config", checkpoint.config, SegmentConfig)
        return checkpoint.network(lambda: config.model.build(config.data)).eval()

    def masked(self) -> tuple[Tensor, Tensor]:
        return self.data.test.float() / 255.0, self.data.test_masks

    @torch.no_grad()
    def predict(self, model: nn.Module, count: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the first test images: masks (N, H, W), classes (N,), converged (N,), steps (N,)."""

        def told(part: Tensor) -> tuple[Tensor, ...]:
            seen = see(model, (part.float() / 255.0).to(self.device))
            steps = torch.zeros(len(part)) if seen.solution is None else seen.solution.steps.float().cpu()
            return seen.scores.pixels.argmax(1).cpu(), seen.scores.image.argmax(1).cpu(), seen.converged, steps

        masks, labels, converged, steps = zip(*dealt(self.data.test[:count].split(CHUNK), told), strict=True)
        return torch.cat(masks), torch.cat(labels), torch.cat(converged), torch.cat(steps)

    def pictures(self, model: nn.Module) -> dict[str, bytes]:
        """A sheet of test images, their masks, the predicted ones, and where these are wrong (white)."""
        predicted = self.predict(model, SHOWN)[0]
        images, true = self.data.test[:SHOWN].float() / 255.0, self.data.test_masks[:SHOWN].long()
        wrong = ((predicted != true) & (true != IGNORED)).float()[:, None]
        rows = {
            "image": images.expand(-1, 3, -1, -1),
            "true mask": painted(true, self.classes),
            "predicted": painted(predicted, self.classes),
            "wrong": wrong.expand(-1, 3, -1, -1),
        }
        return {"segments.png": drawings.sheet(rows, scale=max(1, 96 // max(self.config.data.size)))}


def painted(masks: Tensor, classes: int) -> Tensor:
    """(N, 3, H, W): a colour for every class, nearly black for class 0, grey where there is none."""
    hues = (((k - 1) * 0.61803) % 1.0 for k in range(1, classes))  # the golden section keeps neighbours apart
    colours = [(0.08, 0.08, 0.1), *(colorsys.hsv_to_rgb(hue, 0.75, 0.95) for hue in hues), (0.5, 0.5, 0.5)]
    return torch.tensor(colours)[masks.clamp(max=classes)].permute(0, 3, 1, 2)
