"""Decoders that share a mixture over their codes: the mixture in closed form, codes, gradients, classes, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from jiio.models import DenseConfig, ModelConfig, build
from jiio.tasks.generate.shared import UNKNOWN, SharedDecoders, SharedMixture
from jiio.tasks.solving.latent import LatentRestorer

LATENT = 3


def decoder(prior: float = 0.1, latent: int = LATENT) -> LatentRestorer:
    plan = ModelConfig(DenseConfig(6, gain=0.5), (latent,), "image", (1, 4, 4), "none")
    return LatentRestorer(build(plan), torch.full((1, 4, 4), 0.5), prior=prior)


@pytest.fixture(autouse=True)
def tightly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solved so far that finite differences mean something."""
    monkeypatch.setattr("jiio.tasks.generate.shared.TOLERANCE", jiio.Tolerance(1e-9, 1e-9))


def shared(**options: Any) -> SharedDecoders:
    """Two small domains in double precision, three classes of which one runs into the next: one minimum."""
    torch.manual_seed(0)
    mixture = SharedMixture(3, LATENT)
    with torch.no_grad():
        mixture.means.copy_(torch.eye(3))
        mixture.shares.copy_(torch.tensor([0.3, -0.2, 0.1]))
    return SharedDecoders({"a": decoder(), "b": decoder(0.2)}, mixture, **{"max_steps": 300} | options).double().eval()


@pytest.fixture(scope="module")
def model() -> SharedDecoders:
    return shared()


def images(n: int = 4) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


# -- the mixture


def test_the_mixture_is_that_of_torch(model: SharedDecoders) -> None:
    mixture, x = model.mixture, torch.randn(5, LATENT, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(mixture.means, torch.eye(LATENT, dtype=torch.float64))
    expected = mixture.shares.log_softmax(0) + normal.log_prob(x[:, None])
    assert torch.allclose(mixture.components(x), expected)
    labels = torch.tensor([0, 2, UNKNOWN, 1, UNKNOWN])
    found = mixture.log_density(x, labels)
    for i, label in enumerate(labels.tolist()):
        own = expected[i].logsumexp(0) if label < 0 else expected[i, label]
        assert torch.allclose(found[i], own)


def test_all_classes_together_are_the_density_of_a_code(model: SharedDecoders) -> None:
    x = torch.randn(4, LATENT, dtype=torch.float64)
    each = torch.stack([model.mixture.log_density(x, torch.full((4,), k)) for k in range(3)])
    assert torch.allclose(each.logsumexp(0), model.mixture.log_density(x, torch.full((4,), UNKNOWN)))


# -- codes


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 1, 2, UNKNOWN])], ids=["unknown", "known"])
@pytest.mark.parametrize("domain", ["a", "b"])
def test_a_code_is_a_minimum_of_what_is_written(model: SharedDecoders, domain: str, labels: Tensor | None) -> None:
    """The objective by hand, with the state solved anew, is flat at the code, and rises on either side."""
    y, coded = images(), model.codes(domain, images(), labels)
    own = model.decoder(domain)
    known = torch.full((4,), UNKNOWN) if labels is None else labels

    def value(x: Tensor) -> Tensor:
        z = own.decoder.solve(x, tolerance=jiio.Tolerance(1e-10, 1e-10)).z
        return (own.decode(z) - y).square().flatten(1).sum(1) - 2 * own.prior * model.mixture.log_density(x, known)

    assert bool(coded.converged.all()) and coded.calls > 0
    with torch.no_grad():
        least = value(coded.x)
        for i in range(LATENT):
            step = torch.zeros(LATENT, dtype=torch.float64)
            step[i] = 0.05
            up, down = value(coded.x + step), value(coded.x - step)
            assert bool((up > least).all()) and bool((down > least).all())
            assert bool(((up - down).abs() < 0.2 * (up + down - 2 * least)).all())


def test_a_label_draws_the_code_to_its_component(model: SharedDecoders) -> None:
    """Nearer to the mean of its class than the code that any other label leaves."""
    codes = torch.cat([model.codes("b", images(1), torch.tensor([k])).x for k in range(3)])
    assert torch.cdist(codes, model.mixture.means.detach()).argmin(0).tolist() == [0, 1, 2]


def test_the_class_is_that_of_the_component_which_answers(model: SharedDecoders) -> None:
    said = model.classes("b", images())
    x = model.codes("b", images()).x
    assert torch.allclose(said, model.mixture.components(x).softmax(1).detach())
    assert torch.allclose(said.sum(1), torch.ones(4, dtype=torch.float64))


def test_the_label_is_not_told_to_the_recognition() -> None:
    """Its loss is minus the log of what ``classes`` says of the true class."""
    model, labels = shared(), torch.tensor([0, 1, 2, 1])
    loss = model.recognition("a", images(), labels).detach()
    said = model.classes("a", images()).gather(1, labels[:, None])[:, 0]
    assert torch.allclose(loss, -said.log(), atol=1e-3)


