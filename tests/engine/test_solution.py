"""What can be done with a Solution: moved, cut from its graph, taken apart by samples, written and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from helpers import gap
from jiio import CheckpointError

DOUBLE = torch.float64
Y = torch.randn(4, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))


def solved(**options) -> Any:  # a Solution whose optional parts are there
    w = torch.eye(3, dtype=DOUBLE).requires_grad_()

    def cell(z: dict[str, Tensor], x: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return {"a": torch.tanh(0.5 * z["a"] @ w + x[0] + x[1])}

    problem = jiio.Problem(
        cell, lambda z, x: (z["a"] - Y).square().sum(1) + x[0].square().sum(1) + x[1].square().sum(1)
    )
    zero = torch.zeros(4, 3, dtype=DOUBLE)
    return jiio.solve(problem, (zero, zero), {"a": zero}, on_failure="ignore", **options)


def test_one_line_says_how_it_went() -> None:
    solution = solved()
    assert "\n" not in repr(solution) and "4 CONVERGED" in repr(solution) and len(repr(solution)) < 200
    assert len(solution) == 4


def test_moved_and_cut_from_the_graph() -> None:
    solution = solved()
    assert solution.value.requires_grad and "value" in solution.differentiable
    single = solution.to(torch.float32)
    assert single.z["a"].dtype == single.x[1].dtype == single.value.dtype == single.scaling[0].dtype == torch.float32
    assert single.status.dtype == torch.int8 and single.steps.dtype == torch.int64
    cut = solution.detach()
    assert not cut.value.requires_grad and cut.differentiable == frozenset() and gap(cut.x[0], solution.x[0]) == 0


@pytest.mark.parametrize("index", [1, -1, slice(1, 3), [2, 0], torch.tensor([True, False, False, True])], ids=str)
def test_rows(index) -> None:
    solution = solved(trace="points").detach()
    part: Any = solution[index]
    want = slice(index, index + 1 or None) if isinstance(index, int) else index
    for got, all_of_it in (
        (part.z["a"], solution.z["a"]),
        (part.x[1], solution.x[1]),
        (part.multiplier["a"], solution.multiplier["a"]),
        (part.value, solution.value),
        (part.residual, solution.residual),
        (part.scaling[1], solution.scaling[1]),
        (part.gradient, solution.gradient),
        (part.trace.x[2][0], solution.trace.x[2][0]),
    ):
        assert torch.equal(got, all_of_it[want])
    assert torch.equal(part.trace.residual.nan_to_num(), solution.trace.residual[:, want].nan_to_num())
    assert part.trace.value.shape == (len(solution.trace.value), len(part))
    assert part.summary() and part.status.shape == part.steps.shape == (len(part),)


def test_an_equilibrium_without_an_objective_is_moved_and_cut_as_well() -> None:
    """It has no multiplier, scales or gradient, and its trace no values of an objective."""
    w = torch.eye(3, dtype=DOUBLE).requires_grad_()
    solution = jiio.equilibrium(lambda z, x: torch.tanh(0.5 * z @ w + x), Y, Y, trace=True)
    assert solution.multiplier is None and solution.gradient is None
    assert solution.to(torch.float32).z.dtype == torch.float32 and not solution.detach().z.requires_grad
    part: Any = solution[1:3]
    assert torch.equal(part.z, solution.z[1:3]) and part.multiplier is None
    assert part.trace.residual.shape == (len(part.trace.residual), 2, 1)


def test_a_row_that_is_not_there() -> None:
    with pytest.raises(IndexError, match="batch of 4"):
        solved()[4]
    with pytest.raises(jiio.ArgumentTypeError, match=r"^index: expected a number, a slice, a mask"):
        solved()["first"]


@pytest.mark.parametrize("where", ["nowhere", torch.int64, None])
def test_a_place_that_is_none(where) -> None:
    with pytest.raises(jiio.ArgumentTypeError, match=r"^Solution\.to: expected"):
        solved().to(where)


def test_written_and_read(tmp_path: Path) -> None:
    solution = solved(trace="points")
    solution.save(tmp_path / "a.safetensors")
    read: Any = jiio.Solution.load(tmp_path / "a.safetensors")
    assert read.summary() == solution.summary() and read.blocks == solution.blocks
    assert torch.equal(read.z["a"], solution.z["a"].detach()) and isinstance(read.x, tuple)
    assert torch.equal(read.trace.x[3][1], solution.trace.x[3][1]) and not read.value.requires_grad
    plain = jiio.equilibrium(lambda z, x: 0.5 * z + x, Y, Y)
    plain.save(tmp_path / "b")
    assert jiio.Solution.load(tmp_path / "b").multiplier is None


def test_other_files_are_refused(tmp_path: Path) -> None:
    good = tmp_path / "a"
    solved().save(good)
    data = good.read_bytes()
    cut, changed, foreign = tmp_path / "cut", tmp_path / "changed", tmp_path / "foreign"
    cut.write_bytes(data[: len(data) // 2])
    changed.write_bytes(data.replace(b"jiio-solution", b"jiio-something"[:13]))
    foreign.write_bytes(b"PK\x03\x04 not a record")
    for path in (cut, changed, foreign, tmp_path / "absent", tmp_path):
        with pytest.raises(CheckpointError, match=r"Solution\.save"):
            jiio.Solution.load(path)
    with pytest.raises(CheckpointError, match="can be written"):
        solved().save(tmp_path / "no" / "folder")
