"""``jiio.solve(..., callback=...)``: once per step, with the point and the value of that step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from problems import CASES, CLOSE, PROX, Case


class Seen:
    """Keeps what it is called with."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.z: list[Any] = []
        self.x: list[Any] = []
        self.value: list[Tensor] = []

    def __call__(self, step: int, z: Any, x: Any, value: Tensor) -> None:
        assert not value.requires_grad
        self.steps.append(step)
        self.z.append(z)
        self.x.append(x)
        self.value.append(value)


def watched(case: Case, prox: jiio.AbstractProx | None = None, **options: Any) -> tuple[Seen, jiio.Solution]:
    seen = Seen()
    solution = case.solve(prox, tolerance=CLOSE, max_steps=40, on_failure="ignore", callback=seen, **options)
    return seen, solution


@pytest.mark.parametrize("prox", ["none", "L2 ball", "soft threshold"])
@pytest.mark.parametrize("adjoint", [jiio.Envelope(), jiio.Unrolled()], ids=lambda a: type(a).__name__)
def test_every_step_is_shown_once_with_its_point_and_value(prox: str, adjoint: jiio.AbstractAdjoint) -> None:
    case = CASES["tanh"]
    seen, solution = watched(case, PROX[prox](4), trace="points", adjoint=adjoint)
    assert solution.trace is not None
    assert seen.steps == list(range(int(solution.steps.max())))
    for many, traced in ((seen.z, solution.trace.z), (seen.x, solution.trace.x)):
        assert len(many) == len(traced) and all(map(torch.equal, many, traced))
    problem = case.problem(PROX[prox](4))
    for z, x, value in zip(seen.z, seen.x, seen.value, strict=True):
        torch.testing.assert_close(value, problem.total(z, x, case.batch), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("start", ["measured", "given"])
def test_measuring_the_scales_is_no_step(start: str) -> None:
    case = CASES["tanh"]
    first = case.solve(tolerance=CLOSE)
    given = {"scaling": first.scaling, "multiplier": first.multiplier} if start == "given" else {}
    seen, solution = watched(case, x0=first.x * 0.9, **given)
    measuring = 0 if start == "given" else 2
    assert len(seen.steps) == solution.evaluations.vjp - measuring == int(solution.steps.max())
    torch.testing.assert_close(seen.x[0], first.x * 0.9)


def test_watching_changes_nothing() -> None:
    case = CASES["softplus, smooth loss"]
    plain = case.solve(tolerance=CLOSE, max_steps=40, on_failure="ignore")
    _, solution = watched(case)
    assert torch.equal(plain.x, solution.x) and torch.equal(plain.value, solution.value)
    assert plain.evaluations == solution.evaluations


def test_trees_are_shown_as_trees() -> None:
    seen = Seen()
    problem = jiio.Problem(
        lambda z, x: {"a": torch.tanh(0.5 * z["a"] + x[0])}, lambda z, x: (z["a"] - x[1]).square().sum(1)
    )
    x0 = (torch.ones(2, 3), torch.zeros(2, 3))
    jiio.solve(problem, x0, {"a": torch.zeros(2, 3)}, on_failure="ignore", callback=seen)
    assert seen.z[0]["a"].shape == seen.x[0][0].shape == (2, 3) and isinstance(seen.x[0], tuple)


def test_a_callback_must_be_callable() -> None:
    with pytest.raises(jiio.ArgumentTypeError, match=r"callback: expected a callable \(step, z, x, value\)"):
        CASES["tanh"].solve(callback="print")
