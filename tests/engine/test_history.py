"""Histories in half the memory, and the best points in buffers of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from helpers import gap
from jiio.best import BestPoints
from jiio.solvers.history import STRETCH, less, products
from problems import DOUBLE, make, mixed

HALF = jiio.Anderson(history="bfloat16")


@pytest.mark.parametrize("size", [3, STRETCH, STRETCH + 5])
def test_sums_over_a_history_are_taken_in_full(size: int) -> None:
    draw = torch.Generator().manual_seed(0)
    vectors, history = torch.randn(2, 2, size, generator=draw), torch.randn(2, 4, size, generator=draw).bfloat16()
    weights, wide = torch.randn(2, 4, generator=draw), history.float()
    expected = torch.einsum("bkd,bmd->bkm", vectors, wide)
    assert gap(products(vectors, history), expected) < 1e-4 * size**0.5
    assert gap(products(vectors, wide), expected) < 1e-4 * size**0.5
    left = vectors[:, 0] - 0.5 * torch.einsum("bm,bmd->bd", weights, wide)
    for kept in (history, wide):
        assert gap(less(vectors[:, 0], weights, kept, 0.5), left) < 1e-4


@pytest.mark.parametrize("kind", ["I", "II"])
def test_half_a_history_finds_the_same_answer_in_about_as_many_steps(kind: str) -> None:
    case = make(2, act="tanh")
    options: dict[str, Any] = {"tolerance": jiio.Tolerance(1e-9, 1e-9), "max_steps": 300}
    full = case.solve(solver=jiio.Anderson(kind=kind), **options)
    half = case.solve(solver=jiio.Anderson(kind=kind, history="bfloat16"), **options)
    assert gap(full.x, half.x) < 1e-6 and int(half.steps.max()) < 1.5 * int(full.steps.max())


def test_it_is_kept_in_bfloat16_and_leaves_with_its_samples() -> None:
    v = torch.zeros(3, 5, dtype=DOUBLE)
    with torch.no_grad():
        state = HALF.init(v)
        for k in range(4):
            _, state = HALF.step(v + k, torch.cos(v + k), state)
        assert state.s.dtype == state.y.dtype == torch.bfloat16 and state.gram.dtype == DOUBLE
        few = HALF.rows(state, torch.tensor([0, 2]))
        assert few.s.shape == (2, 10, 5) and HALF.inverse(few).u.dtype == DOUBLE
    assert HALF.init(v).s.dtype == DOUBLE  # recorded: in full
    divided = mixed()
    assert bool(divided.solve(solver=HALF, tolerance=jiio.Tolerance(1e-6, 1e-6), max_steps=500).converged.all())


def test_another_word_is_told() -> None:
    with pytest.raises(jiio.ArgumentError, match=r"Anderson\.history"):
        jiio.Anderson(history="half")


# -- the best points


def numbered(*values: float) -> Tensor:
    return torch.tensor(values)[:, None].expand(-1, 2).clone()


@torch.no_grad()
def test_only_better_rows_are_moved() -> None:
    best = BestPoints(numbered(0, 0, 0))
    best.replace(numbered(1, 2, 3), numbered(-1, -2, -3))
    some = torch.tensor([True, False, True])
    first = best.v
    best.take(some, numbered(4, 5, 6), numbered(-4, -5, -6))
    assert gap(best.v, numbered(4, 2, 6)) == 0 and gap(best.image, numbered(-4, -2, -6)) == 0
    assert gap(first, numbered(1, 2, 3)) == 0  # the tensor of the loop is as it was
    best.take(~some, numbered(7, 8, 9), numbered(-7, -8, -9))
    assert gap(best.v, numbered(4, 8, 6)) == 0
    few = best.rows(torch.tensor([1, 2]))
    assert gap(few.v, numbered(8, 6)) == 0 and gap(few.image, numbered(-8, -6)) == 0


@torch.no_grad()
def test_what_was_lent_is_written_to_no_more() -> None:
    best, some = BestPoints(numbered(0, 0, 0)), torch.tensor([True, False, False])
    best.replace(numbered(1, 2, 3), numbered(-1, -2, -3))
    best.take(some, numbered(4, 5, 6), numbered(-4, -5, -6))
    lent = best.image
    best.lend(lent)
    best.take(some, numbered(7, 8, 9), numbered(-7, -8, -9))
    assert gap(lent, numbered(-4, -2, -3)) == 0 and gap(best.image, numbered(-7, -2, -3)) == 0
