"""``solution_at``: a point found in another way gets the record, and the gradients, that a solve would give it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from jiio import Status
from problems import CASES, CLOSE, DOUBLE, IMPLICIT, KKT, PROX, TIGHT

SETS = ["none", "L2 ball", "box", "soft threshold", "quadratic priors"]


@pytest.mark.parametrize("prox", SETS)
def test_the_record_at_an_answer_is_that_of_the_solve(prox: str) -> None:
    case = CASES["tanh"]
    problem = case.problem(PROX[prox](4))
    found = case.solve(problem.prox)
    record = jiio.solution_at(
        problem, found.x, found.z, multiplier=found.multiplier, scaling=found.scaling, tolerance=CLOSE
    )
    assert bool(record.converged.all()) and record.blocks == found.blocks
    assert torch.equal(record.x, found.x) and torch.equal(record.z, found.z)
    for mine, theirs in (
        (record.value, found.value),
        (record.gradient, found.gradient),
        (record.residual, found.residual),
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-8)
    assert (record.evaluations.cell, record.evaluations.vjp) == (1, 1) and record.steps.tolist() == [0, 0, 0]


def test_the_multiplier_is_solved_for_where_none_is_given() -> None:
    case = CASES["tanh"]
    found = case.solve()
    calls = []

    def cell(z: Tensor, x: Tensor) -> Tensor:
        calls.append(z)
        return case.cell(z, x)

    record = jiio.solution_at(jiio.Problem(cell, case.objective), found.x, found.z, implicit=IMPLICIT, tolerance=CLOSE)
    torch.testing.assert_close(record.multiplier, found.multiplier, rtol=1e-9, atol=1e-9)
    assert record.evaluations.cell == len(calls) == 2 and record.evaluations.vjp > 2
    assert bool(record.converged.all()) and record.scaling is None


@pytest.mark.parametrize("prox", SETS)
def test_the_exact_outer_gradient_needs_no_solve_of_its_own(prox: str) -> None:
    gradients = []
    for elsewhere in (True, False):
        weight = CASES["tanh"].W.clone().requires_grad_()
        case = CASES["tanh"].with_(W=weight)
        solution = case.solve(PROX[prox](4), adjoint=KKT, tolerance=TIGHT)
        if elsewhere:
            problem = case.problem(PROX[prox](4))
            solution = jiio.solution_at(problem, solution.x, solution.z, implicit=IMPLICIT, adjoint=KKT)
        (solution.x.square().sum() + solution.z.sum() + solution.value.sum()).backward()
        gradients.append(weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-8)


def test_every_sample_is_judged_for_itself_and_block_by_block() -> None:
    """One left as it is, one with another state, one with an input that is not stationary, one with a broken state."""
    case = CASES["tanh"].with_(y=CASES["tanh"].y[[0, 0, 0, 0]])
    found = case.solve()
    z, x = found.z.clone(), found.x.clone()
    z[1] += 0.1
    x[2] += 0.1
    z[2] = jiio.equilibrium(case.cell, x[2:3], case.z0[:1], tolerance=TIGHT, max_steps=500).z.detach()
    z[3, 0] = float("nan")
    record = jiio.solution_at(case.problem(), x, z, implicit=IMPLICIT, tolerance=CLOSE)
    assert record.status.tolist() == [Status.CONVERGED, Status.MAX_STEPS, Status.MAX_STEPS, Status.NONFINITE]
    block = record.residual[:, 0]
    assert float(block[1]) > 1e-2 and float(block[2]) < 1e-8 < 1e-3 < float(record.residual[2, 2])
    image = case.cell(z, x)
    torch.testing.assert_close(block[:3], (image - z).square().mean(1).sqrt()[:3], rtol=1e-9, atol=1e-12)


def test_an_infeasible_input_is_not_projected_and_does_not_pass() -> None:
    case = CASES["tanh"]
    free = case.solve()
    far = case.problem(jiio.L2Ball(0.5 * float(free.x.norm(dim=1).min())))
    record = jiio.solution_at(far, free.x, free.z, implicit=IMPLICIT, tolerance=CLOSE)
    assert torch.equal(record.x, free.x) and not bool(record.converged.any())


def test_without_grad_mode_nothing_is_attached() -> None:
    case = CASES["tanh"].with_(W=CASES["tanh"].W.clone().requires_grad_())
    with torch.no_grad():
        record = jiio.solution_at(case.problem(), case.x0, case.z0, adjoint=KKT)
    assert record.differentiable == frozenset() and not record.x.requires_grad


BAD: list[Any] = [
    ({"problem": "tanh"}, jiio.ArgumentTypeError, "problem: expected an instance of Problem"),
    ({"x": [1, 2]}, jiio.ArgumentTypeError, "x: expected a tensor"),
    ({"z": torch.zeros(4, 10, dtype=DOUBLE)}, jiio.ArgumentError, "z: expected batch size 3"),
    ({"multiplier": torch.zeros(3, 9, dtype=DOUBLE)}, jiio.ArgumentError, "multiplier: expected the same tree"),
    ({"scaling": (torch.ones(3, 1), -torch.ones(3, 1))}, jiio.ArgumentError, "scaling: expected finite numbers above"),
    ({"implicit": jiio.KKT()}, jiio.ArgumentTypeError, "implicit: expected an instance of Implicit"),
    ({"adjoint": "KKT"}, jiio.ArgumentTypeError, "adjoint: expected an instance of AbstractAdjoint"),
    ({"tolerance": 1e-3}, jiio.ArgumentTypeError, "tolerance: expected an instance of Tolerance"),
]


@pytest.mark.parametrize(("changes", "error", "words"), BAD)
def test_unusable_arguments(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    case = CASES["tanh"]
    with pytest.raises(error, match=words):
        jiio.solution_at(**({"problem": case.problem(), "x": case.x0, "z": case.z0} | changes))
