"""The cost of the joint iteration beside the nested loop: calls of the network until the objective is reached."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import jiio
from jiio.tasks.frame import drawings as figures
from jiio.tasks.solving.nested import nested

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
        runs = {}
        for rule in (jiio.AdamStep, jiio.GradientStep):
            for rate in RATES:
                runs[rule.__name__, rate] = nested(
                    problem,
                    x0,
                    rule=rule(rate),
                    outer_steps=120,
                    tolerance=jiio.Tolerance(1e-5, 1e-3),
                    trace=True,
                )
        laps = {
            key: Lap(
                f"nested, {key[0]}, rate {key[1]:g}",
                [v.calls for v in run.visits],
                self.verified([v.x for v in run.visits]),
            )
            for key, run in runs.items()
        }
        every = torch.cat([self.joint.values, *(lap.values for lap in laps.values())])
        self.best = every.amin(0)
        self.laps = []
        for rule in ("AdamStep", "GradientStep"):
            keys = [key for key in laps if key[0] == rule]
            chosen = min(keys, key=lambda key: (_last(laps[key].finish(self.best)), float(laps[key].values[-1].mean())))
            self.laps.append((laps[chosen], runs[chosen]))

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
        joint = self.residual
        lap, run = self.laps[0]
        assert run.trace is not None
        staircase = run.trace.residual.nanmedian(1).values
        limit = max(self.joint.calls)  # the same stretch of calls as the joint panel
        colours = figures.COLOURS
        left = [
            figures.Curve(name, self.joint.calls, joint[:, i].tolist(), colours[name])
            for i, name in enumerate(("z", "mu", "x"))
        ]
        near = [(k, c) for k, c in enumerate(run.trace.calls.tolist()) if c <= limit]
        middle = [
            figures.Curve(name, [c for _, c in near], [float(staircase[k, i]) for k, _ in near], colours[name])
            for i, name in enumerate(("z", "mu", "x"))
        ]
        gap = [figures.Curve("joint", self.joint.calls, self.gap(self.joint), colours["z"])]
        for (other, _), colour in zip(self.laps, (colours["mu"], colours["x"]), strict=True):
            gap.append(figures.Curve(other.name, other.calls, self.gap(other), colour, dashed=True))
        panels = [
            ("Joint", "RMS residual", left),
            ("Nested (" + lap.name.removeprefix("nested, ") + ")", "RMS residual", middle),
            ("Objective", "relative distance to the best", gap),
        ]
        return figures.plot(panels, "evaluations + VJPs")

    def gap(self, lap: Lap) -> list[float]:
        return ((lap.values - self.best) / self.best.abs()).mean(1).clamp_min(1e-7).tolist()


def _last(value: float) -> float:
    return value if value == value else float("inf")
