"""How points are judged and kept, on points made by hand; and what the loop does with the judgement."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import jiio
from jiio.iterate import Recorder, iterate
from jiio.operators import EquilibriumMap, Point
from jiio.progress import PATIENCE, RETRIES, Progress
from jiio.solution import Status

DOUBLE = torch.float64
UNIT = jiio.Tolerance(1.0, 0.0)  # a residual of 1 is what is allowed
V = torch.zeros(1, 2, dtype=DOUBLE)


def point(residual: float, value: float | None = None, image: float = 1.0, scale: float = 1.0) -> Point:
    one = torch.ones(1, dtype=DOUBLE)
    told = None if value is None else value * one
    return Point(torch.full((1, 2), image, dtype=DOUBLE), residual * one[:, None], scale * one[:, None], told)


def after(*points: Point, floor: float = 0.0) -> Progress:
    """Judged one after the other, at v = 0, 1, 2, ..."""
    progress = Progress.start(V, UNIT, floor)
    for k, seen in enumerate(points):
        progress.judge(V + k, seen)
    return progress


@pytest.mark.parametrize(
    "residuals, status",
    [((0.5,), Status.RUNNING), ((0.5, 0.5), Status.CONVERGED), ((0.5, 2.0, 0.5), Status.RUNNING), ((2.0, 2.0), 0)],
)
def test_converged_is_confirmed_at_the_next_point(residuals: tuple[float, ...], status: int) -> None:
    progress = after(*(point(r) for r in residuals))
    assert int(progress.status[0]) == int(status) and bool(progress.running[0]) == (status == Status.RUNNING)


def test_the_best_point_is_kept_and_a_confirmed_one_even_if_a_hair_worse() -> None:
    assert after(point(5.0), point(3.0), point(4.0)).best_v.tolist() == [[1, 1]]
    progress = after(point(5.0), point(0.5, image=7.0), point(0.6, image=8.0))
    assert progress.best_v.tolist() == [[2, 2]] and progress.best_image.tolist() == [[8, 8]]
    assert progress.best is not None and float(progress.best.residual) == 0.6


def test_a_residual_that_explodes_goes_back_and_is_given_up_at_last() -> None:
    progress = after(point(2.0), point(1e3))
    assert progress.lost.tolist() == [True] and int(progress.status[0]) == Status.RUNNING
    assert not bool(after(point(2.0), point(100.0)).lost[0])
    assert bool(after(point(2.0), point(2.0, scale=1e4)).lost[0])  # a state that runs away
    assert int(after(point(2.0), *[point(1e3)] * RETRIES).status[0]) == Status.RUNNING
    assert int(after(point(2.0), *[point(1e3)] * (RETRIES + 1)).status[0]) == Status.DIVERGED
    nothing = float("nan")
    assert int(after(point(2.0), *[point(nothing)] * (RETRIES + 1)).status[0]) == Status.NONFINITE
    assert int(after(point(nothing)).status[0]) == Status.NONFINITE


def test_a_stall_is_where_neither_residual_nor_objective_falls() -> None:
    still = [point(2.0, 1.0)] * PATIENCE
    assert not bool(after(*still).stalled[0]) and bool(after(point(2.0, 1.0), *still).stalled[0])
    lower = [point(2.0, 1.0 - k) for k in range(PATIENCE + 1)]
    assert not bool(after(*lower).stalled[0])
    smaller = [point(30.0 - k, 1.0) for k in range(PATIENCE + 1)]
    assert not bool(after(*smaller).stalled[0])


def test_the_floor_of_the_arithmetic_is_for_who_stands_still() -> None:
    near = [point(2.0, scale=100.0)] * 9  # twice the tolerance, 2 % of the size
    assert int(after(*near, floor=0.03).status[0]) == Status.CONVERGED
    assert int(after(*near, floor=0.01).status[0]) == Status.RUNNING

    # Beside one that stands still, who is still falling is not done.
    beside = Progress.start(torch.zeros(2, 2, dtype=DOUBLE), UNIT, 0.03)
    for k in range(9):
        residual = torch.tensor([[2.0], [2.9 - 0.1 * k]], dtype=DOUBLE)
        beside.judge(torch.zeros(2, 2), Point(torch.ones(2, 2, dtype=DOUBLE), residual, 100 + 0 * residual))
    assert beside.status.tolist() == [Status.CONVERGED, Status.RUNNING]


def test_who_is_refused_runs_on_and_is_judged_anew() -> None:
    progress = after(point(0.5), point(0.5))
    progress.resume(torch.tensor([True]), V + 9)
    assert bool(progress.running[0]) and int(progress.status[0]) == Status.RUNNING
    progress.judge(V + 9, point(0.9))
    assert bool(progress.running[0]) and progress.best_v.tolist() == [[9, 9]]
    progress.judge(V + 10, point(0.9))
    assert int(progress.status[0]) == Status.CONVERGED


def visited(solver: jiio.AbstractSolver, b: Tensor, steps: int, rate: float = 0.5) -> list[Tensor]:
    """The points (B, 1) at which a linear cell z -> rate z + b was asked."""
    seen: list[Tensor] = []

    def watch(step: int, v: Tensor, at: Point) -> bool:
        seen.append(v.clone())
        return False

    operator = EquilibriumMap(lambda z, x: rate * z + x, b, torch.zeros_like(b), 1.0)
    iterate(operator, solver, torch.zeros_like(b), jiio.Tolerance(), steps, Recorder(False, False, watch))
    return seen


def test_who_has_ended_never_moves_again() -> None:
    seen = visited(jiio.Picard(), torch.tensor([[1e-9], [1.0]], dtype=DOUBLE), 12)
    assert len({float(v[0]) for v in seen[2:]}) == 1 and len({float(v[1]) for v in seen}) == len(seen)


@pytest.mark.parametrize("steps", [3, 4, 5])
def test_the_last_point_is_an_image_of_an_earlier_one(steps: int) -> None:
    """An accelerated point is none, and could not be returned."""
    b = torch.tensor([[1.0, -2.0, 0.5]], dtype=DOUBLE)
    turn = torch.tensor([[0.5, 0.6, 0.0], [-0.6, 0.5, 0.1], [0.0, 0.3, 0.9]], dtype=DOUBLE)
    seen: list[Tensor] = []
    operator = EquilibriumMap(lambda z, x: z @ turn + x, b, torch.zeros_like(b), 1.0)
    watch = Recorder(False, False, lambda step, v, at: bool(seen.append(v.clone())))
    iterate(operator, jiio.Anderson(), torch.zeros_like(b), jiio.Tolerance(), steps, watch)
    assert len(seen) == steps
    assert min(float((v @ turn + b - seen[-1]).abs().max()) for v in seen[:-1]) < 1e-12


def test_who_goes_back_forgets_its_history() -> None:
    forgotten: list[list[bool]] = []

    class Noting(jiio.Anderson):
        def restart(self, state, mask):
            forgotten.append(mask.tolist())
            return super().restart(state, mask)

    calls = [0]

    def cell(z: Tensor, x: Tensor) -> Tensor:
        calls[0] += 1
        return torch.where((x > 1) & (calls[0] == 3), float("nan"), 0.5 * z + x)

    b = torch.tensor([[1.0], [2.0]], dtype=DOUBLE)
    jiio.equilibrium(cell, b, torch.zeros_like(b), solver=Noting(), max_steps=6, on_failure="ignore")
    assert forgotten and forgotten[0] == [False, True]
