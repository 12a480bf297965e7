"""Confidence intervals for accuracies."""

from __future__ import annotations

import math

import torch

from jiio.checks import check_integer, check_number, fail


def interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of Clopper and Pearson (1934) for a probability: exact, never shorter than promised.

    successes: how many of the trials. trials: 1 or more. confidence: above 0 and at most 1.

    Returns: low and high, in [0, 1]. Raises ArgumentError / ArgumentTypeError for other numbers.
    """
    check_integer("trials", trials, 1)
    check_number("confidence", confidence, 0.0, 1.0, open_low=True)
    if not 0 <= check_integer("successes", successes, 0) <= trials:
        fail("successes", f"a whole number from 0 to {trials}", successes)
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else _solve(lambda p: 1.0 - _below(successes - 1, trials, p), tail)
    high = 1.0 if successes == trials else _solve(lambda p: -_below(successes, trials, p), -tail)
    return low, high


def _below(k: int, n: int, p: float) -> float:
    """P(X <= k) for a binomial X."""
    i = torch.arange(k + 1, dtype=torch.float64)
    choose = math.lgamma(n + 1) - torch.lgamma(i + 1) - torch.lgamma(n - i + 1)
    return float((choose + i * math.log(p) + (n - i) * math.log1p(-p)).exp().sum())


def _solve(rising, value: float) -> float:
    """p in (0, 1) with rising(p) = value, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return 0.5 * (low + high)
