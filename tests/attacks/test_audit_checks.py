"""Each check of the audit by a case that trips it alone: without that check, nothing would be said."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

import jiio
from attack_models import CLASSES, blobs, convolutional, equilibrium, slow_equilibrium
from jiio.attacks import PGD, AbstractAttack, Audit, Margin, Square, Target, ThreatModel, evaluate
from jiio.attacks.evaluation.evidence import AuditCase, Evidence
from jiio.attacks.evaluation.gradient_checks import adjoint
from jiio.attacks.evaluation.probes import (
    asked_again,
    converged,
    differ,
    in_company,
    in_two_orders,
    off_the_gradient,
    rolled,
)
from jiio.attacks.evaluation.records import ROBUST, Entry
from jiio.attacks.target import Prediction
from trapped_models import HONEST, TRAPPED

X, Y = blobs(16, seed=2)
AUDIT = Audit(samples=12, steps=6, queries=20)
WORKING = PGD(steps=6, objective=Margin())


@dataclass(frozen=True)
class Only(AbstractAttack):
    """PGD where the radius lies between two numbers, nothing elsewhere."""

    low: float = 0.0
    high: float = 1e9

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        assert isinstance(threat.radius, float)
        return WORKING.run(model, x, y, threat, generator) if self.low < threat.radius < self.high else x


def names(model: nn.Module, attacks: list[AbstractAttack], threat: ThreatModel, audit: Audit = AUDIT) -> set[str]:
    report = evaluate(model, [(X, Y)], threat, attacks, generator=torch.Generator().manual_seed(0), audit=audit)
    return {finding["name"] for finding in report.findings}


L1, LINF = ThreatModel("l1", 1.5), ThreatModel("linf", 0.06)


def test_nothing_is_said_of_the_honest_case() -> None:
    assert names(convolutional(), [WORKING], L1) == set()


def test_radius_alone() -> None:
    """The first attack works at the radius and not at twice that; the second one everywhere."""
    assert names(convolutional(), [Only(high=1.4), WORKING], L1) == {"radius"}


def test_large_radius_alone() -> None:
    """An attack that gives up where everything is allowed."""
    assert names(convolutional(), [Only(high=10.0)], L1) == {"large-radius"}


def test_steps_alone() -> None:
    """An attack that works only beyond the radius; in L1, where the audit makes no search of its own."""
    assert names(convolutional(), [Only(low=2.0)], ThreatModel("l1", 1.9)) == {"steps"}


def test_search_alone() -> None:
    """Gradients masked inside the radius, and an audit whose own Auto-PGD has one step."""
    quick = replace(AUDIT, steps=1, queries=60)
    found = names(convolutional(), [Only(low=0.15)], ThreatModel("linf", 0.12), quick)
    assert "search-wins" in found and "large-radius" not in found
    listed = names(convolutional(), [Only(low=0.15), Square(queries=60)], ThreatModel("linf", 0.12), quick)
    assert "search-wins" in listed


def test_saturated_alone() -> None:
    assert names(TRAPPED["hot"][0](), [WORKING], L1) == {"saturated"}


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("logarithm", "nan-scores"),
        ("coin", "random"),
        ("first of that shape", "memory"),
        ("smooth in company", "batch-dependent"),
        ("hooked", "forward"),
        ("hidden and hasty", "unconverged"),
        ("early", "solver-budget"),
    ],
)
def test_one_trap_one_answer(name: str, finding: str) -> None:
    """None of the other findings about the model itself."""
    about = {"nan-scores", "random", "memory", "batch-dependent", "forward", "unseen"}
    found = names(TRAPPED[name][0](), [PGD(steps=2)], LINF)
    assert finding in found and found & about <= {finding}


class Unsolvable(torch.autograd.Function):
    """The identity; what it hands back is no linear map of what it got."""

    @staticmethod
    def forward(ctx, z: Tensor) -> Tensor:
        return z.clone()

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        (g,) = grads
        return g + 2.0 * g.abs().mean(1, keepdim=True) * torch.sin(1e4 * g + torch.arange(g.shape[1]))


class Rough(nn.Module):
    """A cell whose adjoint system has no solution."""

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return equilibrium().cell(Unsolvable.apply(z), u)

    def initial_state(self, u: Tensor) -> Tensor:
        return torch.zeros_like(u)


def case(model: nn.Module) -> AuditCase:
    """What the checks see of a model that nothing has attacked."""
    n = len(X)
    entry = Entry({"status": torch.full((n,), ROBUST), "worst": X, "by": torch.full((n,), -1)}, {})
    evidence = Evidence()
    evidence.collect(replace(AUDIT, samples=n), X, Y, entry, LINF)
    return AuditCase(AUDIT, Target(model), (WORKING,), evidence, [entry], 0)


def test_an_adjoint_system_without_solution() -> None:
    parts = equilibrium()
    model = jiio.EquilibriumModel(parts.inject, Rough(), parts.head, tolerance=parts.tolerance).eval()
    with torch.no_grad():
        assert bool(model.solve(X).converged.all())
    found = {finding.name: finding.evidence for finding in adjoint(case(model))}
    assert found["adjoint-solve"]["residual"] > 1e-2
    assert [finding.name for finding in adjoint(case(equilibrium()))] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_converged_model_is_converged(dtype: torch.dtype) -> None:
    """To a hundred roundings, whatever the model's own tolerance is."""
    model = slow_equilibrium().to(dtype)
    try:
        found = converged(Target(model, tolerance=jiio.Tolerance(0.1, 0.1)), dtype).predict(X.to(dtype))
        size = found.state.square().mean(1).sqrt()
    finally:
        model.float()
    assert bool((found.residual <= 200 * torch.finfo(dtype).eps * (1 + size)).all())


