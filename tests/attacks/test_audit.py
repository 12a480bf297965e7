"""The audit: each model built to fool an evaluator raises the finding that fits; honest ones raise none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import jiio
from attack_models import (
    CLASSES,
    GradientInTrainModeOnly,
    Quantised,
    blobs,
    convolutional,
    equilibrium,
    hasty,
    slow_equilibrium,
)
from jiio.attacks import APGD, PGD, AbstractAttack, Audit, Report, Square, TargetedMargin, ThreatModel, evaluate

X, Y = blobs(24, seed=2)
AUDIT = Audit(samples=20, steps=10, queries=60)
STRONG: list[AbstractAttack] = [PGD(steps=5), APGD(steps=8, objective=TargetedMargin(), targets=3)]


def report(model: nn.Module, attacks: list[AbstractAttack] | None = None, **options) -> Report:
    threat = options.pop("threat", ThreatModel("linf", 0.08))
    y = options.pop("y", Y)
    seed = torch.Generator().manual_seed(0)
    return evaluate(model, [(X, y)], threat, attacks or STRONG, generator=seed, audit=AUDIT, **options)


def names(found: Report) -> set[str]:
    return {finding["name"] for finding in found.findings}


HONEST = [(convolutional, "linf"), (convolutional, "l1"), (equilibrium, "linf"), (equilibrium, "l2")]


@pytest.mark.parametrize(("make", "norm"), HONEST, ids=lambda v: getattr(v, "__name__", v))
def test_an_honest_model_raises_nothing(make, norm: str) -> None:
    threat = ThreatModel(norm, {"linf": 0.08, "l2": 0.35, "l1": 1.5}[norm])
    found = report(make(), threat=threat)
    assert found.findings == [] and found.trusted
    assert "NOT TO BE TRUSTED" not in str(found)


@pytest.mark.slow
def test_a_slow_but_honest_equilibrium_raises_nothing() -> None:
    assert report(slow_equilibrium()).findings == []


def test_a_quantised_head_has_no_gradient() -> None:
    """It looks fully robust to gradient attacks; the audit says why not to believe it."""
    found = report(Quantised(convolutional()))
    assert found.robust.share > 0.9
    assert "zero-gradient" in names(found) and not found.trusted
    assert "NOT TO BE TRUSTED" in str(found)
    (finding,) = (f for f in found.findings if f["name"] == "zero-gradient")
    assert finding["severity"] == "error" and finding["evidence"]["share"] == 1.0
    assert finding["evidence"]["share_with_gradient_in_train_mode"] == 0.0


def test_random_search_gives_the_quantised_head_away() -> None:
    wide = ThreatModel("linf", 0.12)
    assert "search-wins" in names(report(Quantised(convolutional()), threat=wide))
    listed = report(Quantised(convolutional()), [PGD(steps=5), Square(queries=60)], threat=wide)
    assert "search-wins" in names(listed)


def test_a_model_without_gradient_in_eval_mode() -> None:
    found = report(GradientInTrainModeOnly(equilibrium()))
    assert found.robust.share > 0.9 and not found.trusted
    (finding,) = (f for f in found.findings if f["name"] == "zero-gradient")
    assert "hides its gradient in eval mode" in finding["sentence"]
    assert finding["evidence"]["share_with_gradient_in_train_mode"] == 1.0


def test_a_model_that_stops_early() -> None:
    found = report(hasty())
    assert "solver-budget" in names(found) and not found.trusted
    assert {"unconverged"} <= names(found) and found.robust.count == 0


class Turning(nn.Module):
    """A cell whose Jacobian turns what it is multiplied by: a truncated series points elsewhere."""

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        a, b = z.chunk(2, dim=1)
        return torch.tanh(0.9 * torch.cat([-b, a], dim=1) + 0.3 * u)

    def initial_state(self, u: Tensor) -> Tensor:
        return torch.zeros_like(u)


@pytest.mark.slow
def test_a_gradient_that_depends_on_the_adjoint() -> None:
    torch.manual_seed(0)
    parts = equilibrium().inject, Turning(), nn.Linear(16, CLASSES)
    exact = jiio.EquilibriumModel(*parts, tolerance=jiio.Tolerance(1e-5, 1e-4)).eval()
    with torch.no_grad():
        y = exact(X).argmax(1)
    assert "adjoint" not in names(report(exact, y=y))
    biased = jiio.EquilibriumModel(*parts, tolerance=exact.tolerance, adjoint=jiio.Phantom(steps=1, damping=1.0)).eval()
    (finding,) = (f for f in report(biased, y=y).findings if f["name"] == "adjoint")
    assert finding["severity"] == "error" and 0.3 < finding["evidence"]["cosine"] < 0.95


class Lying(torch.autograd.Function):
    """The identity; its gradient points elsewhere."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        return grads[0].roll(1, dims=3)


class Liar(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return convolutional()(Lying.apply(x))


def test_a_gradient_that_lies() -> None:
    assert "wrong-gradient" in names(report(Liar()))


def test_weak_attacks_are_told_so() -> None:
    found = report(convolutional(), [PGD(steps=1, step=0.05, random_start=False)])
    assert {"steps", "large-radius"} & names(found)


def test_labels_of_another_world() -> None:
    found = report(convolutional(), y=(Y + 1) % CLASSES)
    assert names(found) == {"labels"} and "Not one sample" in found.findings[0]["sentence"]
    draw = torch.Generator().manual_seed(0)
    shuffled = Y[torch.randperm(len(Y), generator=draw)]
    assert "labels" in names(report(convolutional(), y=shuffled))


class Alternating(nn.Module):
    """A cell with two equilibria: which one is found depends on the start."""

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(3.0 * z + 0.05 * u)

    def initial_state(self, u: Tensor) -> Tensor:
        return 0.5 + torch.zeros_like(u)


def test_several_equilibria() -> None:
    honest = equilibrium()
    head = nn.Linear(16, CLASSES)
    model = jiio.EquilibriumModel(honest.inject, Alternating(), head, on_failure="ignore").eval()
    with torch.no_grad():
        y = model(X).argmax(1)
    assert "start" in names(report(model, y=y))


def test_an_attack_inside_a_certificate() -> None:
    """A cell that promises more than it keeps."""
    honest = equilibrium()

    class Boastful(type(honest.cell)):  # type: ignore[misc]
        lipschitz, contraction = 1e-6, 0.5

    cell = Boastful(16)
    cell.load_state_dict(honest.cell.state_dict(), strict=False)
    cell.weight.data.copy_(honest.cell.weight.detach())  # type: ignore[union-attr]
    model = jiio.EquilibriumModel(honest.inject, cell, honest.head, tolerance=honest.tolerance).eval()
    found = report(model)
    assert "certificate" in names(found)
