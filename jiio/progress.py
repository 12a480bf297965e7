"""Progress: what is known of every sample during a solve, and how a point is judged.

A sample is CONVERGED when its residual meets the tolerance at a point and again at the image of that point: after the
first success the next point is the plain image F(v), so that what is returned is a value of the map (exactly
feasible, exactly sparse), and its residual was measured there.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .best import BestPoints
from .looks import free
from .operators import Point, select
from .solution import Status, Tolerance

GROWTH = 1e2  # residual over the best so far at which a sample goes back to its best point
RUNAWAY = 1e3  # size of the state over that at the best point, likewise: relative residuals hide a flight to infinity
PATIENCE = 15  # steps without a smaller residual or objective after which a sample takes shorter steps from where it is
STILL = 5  # of those, after which a residual at the floor of the arithmetic is as small as it gets
RETRIES = 8  # times a sample may go back before it is given up


@torch.no_grad()
def merit_of(point: Point, tolerance: Tolerance) -> Tensor:
    """(B,) largest residual over its tolerance; at most 1 means converged; NaN and infinity stay what they are."""
    allowed = tolerance.atol + tolerance.rtol * point.scale
    return (point.residual / allowed.clamp_min(torch.finfo(allowed.dtype).tiny)).amax(1)


@torch.no_grad()
def judged(point: Point, tolerance: Tolerance) -> Tensor:
    """(B,) int8 of :class:`Status` where no step is taken: CONVERGED where every block meets the tolerance."""
    merit = merit_of(point, tolerance)
    finite = torch.isfinite(merit) & torch.isfinite(point.image.sum(1))
    status = torch.where(merit <= 1, int(Status.CONVERGED), int(Status.MAX_STEPS))
    return torch.where(finite, status, int(Status.NONFINITE)).to(torch.int8)


class Tally(NamedTuple):
    """How many samples each mask has; None on a device where a look would wait."""

    finite: int | None = None
    met: int | None = None
    lost: int | None = None
    stalled: int | None = None
    running: int | None = None

    @classmethod
    def of(cls, progress: Progress) -> Tally:
        """All of them at one look."""
        if not free(progress.running):
            return cls()
        masks = torch.stack([getattr(progress, name) for name in cls._fields])
        return cls(*masks.sum(1).tolist())


@dataclass
class Progress:
    """Per sample (B,), unless it says otherwise; renewed by :meth:`judge` at every point."""

    tolerance: Tolerance
    floor: float  # of the arithmetic, relative

    # The best point so far, its image, and what was measured there; None before the first.
    points: BestPoints
    best: Point | None
    merit: Tensor  # the smallest
    lowest: Tensor  # the smallest objective

    # How long it has run, how long without progress, and how often it had to go back.
    steps: Tensor
    since: Tensor
    retries: Tensor

    status: Tensor  # int8
    running: Tensor

    # Of the latest point: usable, within the tolerance, gone astray, without progress for too long.
    finite: Tensor
    met: Tensor
    lost: Tensor
    stalled: Tensor
    unverified: Tensor  # converged, and its units not looked at since
    counts: Tally = Tally()  # of the five masks

    @classmethod
    def start(cls, v: Tensor, tolerance: Tolerance, floor: float = 0.0) -> Progress:
        """Before the first evaluation, at v (B, D)."""
        batch = v.shape[0]
        infinite = torch.full((batch,), float("inf"), dtype=v.dtype, device=v.device)
        zero = torch.zeros(batch, dtype=torch.int64, device=v.device)
        no = torch.zeros(batch, dtype=torch.bool, device=v.device)
        status = torch.full((batch,), int(Status.RUNNING), dtype=torch.int8, device=v.device)
        counts, latest = (zero, zero, zero), (~no, no, no, no, no)
        return cls(tolerance, floor, BestPoints(v), None, infinite, infinite, *counts, status, ~no, *latest)

    @property
    def best_v(self) -> Tensor:
        """(B, D), the best point so far."""
        return self.points.v

    @property
    def best_image(self) -> Tensor:
        """(B, D), its image."""
        return self.points.image

    def rows(self, index: Tensor) -> Progress:
        """What is known of the samples ``index`` (k,)."""
        changes: dict[str, Any] = {}
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Tensor):
                changes[entry.name] = value.index_select(0, index)
        best = None if self.best is None else self.best.rows(index)
        few = dataclasses.replace(self, points=self.points.rows(index), best=best, **changes)
        few.counts = Tally.of(few)
        return few

    def judge(self, v: Tensor, point: Point) -> None:
        """Take in what was measured at v (B, D)."""
        self.steps = self.steps + self.running
        merit = merit_of(point, self.tolerance)
        self.finite = torch.isfinite(merit) & torch.isfinite(point.image.detach().sum(1))
        merit = merit.masked_fill(~self.finite, float("inf"))

        within = self._within(point, merit)
        better = self._keep(v, point, merit, within)
        self.stalled = self._stalled(point, better)

        # Twice within the tolerance: at a point, and at the image of it.
        met = self.running & within
        done = met & self.met
        self.status = self.status.masked_fill(done, int(Status.CONVERGED))
        self.unverified = self.unverified | done
        self.met = met
        self.lost = self._lost(point, merit)
        self.running = self.status == int(Status.RUNNING)
        self.counts = Tally.of(self)

    def allowance(self, point: Point) -> Tensor:
        """(B,) RMS that the tolerance, or the arithmetic, leaves the state."""
        return self.tolerance.atol + max(self.tolerance.rtol, self.floor) * point.scale[:, 0]

    def stop(self) -> None:
        """End all that still run."""
        self.status = self.status.masked_fill(self.running, int(Status.STOPPED))
        self.running = torch.zeros_like(self.running)
        self.counts = Tally.of(self)

    def resume(self, mask: Tensor, v: Tensor) -> None:
        """Let the samples in ``mask`` (B,) run on from v (B, D), in units in which nothing was judged yet."""
        self.status = self.status.masked_fill(mask, int(Status.RUNNING))
        self.running = self.running | mask
        self.merit = self.merit.masked_fill(mask, float("inf"))
        self.met, self.since = self.met & ~mask, self.since.masked_fill(mask, 0)
        self.points.replace(select(mask, v, self.best_v), select(mask, v, self.best_image))
        self.counts = Tally.of(self)

    def _within(self, point: Point, merit: Tensor) -> Tensor:
        """Who meets the tolerance, or, where nothing has become smaller for a while, what the arithmetic allows."""
        within = merit <= 1
        # Of an equilibrium half a spacing of numbers as coarse as these is nothing.
        if point.value is None and self.floor / 4 > max(self.tolerance.rtol, 1e-3):
            within = within | (point.residual.amax(1) <= self.floor / 4 * point.scale.amax(1))
        still = self.since >= STILL
        if self.floor == 0.0 or (free(still) and not bool(still.any())):
            return within
        # Relative to the largest block: all are in the same units.
        lowest = point.residual.amax(1) <= self.floor * point.scale.amax(1)
        return within | (still & lowest & self.finite)

    def _keep(self, v: Tensor, point: Point, merit: Tensor, within: Tensor) -> Tensor:
        """Remember the point where it is the best one; returns where it is."""
        if self.best is None:
            self.merit, self.best = merit, point
            self.points.replace(v, select(self.finite, point.image, v))
            self.status = self.status.masked_fill(~self.finite, int(Status.NONFINITE))
            self.running = self.finite
            return torch.ones_like(self.finite)
        # At convergence the confirmed image is wanted even where its residual is a hair above the point before it.
        better = self.running & ((merit < self.merit) | (self.met & within))
        self.best = _mixed(better, point, self.best)
        self.merit = select(better, merit, self.merit)
        self.points.take(better, v, point.image)
        return better

    def _stalled(self, point: Point, better: Tensor) -> Tensor:
        """Who has made no progress for too long; the count then begins anew.

        Neither measure alone tells: a residual grows on the way out of a saddle, an objective falls while z still lags.
        """
        if point.value is not None:
            value = point.value.detach()
            lower = value < self.lowest
            self.lowest = select(lower, value, self.lowest)
            better = better | lower
        since = (self.since + 1).masked_fill(better, 0)
        stalled = self.running & (since >= PATIENCE)
        self.since = since.masked_fill(stalled, 0)
        return stalled

    def _lost(self, point: Point, merit: Tensor) -> Tensor:
        """Who has to go back to the best point; who did so too often is given up."""
        assert self.best is not None
        away = point.scale[:, 0] > RUNAWAY * (1 + self.best.scale[:, 0])
        lost = self.running & (~self.finite | away | (merit > GROWTH * self.merit.clamp_min(1.0)))
        if free(lost) and not bool(lost.any()):
            return lost
        self.retries = self.retries + lost
        spent = lost & (self.retries > RETRIES)
        verdict = torch.where(self.finite, int(Status.DIVERGED), int(Status.NONFINITE)).to(self.status.dtype)
        self.status = torch.where(spent, verdict, self.status)
        return lost


def _mixed(better: Tensor, new: Point, old: Point) -> Point:
    """What was measured at the better of two points, sample by sample; the image is the new one's."""
    count = int(better.sum()) if free(better) else None
    return Point(
        image=new.image,
        residual=select(better, new.residual, old.residual, count),
        scale=select(better, new.scale, old.scale, count),
        value=None if new.value is None or old.value is None else select(better, new.value, old.value, count),
        gradient=None
        if new.gradient is None or old.gradient is None
        else select(better, new.gradient, old.gradient, count),
    )
