"""Solves that would be fine but for what is changed, and what a refusal has to look like."""

# pyright: reportArgumentType=false, reportCallIssue=false
# Wrong types are the point here.

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import jiio
from problems import CASES, DOUBLE

# What is done, the exception, the argument that the message names, words that it contains.
Row = tuple[Callable[[], Any], type[Exception], str, str]

CASE = CASES["tanh"]
X, Z = CASE.x0, CASE.z0
NAN = float("nan")


def cell(z: Tensor, x: Tensor) -> Tensor:
    return CASE.cell(z, x)


def problem(**changes: Any) -> jiio.Problem:
    return jiio.Problem(**({"cell": CASE.cell, "objective": CASE.objective} | changes))


def solve(*args: Any, **options: Any) -> jiio.Solution:
    """A solve that would be fine, but for what is changed."""
    parts = list(args) + [problem(), X, Z][len(args) :]
    return jiio.solve(*parts, **({"max_steps": 3, "on_failure": "ignore"} | options))


def plain(*args: Any, **options: Any) -> jiio.Solution:
    parts = list(args) + [cell, X, Z][len(args) :]
    return jiio.equilibrium(*parts, **({"max_steps": 3, "on_failure": "ignore"} | options))


def with_prox(prox: Any, **options: Any) -> jiio.Solution:
    return solve(problem(prox=prox), **options)


def inferring(function: Callable[[], Any]) -> Any:
    with torch.inference_mode():
        return function()


class Net(nn.Module):
    """A cell with one extra layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return CASE.cell(self.layer(z), x)


def half(value: Any, batch: int = 3) -> Tensor:
    return torch.full((batch,), value, dtype=DOUBLE)


class Fickle:
    """A cell whose second call returns another shape."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return CASE.cell(z, x) if self.calls == 1 else z[:, :3]


def refused_in_one_sentence(row: Row) -> None:
    """The argument, what was expected, what came and what to do."""
    action, error, argument, words = row
    with pytest.raises(error) as caught:
        action()
    message = str(caught.value)
    assert isinstance(caught.value, jiio.JiioError)
    assert re.fullmatch(r"[^\n]+: expected [^\n]+, got [^\n]+\.( [^\n]+[.?])?", message), message
    assert message.startswith(f"{argument}: "), message
    assert words in message, message
    assert len(message) < 300, message
