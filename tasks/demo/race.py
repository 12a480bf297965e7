"""The cost of the joint iteration beside the nested loop: calls of the network until the objective is reached."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import jiio
from jiio.tasks.frame import drawings
from jiio.tasks.solving.nested import NestedRun, nested

RULES = (jiio.AdamStep, jiio.GradientStep)
RATES = (0.03, 0.1, 0.3, 1.0)
WITHIN = 0.01
OURS = "joint (jiio)"


@dataclass(frozen=True)
class Lap:
    """One method: calls so far and the verified objective (B,) at each visited input."""

    name: str
    calls: list[int]
    values: Tensor  # (T, B)

    def finish(self, best: Tensor) -> float:
        """Calls until every sample is within reach of the best and stays there; NaN if that never happens."""
        good = (self.values <= best + WITHIN * best.abs()).all(1)
        stays = torch.flip(torch.cummin(torch.flip(good.int(), (0,)), 0).values, (0,)).bool()
        return float(self.calls[int(stays.int().argmax())]) if bool(stays.any()) else float("nan")


class Race:
    """Joint against nested on the same faces, objectives measured at tightly re-solved equilibria that nobody is
    charged for.
    """

    def __init__(self, problem: jiio.Problem, x0: Tensor, solution: jiio.Solution) -> None:
        trace = solution.trace
        assert trace is not None
        self.problem, self.residual = problem, trace.residual.nanmedian(1).values
        calls = [4 + 2 * k for k in range(len(trace.x))]  # two evaluations and two VJPs measure the scale
        self.joint = Lap(OURS, calls, self.verified(trace.x))
        runs = {(rule.__name__, rate): self.nested(x0, rule(rate)) for rule in RULES for rate in RATES}
        laps = {key: self.lap(key, run) for key, run in runs.items()}

        # The best that anybody found, sample by sample; then the best rate of each rule.
        every = torch.cat([self.joint.values, *(lap.values for lap in laps.values())])
        self.best = every.amin(0)  # (B,)
        self.laps = []
        for rule in RULES:
            keys = [key for key in laps if key[0] == rule.__name__]
            chosen = min(keys, key=lambda key: (_last(laps[key].finish(self.best)), float(laps[key].values[-1].mean())))
            self.laps.append((laps[chosen], runs[chosen]))

    def nested(self, x0: Tensor, rule: jiio.AbstractRule) -> NestedRun:
        """A run of the nested loop, every visited input kept."""
        tolerance = jiio.Tolerance(1e-5, 1e-3)
        return nested(self.problem, x0, rule=rule, outer_steps=120, tolerance=tolerance, trace=True)

    def lap(self, key: tuple[str, float], run: NestedRun) -> Lap:
        """The cost of a run, under the name of its rule and rate."""
        name = f"nested, {key[0]}, rate {key[1]:g}"
        return Lap(name, [v.calls for v in run.visits], self.verified([v.x for v in run.visits]))

    def verified(self, inputs: list[Tensor]) -> Tensor:
        """(T, B) objective at the equilibrium of each input."""
        z, values = None, []
        for x in inputs:
            found = jiio.equilibrium(
                self.problem.cell,
                x,
                z,
                tolerance=jiio.Tolerance(1e-7, 1e-5),
                adjoint=jiio.Detached(),
                on_failure="ignore",
            )
            z = found.z
            values.append(self.problem.total(z, x, len(x)))
        return torch.stack(values)

    def rows(self) -> list[dict[str, str | float]]:
        """A line per method; a method that never arrived says how far it was given to go, and has no ratio."""
        ours = self.joint.finish(self.best)
        table: list[dict[str, str | float]] = [{"method": OURS, "calls": ours, "calls / ours": 1.0}]
        for lap, _ in self.laps:
            calls = lap.finish(self.best)
            if calls == calls:
                table.append({"method": lap.name, "calls": calls, "calls / ours": calls / ours})
            else:
                table.append({"method": lap.name, "calls": f"more than {lap.calls[-1]}"})
        return table

    def plot(self) -> bytes:
        """Residuals of both over the calls, and how far the objective is from the best."""
        lap, run = self.laps[0]
        assert run.trace is not None
        limit = max(self.joint.calls)  # the same stretch of calls as the joint panel
        near = [c for c in run.trace.calls.tolist() if c <= limit]  # calls only grow, so these are the first
        staircase = run.trace.residual.nanmedian(1).values[: len(near)]
        left = _blocks(self.joint.calls, self.residual)
        middle = _blocks(near, staircase)

        # Both nested rules beside the joint iteration, in the colours of the blocks.
        gap = [drawings.Curve("joint", self.joint.calls, self.gap(self.joint), drawings.COLOURS["z"])]
        for (other, _), name in zip(self.laps, ("mu", "x"), strict=True):
            gap.append(drawings.Curve(other.name, other.calls, self.gap(other), drawings.COLOURS[name], dashed=True))
        panels = [
            ("Joint", "RMS residual", left),
            ("Nested (" + lap.name.removeprefix("nested, ") + ")", "RMS residual", middle),
            ("Objective", "relative distance to the best", gap),
        ]
        return drawings.plot(panels, "evaluations + VJPs")

    def gap(self, lap: Lap) -> list[float]:
        return ((lap.values - self.best) / self.best.abs()).mean(1).clamp_min(1e-7).tolist()


def _blocks(calls: list[int], residual: Tensor) -> list[drawings.Curve]:
    """A curve for each block of unknowns; residual: (T, 3)."""
    return [
        drawings.Curve(name, calls, residual[:, i].tolist(), drawings.COLOURS[name])
        for i, name in enumerate(("z", "mu", "x"))
    ]


def _last(value: float) -> float:
    return value if value == value else float("inf")
