"""Autocast: first steps low, last ones exact, and no sample hears of its neighbours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from helpers import gap
from jiio import stages
from jiio.stages import SHARE

DRAWS = torch.Generator().manual_seed(0)
# Factors of the contraction, from quick to slow, so that samples are through with the low precision at other steps.
RATES = torch.tensor([0.2, 0.5, 0.8, 0.9, 0.95])
X = torch.randn(5, 6, generator=DRAWS)
Z = torch.zeros(5, 6)


class Rounding:
    """z <- rate cos(z) + x coordinate by coordinate, in bfloat16 where autocast is on; every sample has its own rate.

    Row by row the same bits whatever else is in the batch, as no product of matrices would be.
    """

    def __init__(self, rates: Tensor) -> None:
        self.rates, self.low, self.full = rates[:, None], 0, 0

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        lowered = torch.is_autocast_enabled("cpu")
        self.low, self.full = self.low + lowered, self.full + (not lowered)
        z = z.bfloat16().float() if lowered else z
        out = self.rates * torch.cos(z) + x
        return out.bfloat16().float() if lowered else out


def objective(z: Tensor, x: Tensor) -> Tensor:
    return (z - 0.5).square().sum(1) + 0.1 * x.square().sum(1)


def solved(rows: slice, kind: str, **settings: Any) -> jiio.Solution:
    cell, how = Rounding(RATES[rows]), {"on_failure": "ignore", "adjoint": jiio.Detached(), **settings}
    with torch.autocast("cpu", torch.bfloat16):
        if kind == "equilibrium":
            return jiio.equilibrium(cell, X[rows], Z[rows], **how)
        return jiio.solve(jiio.Problem(cell, objective, jiio.L2Ball(1.0, center=X[rows])), X[rows], Z[rows], **how)


@pytest.mark.parametrize("kind", ["equilibrium", "joint"])
@pytest.mark.parametrize("max_steps", [100, 12])
def test_a_sample_is_what_it_is_alone(kind: str, max_steps: int) -> None:
    """To the last bit, those included that run out of steps."""
    how: dict[str, Any] = {"max_steps": max_steps}
    if max_steps == 12:  # far from enough, so that every step counts
        how["tolerance"] = jiio.Tolerance(0.0, 1e-9)
    together = solved(slice(None), kind, **how)
    assert max_steps == 12 or len(set(together.steps.tolist())) > 1
    for i in range(5):
        alone = solved(slice(i, i + 1), kind, **how)
        for name in ("z", "x", "status", "steps", "residual"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[i]), (name, i)


def test_a_solve_ends_exactly_and_begins_cheaply() -> None:
    cell = Rounding(RATES)
    with torch.autocast("cpu", torch.bfloat16):
        found = jiio.equilibrium(cell, X, Z)
    exact = jiio.equilibrium(Rounding(RATES), X, Z)
    assert bool(found.converged.all()) and gap(found.z, exact.z) < 1e-3
    assert cell.low >= 2 and cell.full >= 2 and found.evaluations.cell <= 1.3 * exact.evaluations.cell + 1
    assert float((RATES[:, None] * torch.cos(found.z) + X - found.z).abs().max()) < 1e-3  # not a bfloat16 one


def test_the_low_precision_has_a_share_of_the_steps() -> None:
    """A cell that never comes to rest in bfloat16 leaves the rest of its steps to float32."""

    def restless(z: Tensor, x: Tensor) -> Tensor:
        calls.append(torch.is_autocast_enabled("cpu"))
        return 0.5 * z + x + (1e-1 / len(calls) * torch.randn(z.shape, generator=DRAWS) if calls[-1] else 0.0)

    calls: list[bool] = []
    with torch.autocast("cpu", torch.bfloat16):
        found = jiio.equilibrium(restless, X, Z, max_steps=30)
    assert bool(found.converged.all()) and sum(calls) <= 30 // SHARE + 1
    assert gap(found.z, 2 * X) < 1e-3


def test_few_steps_are_exact_ones_and_a_loose_tolerance_needs_none() -> None:
    cell = Rounding(RATES)
    with torch.autocast("cpu", torch.bfloat16):
        jiio.equilibrium(cell, X, Z, max_steps=stages.FEWEST - 1, on_failure="ignore", adjoint=jiio.Detached())
        assert cell.low == 0
        jiio.equilibrium(cell, X, Z, tolerance=jiio.Tolerance(0.0, 0.05), adjoint=jiio.Detached())
        assert cell.low > 0 and cell.full == stages.FEWEST - 1


def test_a_watched_solve_counts_its_steps_on_and_stops_in_either_stage() -> None:
    for last in (1, 8):
        seen: list[int] = []

        def watch(step: int, z: Any, x: Any, value: Tensor, seen: list[int] = seen, last: int = last) -> bool:
            seen.append(step)
            return step == last

        problem = jiio.Problem(Rounding(RATES), objective)
        with torch.autocast("cpu", torch.bfloat16):
            found = jiio.solve(problem, X, Z, callback=watch, trace=True, on_failure="ignore")
        assert seen == list(range(last + 1)) and bool((found.status == int(jiio.Status.STOPPED)).any())
        assert found.trace is not None and len(found.trace.residual) == last + 1
