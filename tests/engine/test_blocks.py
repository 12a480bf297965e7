"""Anderson acceleration of some blocks: the others take the plain step, and names that are none are refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import jiio
from helpers import gap, oracle
from jiio.solvers.partial import Partial
from problems import CASES, CLOSE, DOUBLE, make

CASE = CASES["tanh"]


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("names", [("z", "mu"), ("x",), ("z", "x"), ("mu",)])
def test_a_part_is_the_whole_of_its_own_columns(names: tuple[str, ...]) -> None:
    places = {"z": slice(0, 3), "mu": slice(3, 6), "x": slice(6, 10)}
    part, whole = jiio.Anderson(blocks=names).on(places), jiio.Anderson()
    columns = [i for name, place in places.items() if name in names for i in range(place.start, place.stop)]
    rest = [i for i in range(10) if i not in columns]

    v, image = drawn(4, 2, 10), drawn(4, 2, 10).flip(0)
    state, other = part.init(v[0]), whole.init(v[0][:, columns])
    for k in range(4):
        mixed, state = part.step(v[k], image[k], state)
        expected, other = whole.step(v[k][:, columns], image[k][:, columns], other)
        assert gap(mixed[:, columns], expected) < 1e-12
        assert torch.equal(mixed[:, rest], image[k][:, rest])


def test_all_blocks_are_plain_anderson() -> None:
    places = {"z": slice(0, 3), "mu": slice(3, 6), "x": slice(6, 10)}
    assert jiio.Anderson(memory=4, blocks=("z", "mu", "x")).on(places) == jiio.Anderson(memory=4)
    assert isinstance(jiio.Anderson(blocks=("z",)).on(places), Partial)
    assert jiio.Anderson(blocks=("z", "mu")).on({"z": slice(0, 3)}) == jiio.Anderson()


def test_it_ends_at_the_optimum() -> None:
    """Gradient steps alone, on a problem whose input they suit: two numbers, nearly round."""
    case = make(2, act="tanh", k=2, ridge=3.0)
    solver, usual = jiio.Anderson(blocks=("z", "mu")), jiio.Tolerance(1e-7, 1e-6)
    assert gap(case.solve(solver=solver, tolerance=usual, max_steps=200).x, oracle(case)) < 1e-4


def test_a_plain_equilibrium_has_a_state_alone() -> None:
    settings = {"adjoint": jiio.Detached(), "tolerance": CLOSE}
    one, other = (
        jiio.equilibrium(CASE.cell, CASE.x0, CASE.z0, solver=solver, **settings).z  # type: ignore[arg-type]
        for solver in (jiio.Anderson(), jiio.Anderson(blocks=("z", "mu")))
    )
    assert torch.equal(one, other)


@pytest.mark.parametrize("blocks", [(), ("y",), ("z", "z"), "z", ("z", 3)])
def test_names_that_are_none_are_refused(blocks: tuple[str, ...]) -> None:
    with pytest.raises(jiio.JiioError, match=r"Anderson\.blocks: expected some of 'z', 'mu' and 'x'"):
        jiio.Anderson(blocks=blocks)
