"""A classifier attacked: the perturbation of the joint solve as it grows, beside that of PGD at equal cost.

Both climb the cross-entropy in the same ball from the same untouched pictures. PGD solves the network and its adjoint
for every step, from the last state on: to the end, or, the strongest baseline for its price, by a few loose steps of
either. Its length of a step is the best of a grid, chosen after the fact. What is shown at a point is what a fresh
solve says of it, which nobody is charged for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import jiio
from jiio import attacks
from jiio.tasks.classify.data import load_labelled
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame import checkpoint, drawings
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.solving.nested import nested

RADIUS = 1.0  # L2
STEPS = 50  # of the joint solve
OUTER = 12  # of PGD
RATES = (0.1, 0.25, 0.5, 1.0)  # lengths of its step, in radii
SHOWN = 6
STRONGER = 3.0  # how much stronger than it is a perturbation is shown
BUDGETS = (0, 8, 12, 16, 20, 26, 32, 40, 50, 64, 80, 100)  # evaluations + VJPs of a batch
JOINT, PGD, HASTY = "joint (jiio)", "PGD", "PGD, hasty solves"
COLOURS = {JOINT: "#0b6e99", PGD: "#c2571a", HASTY: "#3a7d44"}
# Relative tolerance and most steps of PGD's inner solves; the second are those of PGD(warm=True, tolerance=3e-2).
INNER = {PGD: (1e-3, 200), HASTY: (3e-2, 8)}


@dataclass(frozen=True, eq=False)
class Attempt:
    """Points x (B, 1, H, W) of an attack after so many calls, and the margins (B,) there; above 0 is misclassified."""

    calls: list[int]
    points: list[Tensor]
    margins: list[Tensor]

    def at(self, calls: int) -> int | None:
        """The last point that was reached for so many calls; None before the first."""
        paid = [k for k, spent in enumerate(self.calls) if spent <= calls]
        return paid[-1] if paid else None

    def broken(self, calls: int) -> int:
        """How many pictures are misclassified for so many calls."""
        k = self.at(calls)
        return 0 if k is None else int((self.margins[k] > 0).sum())

    def first(self, count: float) -> int | None:
        """The calls after which at least so many stay misclassified."""
        counts = [int((margin > 0).sum()) for margin in self.margins]
        stays = [calls for k, calls in enumerate(self.calls) if min(counts[k:]) >= count]
        return stays[0] if stays else None


class Attack:
    """The shipped classifier, those of its test pictures that it gets right, and both ways from there."""

    def __init__(self, device: torch.device) -> None:
        weights = checkpoint.load(shipped("weights", "classify-faces", "weights", ".safetensors"))
        assert isinstance(weights.config, ClassifyConfig)
        data, self.model = load_labelled(weights.config.data), Classify.trained(weights).to(device)
        images, labels = data.test.to(device), data.test_labels.to(device)
        with torch.no_grad():
            right = self.model(images).argmax(1) == labels
        self.images, self.labels = images[right], labels[right]

        # One problem for both: a large cross-entropy inside ball and bounds.
        ball = attacks.ThreatModel("l2", RADIUS).prox(self.images)
        self.problem = attacks.Target(self.model).problem(self._objective, ball)
        joint = self.joint()
        wanted = int((joint.margins[-1] > 0).sum())
        self.ways = {JOINT: joint} | {name: self.pgd(*inner, wanted) for name, inner in INNER.items()}
        ends = self.ways[JOINT].margins[-1]
        self.shown = ends.argsort(descending=True)[:SHOWN]  # the pictures that move furthest

    def _objective(self, scores: Tensor) -> Tensor:
        return -F.cross_entropy(scores, self.labels, reduction="none")

    def joint(self) -> Attempt:
        """Every iterate of one joint solve on its defaults; two evaluations and two VJPs measured its scale."""
        options = {"adjoint": jiio.Detached(), "on_failure": "ignore", "trace": "points"}
        done = jiio.solve(self.problem, self.images, max_steps=STEPS, **options)
        assert done.trace is not None
        calls = [4 + 2 * k for k in range(len(done.trace.x))]
        return self.judged(calls, done.trace.x)

    def pgd(self, rtol: float, most: int, wanted: int) -> Attempt:
        """The nested loop at its best rate: the fewest calls until so many as are wanted stay broken.

        rtol, most: relative tolerance and most steps of the inner solves.
        """
        settled = jiio.Tolerance(1e-5, 1e-3)
        how: dict[str, Any] = {"tolerance": jiio.Tolerance(1e-5, rtol), "outer_tolerance": settled, "max_inner": most}
        ways = []
        for rate in RATES:
            rule = jiio.NormalizedStep(rate * RADIUS)
            run = nested(self.problem, self.images, rule=rule, outer_steps=OUTER, **how)
            ways.append(self.judged([v.calls for v in run.visits], [v.x for v in run.visits]))
        return min(ways, key=lambda way: way.first(wanted) or float("inf"))

    @torch.no_grad()
    def judged(self, calls: list[int], points: list[Tensor]) -> Attempt:
        """The margins of points by fresh solves."""
        return Attempt(calls, points, [attacks.margin(self.model(x), self.labels) for x in points])

    @property
    def least(self) -> int:
        """How many pictures every way breaks in the end."""
        return min(int((way.margins[-1] > 0).sum()) for way in self.ways.values())

    def rows(self) -> list[dict[str, str | float]]:
        """A line for each: what it broke for so many calls, and what it paid for as many as all of them break."""
        least = self.least
        table: list[dict[str, str | float]] = []
        for name, way in self.ways.items():
            row: dict[str, str | float] = {"attack": name}
            row |= {f"broken by {calls} calls": float(way.broken(calls)) for calls in (16, 32, 64, 100)}
            row[f"calls until {least} of {len(self.images)}"] = float(way.first(least) or "nan")
            table.append(row)
        return table

    def plot(self) -> bytes:
        """Margins and broken pictures against what was paid."""
        margins, counts = [], []
        for name, way in self.ways.items():
            settings = {"colour": COLOURS[name], "dashed": name != JOINT}
            calls = [spent for spent in range(BUDGETS[-1] + 1) if way.at(spent) is not None]
            median = [float(way.margins[way.at(c) or 0].median()) for c in calls]  # a staircase: nothing comes between
            margins.append(drawings.Curve(name, calls, median, **settings))
            counts.append(drawings.Curve(name, calls, [float(way.broken(c)) for c in calls], **settings))
        panels = [
            ("median margin of the wrong class", "score", margins),
            (f"pictures of {len(self.images)} misclassified", "pictures", counts),
        ]
        return drawings.plot(panels, "evaluations + VJPs", log=False)

    def sheet(self, name: str, calls: int) -> Tensor:
        """(S, 1, 2 H, W): pictures after so many calls, and below each what was added."""
        way = self.ways[name]
        k = way.at(calls)
        x = self.images if k is None else way.points[k]
        change = 0.5 + STRONGER * (x - self.images)
        return torch.cat([x, change.clamp(0, 1)], 2)[self.shown]

    def gif(self) -> bytes:
        """For every budget the pictures of the joint solve and of the cheaper PGD, what was added, and what broke."""
        frames, captions = [], []
        for calls in BUDGETS:
            frames.append(torch.cat([self.sheet(JOINT, calls), self.sheet(HASTY, calls)], 2))
            broken = ", ".join(f"{name} {way.broken(calls)}" for name, way in self.ways.items())
            captions.append(f"{calls:3d} calls; of {len(self.images)} broken: {broken}")
        return drawings.moving(frames, captions, scale=4, milliseconds=500)
