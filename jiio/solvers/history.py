"""Sums over the history of a solver, (B, m, D): most of the memory of a solve, and most of what a step reads.

A history may be kept in bfloat16, which halves it. The sums are taken in the type of the iterates all the same, stretch
by stretch, so that the history is never there in full precision: products of numbers with eight bits are no small
system that one could solve.
"""

from __future__ import annotations

import torch
from torch import Tensor

STRETCH = 1 << 13  # numbers of a sample that are widened at a time


def products(vectors: Tensor, history: Tensor) -> Tensor:
    """Of vectors (B, k, D) with every row of a history (B, m, D): (B, k, m), in one pass over the history.

    The long dimension comes last in both factors, so that both are read along memory; a product with tall columns
    takes four times as long on a CPU.
    """
    if history.dtype == vectors.dtype:
        return torch.bmm(vectors, history.transpose(1, 2))
    found = vectors.new_zeros(vectors.shape[0], vectors.shape[1], history.shape[1])
    for stretch in _stretches(history):
        found.baddbmm_(vectors[:, :, stretch], history[:, :, stretch].to(vectors.dtype).transpose(1, 2))
    return found


def less(plain: Tensor, weights: Tensor, history: Tensor, factor: float = 1.0) -> Tensor:
    """plain (B, D) - factor sum_i weights_i history_i, weights (B, m)."""
    if history.dtype == plain.dtype:
        return torch.baddbmm(plain.unsqueeze(1), weights.unsqueeze(1), history, alpha=-factor)[:, 0]
    found = plain.clone()
    for stretch in _stretches(history):
        sums = torch.bmm(weights.unsqueeze(1), history[:, :, stretch].to(plain.dtype))[:, 0]
        found[:, stretch].sub_(sums, alpha=factor)
    return found


def _stretches(history: Tensor) -> list[slice]:
    return [slice(start, start + STRETCH) for start in range(0, history.shape[2], STRETCH)]