# -- the probes behind the checks


def test_what_counts_as_another_answer() -> None:
    a = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, float("-inf")], [float("nan"), 1.0]])
    moved = a + torch.tensor([[0.04], [0.06], [0.0], [0.0]])
    assert differ(a, moved, 0.05).tolist() == [False, True, False, False]
    assert differ(a, torch.where(torch.isnan(a), 0.0, a), 0.05).tolist() == [False, False, False, True]


def test_probes_of_an_honest_model() -> None:
    for name in ("plain", "dense equilibrium", "data parallel"):
        target = Target(HONEST[name]())
        with target.held():
            assert not bool(asked_again(target, X, 3).any()) and not bool(rolled(target, X).any())
            assert not bool(in_two_orders(target, X, LINF).any())
    assert CLASSES == 4


@pytest.mark.parametrize(("settled", "accused"), [(True, True), (False, False)])
def test_an_equilibrium_that_was_not_reached_accuses_nobody_of_company(
    settled: bool, accused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answers, which hang on the batch and on the place in it; believed only where the solver arrived."""

    def told(self: Target, x: Tensor) -> Prediction:
        order = torch.arange(len(x))
        logits = torch.stack([order + len(x), -order], 1).float()
        reached = torch.full((len(x),), settled)
        return Prediction(logits, logits.argmax(1), reached, order, logits[:, 0], None)

    monkeypatch.setattr(Target, "predict", told)
    target = Target(convolutional())
    assert bool(in_company(target, X[:4]).all()) == bool(rolled(target, X[:4]).all()) == accused


def test_a_model_that_cannot_be_copied_is_not_accused() -> None:
    class Single(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return convolutional()(x)

        def __deepcopy__(self, memo) -> Single:
            raise TypeError("there is one of me")

    assert not bool(in_two_orders(Target(Single()), X, LINF).any())


class Stepped(nn.Module):
    """A linear map of every second pixel, of which autograd sees all or only some, in steps of ``grid``."""

    def __init__(self, *, seen: bool, grid: float) -> None:
        super().__init__()
        self.weight, self.seen, self.grid = (
            torch.randn(36, CLASSES, generator=torch.Generator().manual_seed(0)),
            seen,
            grid,
        )

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        other = flat.roll(1, 1)
        right = flat @ self.weight + (other if self.seen else other.detach()) @ self.weight
        return right if not self.grid else right + ((right / self.grid).round() * self.grid - right).detach()


@pytest.mark.parametrize(
    ("seen", "grid", "off", "told"),
    [(True, 0.0, False, False), (False, 0.0, True, True), (True, 0.06, True, False), (True, 1.0, True, False)],
)
def test_slopes_off_the_gradient(seen: bool, grid: float, off: bool, told: bool) -> None:
    """A gradient without some of the pixels is off, steadily; coarse scores are off, and not the same at two steps."""
    target = Target(Stepped(seen=seen, grid=grid))
    share, steady = off_the_gradient(target, X, Y, replace(LINF, radius=0.06))
    assert (share.median().item() > 0.25) == off
    assert ((steady & (share > 0.25)).float().mean().item() > 0.5) == told
