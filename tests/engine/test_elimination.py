"""The exact gradient after a solve in a metric: block by block, the same as by MINRES, in fewer products."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from helpers import gap
from jiio.adjoints import elimination
from problems import DOUBLE, TIGHT

STATES, INPUTS, BATCH = 12, 6, 3


class Flat:
    """A cell that contracts, and an objective that sees the last inputs a hundred times less than the first."""

    def __init__(self, bend: float = 1.0) -> None:
        draw = torch.Generator().manual_seed(5)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=DOUBLE)

        self.W = (0.4 * torch.linalg.qr(normal(STATES, STATES)).Q).requires_grad_()
        reach = torch.logspace(0, -2, INPUTS, dtype=DOUBLE)
        self.U, self.t = (0.3 * normal(STATES, INPUTS) * reach).requires_grad_(), 0.1 * normal(BATCH, STATES)
        self.bend = bend

    def problem(self) -> jiio.Problem:
        def objective(z: Tensor, x: Tensor) -> Tensor:
            return (z - self.t).square().sum(1) + 1e-3 * self.bend * x.square().sum(1)

        return jiio.Problem(lambda z, x: torch.tanh(z @ self.W.T + x @ self.U.T), objective)

    def start(self) -> tuple[Tensor, Tensor]:
        return torch.zeros(BATCH, INPUTS, dtype=DOUBLE), torch.zeros(BATCH, STATES, dtype=DOUBLE)

    def metric(self) -> jiio.Metric:
        """Measured, and as a solve uses it."""
        x0, z0 = self.start()
        with torch.no_grad():
            found = jiio.Sensitivity.of(self.problem(), x0[:1], z0[:1]).linearised(self.problem(), x0, z0).metric
        assert found is not None
        return found

    def gradient(self, adjoint: jiio.KKT, metric: jiio.Metric | None, field: str = "z") -> tuple[list[Tensor], Any]:
        """Of a loss on one field at the same point, whatever the metric; and what it took."""
        x0, z0 = self.start()
        tight: dict[str, Any] = {"tolerance": TIGHT, "max_steps": 40, "on_failure": "ignore"}
        with torch.no_grad():
            found = jiio.solve(self.problem(), x0, z0, **tight)
        found = adjoint.inside(metric).attach(self.problem(), found)
        part = getattr(found, field)
        weights = torch.linspace(-1.0, 1.0, part.shape[1], dtype=DOUBLE)
        return list(torch.autograd.grad((part * weights).sum(), [self.W, self.U])), found.evaluations


@pytest.mark.parametrize("field", ["z", "x", "multiplier"])
@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_it_is_the_gradient_of_minres(field: str, damping: float) -> None:
    case, adjoint = Flat(), jiio.KKT(rtol=1e-10, max_steps=2000, damping=damping)
    ours, spent = case.gradient(adjoint, case.metric(), field)
    assert gap(ours, case.gradient(adjoint, None, field)[0]) < 1e-6
    assert float(spent.adjoint_residual.max()) < 1e-10


def test_it_takes_fewer_products_for_a_gradient_as_good() -> None:
    case = Flat()
    exact = case.gradient(jiio.KKT(rtol=1e-12, max_steps=2000), None)[0]
    ours, few = case.gradient(jiio.KKT(rtol=1e-1, max_steps=500), case.metric())
    theirs, many = case.gradient(jiio.KKT(rtol=1e-2, max_steps=500), None)
    assert gap(ours, exact) < 0.5 * gap(theirs, exact) and few.adjoint_hvp < 0.8 * many.adjoint_hvp


def test_a_solve_in_a_metric_uses_it_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    true = elimination.eliminated
    monkeypatch.setattr("jiio.adjoints.kkt.eliminated", lambda *given: used.append(1) or true(*given))
    case = Flat()
    x0, z0 = case.start()
    for metric, damping in ((None, 0.0), (case.metric(), 1.0), (case.metric(), 0.0)):
        assert not used
        adjoint = jiio.KKT(damping=damping)
        jiio.solve(case.problem(), x0, z0, metric=metric, adjoint=adjoint, on_failure="ignore").z.sum().backward()
    assert used == [1]


def spoilt(metric: jiio.Metric, kind: str) -> jiio.Metric:
    """A metric that is of no use: a hundred times too long, for other directions, or for some samples none at all."""
    if kind == "none for one":
        return metric.only(torch.tensor([[True], [False], [True]]))
    inverse = 100 * metric.inverse if kind == "too long" else torch.eye(INPUTS, dtype=DOUBLE).expand(BATCH, -1, -1)
    return jiio.Metric(inverse, metric.scaling)


@pytest.mark.parametrize("kind", ["too long", "plain", "none for one"])
def test_a_bad_metric_costs_products_and_no_accuracy(kind: str) -> None:
    case, adjoint = Flat(), jiio.KKT(rtol=1e-9, max_steps=3000)
    ours, spent = case.gradient(adjoint, spoilt(case.metric(), kind))
    assert gap(ours, case.gradient(adjoint, None)[0]) < 1e-6 and float(spent.adjoint_residual.max()) < 1e-9


def test_where_the_curvature_is_negative_minres_has_the_last_word() -> None:
    """A metric counts negative curvature by its size; the system has it as it is."""
    case, adjoint = Flat(bend=-500.0), jiio.KKT(rtol=1e-9, max_steps=3000)
    ours, spent = case.gradient(adjoint, Flat().metric())
    assert gap(ours, case.gradient(adjoint, None)[0]) < 1e-6 and float(spent.adjoint_residual.max()) < 1e-9


def test_no_gradient_is_no_work() -> None:
    case = Flat()
    x0, z0 = case.start()
    solution = jiio.solve(case.problem(), x0, z0, metric=case.metric(), adjoint=jiio.KKT(), on_failure="ignore")
    (solution.z * 0.0).sum().backward()
    assert case.W.grad is not None and float(case.W.grad.abs().max()) == 0.0
    left = solution.evaluations.adjoint_residual
    assert left is not None and float(left.abs().max()) == 0.0