# -- what is trained


def test_the_bound_is_below_the_evidence_and_equal_to_its_sum() -> None:
    """By hand at given noise; a spread of one and no noise leave the objective at the code."""
    model, labels = shared(), torch.tensor([0, UNKNOWN, 2, 1])
    x, noise = torch.randn(2, 4, LATENT, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    drawn = x + model.log_spread.exp() * noise
    own = model.decoder("b")
    z = own.decoder.solve(drawn, tolerance=jiio.Tolerance(1e-8, 1e-8)).z
    error = (own.decode(z) - images()).square().flatten(1).sum(1)
    expected = error - 0.4 * model.mixture.log_density(drawn, labels) - 0.4 * LATENT * -1.0
    assert torch.allclose(model.bound("b", images(), labels, x, noise), expected, rtol=1e-3)
    with torch.no_grad():
        model.log_spread.zero_()
    still = model.bound("b", images(), labels, x, torch.zeros_like(noise))
    z = own.decoder.solve(x, tolerance=jiio.Tolerance(1e-8, 1e-8)).z
    plain = (own.decode(z) - images()).square().flatten(1).sum(1) - 0.4 * model.mixture.log_density(x, labels)
    assert torch.allclose(still, plain, rtol=1e-3)


@pytest.mark.parametrize("what", ["mixture.means", "mixture.shares", "log_spread"])
def test_gradients_of_the_bound_by_finite_differences(what: str) -> None:
    model, labels = shared(), torch.tensor([0, UNKNOWN, 2, 1])
    x, noise = torch.randn(2, 4, LATENT, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    check_gradient(model, what, lambda: model.bound("a", images(), labels, x, noise).sum(), rel=2e-3)


@pytest.mark.parametrize("what", ["mixture.means", "mixture.shares"])
def test_gradients_of_the_recognition_go_through_the_solve(what: str) -> None:
    model, labels = shared(), torch.tensor([0, 1, 2, 1])
    check_gradient(model, what, lambda: model.recognition("a", images(), labels).sum(), rel=3e-2)


def check_gradient(model: SharedDecoders, what: str, loss: Callable[[], Tensor], rel: float) -> None:
    parameter = dict(model.named_parameters())[what]
    (gradient,) = torch.autograd.grad(loss(), [parameter])
    way = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        step = 1e-4
        parameter += step * way
        up = loss()
        parameter -= 2 * step * way
        down = loss()
    slope = float((up - down) / (2 * step))
    assert float((gradient * way).sum()) == pytest.approx(slope, rel=rel) and abs(slope) > 1e-3


# -- bad input

BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no domain": (lambda: SharedDecoders({}, SharedMixture(2, 3)), "domains: expected at least one decoder"),
    "no mapping": (lambda: SharedDecoders([decoder()], SharedMixture(2, 3)), "domains: expected"),  # type: ignore[arg-type]
    "no decoder": (lambda: SharedDecoders({"a": 3}, SharedMixture(2, 3)), r"domains\.a: expected"),  # type: ignore[dict-item]
    "another latent": (lambda: SharedDecoders({"a": decoder()}, SharedMixture(2, 5)), "codes of 5 numbers"),
    "no noise": (lambda: SharedDecoders({"a": decoder(0.0)}, SharedMixture(2, 3)), r"domains\.a\.prior"),
    "no mixture": (lambda: SharedDecoders({"a": decoder()}, 3), "mixture: expected"),  # type: ignore[arg-type]
    "one step": (lambda: shared(max_steps=1), "max_steps: expected"),
    "no class": (lambda: SharedMixture(0, 3), "classes: expected"),
    "no number": (lambda: SharedMixture(2, 0), "latent: expected"),
    "unknown domain": (lambda: shared().codes("c", images()), "domain: expected"),
    "another size": (lambda: shared().codes("a", torch.rand(2, 1, 5, 5)), "images: expected images"),
    "no images": (lambda: shared().classes("a", torch.rand(0, 1, 4, 4)), "images: expected images"),
    "not finite": (lambda: shared().codes("a", torch.full((1, 1, 4, 4), math.nan)), "images: expected"),
    "too few labels": (lambda: shared().codes("a", images(), torch.tensor([1])), "labels: expected 4 whole numbers"),
    "broken labels": (lambda: shared().codes("a", images(), torch.rand(4)), "labels: expected 4 whole numbers"),
    "a class too many": (
        lambda: shared().recognition("a", images(), torch.tensor([0, 1, 2, 3])),
        "classes from 0 to 2",
    ),
    "below unknown": (lambda: shared().codes("a", images(), torch.tensor([0, 1, 2, -2])), "classes from 0 to 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_a_sentence(case: str) -> None:
    action, words = BAD[case]
    with pytest.raises(jiio.JiioError, match=words) as caught:
        action()
    assert "\n" not in str(caught.value)
