"""SolveSettings: checked where it is made, handed on whole, never changed in place."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
import torch

import jiio


def test_the_defaults_are_those_of_an_equilibrium() -> None:
    parameters = inspect.signature(jiio.equilibrium).parameters
    assert jiio.SolveSettings().arguments() == {
        name: parameters[name].default for name in ("solver", "adjoint", "tolerance", "max_steps", "on_failure")
    }


def test_arguments_reach_both_solves() -> None:
    settings = jiio.SolveSettings(
        jiio.Picard(), jiio.Detached(), jiio.Tolerance(1e-9, 0.0), max_steps=3, on_failure="ignore"
    )
    x = torch.ones(2, 3)

    def cell(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * z + x

    found = jiio.equilibrium(cell, x, torch.zeros_like(x), **settings.arguments())
    # Picard from zero: z_k = 2 - 2^(1 - k), and the last of three evaluations is spent on the image of the second.
    assert torch.equal(found.z, torch.full_like(x, 1.5)) and found.steps.tolist() == [3, 3]
    assert found.status.tolist() == [jiio.Status.MAX_STEPS] * 2

    problem = jiio.Problem(cell, lambda z, x: (z - 1).square().sum(1))
    solved = jiio.solve(problem, x, torch.zeros_like(x), **settings.arguments())
    assert solved.steps.tolist() == [3, 3] and not solved.value.requires_grad


def test_merged_replaces_what_is_given_and_keeps_the_rest() -> None:
    settings = jiio.SolveSettings(max_steps=30)
    merged = settings.merged(on_failure="raise", tolerance=None, max_steps=None)
    assert merged == dataclasses.replace(settings, on_failure="raise")
    assert settings == jiio.SolveSettings(max_steps=30) and settings.merged() == settings


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"solver": "Anderson"}, jiio.ArgumentTypeError, r"SolveSettings.solver: expected an instance of Abstract"),
        (
            {"adjoint": jiio.Implicit},
            jiio.ArgumentTypeError,
            r"SolveSettings.adjoint: .*Implicit\(...\), not",
        ),
        ({"tolerance": 1e-3}, jiio.ArgumentTypeError, r"SolveSettings.tolerance: expected an instance of Tolerance"),
        ({"max_steps": 1}, jiio.ArgumentError, r"SolveSettings.max_steps: expected a whole number of at least 2"),
        ({"max_steps": 2.0}, jiio.ArgumentTypeError, r"SolveSettings.max_steps: expected a whole number"),
        ({"on_failure": "panic"}, jiio.ArgumentError, r"SolveSettings.on_failure: expected one of 'warn', 'raise'"),
    ],
)
def test_unusable_settings(given: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        jiio.SolveSettings(**given)
    with pytest.raises(error, match=words):
        jiio.SolveSettings().merged(**given)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(jiio.ArgumentTypeError, match=r"expected the options solver, .*on_failure, got trace"):
        jiio.SolveSettings().merged(trace=True)
