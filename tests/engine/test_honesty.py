"""CONVERGED is true: random small problems, recomputed in double precision by code that shares nothing with the engine.

The long run is ``python -m benchmarks.engine.honesty``.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def honesty(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    return importlib.import_module("benchmarks.engine.honesty")


def wrong(honesty: ModuleType, seeds: range) -> dict[str, int]:
    found = honesty.many(seeds.start, len(seeds))
    assert found["CONVERGED"] > 0 and found["samples"] >= len(seeds)
    return {name: found[name] for name in honesty.WRONG if found.get(name)}


@pytest.mark.parametrize("first", [6, 9])
def test_nothing_is_claimed_that_is_not_so(honesty: ModuleType, first: int) -> None:
    assert wrong(honesty, range(first, first + 3)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 500, 50))
def test_nothing_is_claimed_that_is_not_so_in_many(honesty: ModuleType, first: int) -> None:
    assert wrong(honesty, range(first, first + 50)) == {}


def test_the_judge_sees_a_false_claim(honesty: ModuleType) -> None:
    """What is converged, moved: the residuals, the slope and the set are looked at."""
    outside = importlib.import_module("benchmarks.engine.outside")
    eye = np.eye(2)
    case = outside.Posed(
        W=0.5 * eye,
        U=eye,
        b=np.zeros(2),
        y=np.ones((1, 2)),
        w=np.ones(1),
        x0=np.zeros((1, 2)),
        z0=np.zeros((1, 2)),
        act="linear",
        loss="square",
        ridge=0.1,
        prox="Box",
        radius=1.0,
    )
    x = np.full(2, 2 / 4.1)  # z = 2 x, (2 x - 1) 2 + 0.1 x = 0
    z, mu = 2 * x, 2 * (2 * x - 1)
    how, units = (
        honesty.settings(case, 0) | {"rule": honesty.jiio.GradientStep(), "tolerance": honesty.TOLERANCES[0]},
        (1, 1),
    )

    def untrue(*at: np.ndarray) -> bool:
        return honesty.untrue(case, 0, at, units, how, 2e-16)

    assert not untrue(z, mu, x) and not honesty.slope(case, 0, z, x, 1e-4) and case.excess(x) == 0
    assert untrue(z + 0.01, mu, x) and untrue(z, mu + 0.01, x) and untrue(z + 0.02, mu + 0.04, x + 0.01)
    assert honesty.slope(case, 0, z - 0.4, x - 0.2, 1e-4) and case.excess(x + 1) > 0.4
