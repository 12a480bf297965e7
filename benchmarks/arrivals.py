"""After how many calls a method is near the best objective, and stays there."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import jiio

WITHIN = 0.01


def staying(values: Tensor, best: Tensor, within: float = WITHIN) -> tuple[Tensor, Tensor]:
    """Whether each sample is within ``within`` of the best objective in the end, and the first point from which it is.

    values: (T, B) along the way. best: (B,). Both results: (B,).
    """
    near = values <= best + within * best.abs()
    stays = near.flip(0).cummin(0).values.flip(0)
    return stays.any(0), stays.float().argmax(0)


def arrival(own: Tensor, values: Tensor, best: Tensor, within: float = WITHIN) -> Tensor:
    """(B,) calls until each sample is within reach of the best and stays there; infinite where it never is.

    own: (T, B) calls of each sample so far.
    """
    ever, first = staying(values, best, within)
    calls = own.float().gather(0, first[None])[0]
    return torch.where(ever, calls, torch.full_like(calls, math.inf))


def middle(values: Tensor) -> float:
    """The lower median, infinity included."""
    return float(values.sort().values[(len(values) - 1) // 2])


def verified(problem: jiio.Problem, inputs: list[Tensor]) -> Tensor:
    """(T, B) objective at the equilibrium of each input, solved again and tightly, each from the one before."""
    z, values = None, []
    tight = {"tolerance": jiio.Tolerance(1e-7, 1e-5), "adjoint": jiio.Detached(), "on_failure": "ignore"}
    for x in inputs:
        z = jiio.equilibrium(problem.cell, x, z, **tight).z  # type: ignore[arg-type]
        values.append(problem.total(z, x, len(x)))
    return torch.stack(values)
