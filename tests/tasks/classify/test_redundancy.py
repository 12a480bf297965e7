"""Redundancy reduction: the loss against closed forms, what it pulls on, and what is refused."""

# pyright: reportArgumentType=false
# Wrong types are the point of the last table.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from jiio.tasks.classify.redundancy import RedundancyReduction, features, redundancy
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.load import build

DOUBLE = torch.float64


def walsh(batch: int = 8) -> Tensor:
    """(8, 3), columns of ones and minus ones: mean zero, variance one, uncorrelated."""
    bits = torch.arange(batch)[:, None] >> torch.arange(3)[None, :]
    return (1.0 - 2.0 * (bits & 1)).to(DOUBLE)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def test_views_that_agree_in_features_of_their_own_cost_nothing() -> None:
    v = walsh()
    assert abs(float(redundancy(v, v))) < 1e-10
    # As HSIC wants it different features would have to be opposite: off (d - 1) is left.
    assert abs(float(redundancy(v, v, off=0.1, kind="hsic")) - 0.1 * 2) < 1e-5


def test_the_same_feature_three_times_is_redundant() -> None:
    """C = 1 everywhere: off (d - 1) for barlow, 4 off (d - 1) for hsic."""
    v = walsh()[:, :1].expand(-1, 3)
    assert abs(float(redundancy(v, v, off=0.5)) - 0.5 * 2) < 1e-5
    assert abs(float(redundancy(v, v, off=0.5, kind="hsic")) - 4 * 0.5 * 2) < 1e-5


def test_views_that_are_strangers_cost_one_each() -> None:
    """C = 0 for two sets of uncorrelated columns: (1 - 0)^2 for each feature."""
    bits = walsh()
    first, second = bits[:, :1], bits[:, 1:2]
    assert abs(float(redundancy(first, second)) - 1.0) < 1e-10
    assert abs(float(redundancy(first, -first)) - 4.0) < 1e-5  # C = -1


def test_neither_scale_nor_offset_matters() -> None:
    a, b = noise(0, 20, 4), noise(1, 20, 4)
    scale, offset = torch.tensor([1.0, 10.0, 0.5, 3.0], dtype=DOUBLE), noise(2, 4)
    assert abs(float(redundancy(a, b)) - float(redundancy(a * scale + offset, b))) < 1e-4


@pytest.mark.parametrize("kind", ["barlow", "hsic"])
def test_it_equals_the_sum_written_out(kind: str) -> None:
    a, b, target = noise(0, 30, 4), noise(1, 30, 4), {"barlow": 0.0, "hsic": -1.0}[kind]
    expected = 0.0
    for i in range(4):
        for j in range(4):
            x, y = a[:, i] - a[:, i].mean(), b[:, j] - b[:, j].mean()
            c = float((x * y).mean() / (x.std(correction=0) * y.std(correction=0)))
            expected += (1 - c) ** 2 if i == j else 0.3 * (c - target) ** 2
    assert abs(float(redundancy(a, b, off=0.3, kind=kind)) - expected / 4) < 1e-5


def test_the_gradient_is_that_of_finite_differences() -> None:
    a, b = noise(0, 6, 3).requires_grad_(), noise(1, 6, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: redundancy(a, b, off=0.2), (a, b))


def test_features_are_vectors_or_means_of_maps() -> None:
    maps = torch.arange(24.0).view(2, 3, 2, 2)
    found = features((maps, torch.ones(2, 4)))
    assert found.shape == (2, 7) and torch.equal(found[:, :3], maps.mean((2, 3)))


def config(*defence: dict[str, Any], features: int = 12) -> ClassifyConfig:
    cell = {"name": "Dense", "options": {"features": features}}
    data = {"family": "faces", "size": 10, "batch_size": 8}
    return build(ClassifyConfig, {"data": data, "model": {"cell": cell}, "defence": list(defence)})


def test_in_a_training_it_is_added_to_the_cross_entropy_and_is_reproducible() -> None:
    found = []
    for defence in ([], [{"name": "RedundancyReduction", "options": {"weight": 0.5}}]) * 2:
        task = Classify(config(*defence))
        torch.manual_seed(0)
        loss, figures = task.loss(task.model(), 2)
        found.append((float(loss.detach()), figures))
    (plain, before), (with_term, after), _, (again, _) = found
    assert before["cross_entropy"] == after["cross_entropy"] and with_term > plain and again == with_term
    counts = [figures["evaluations"] for figures in (before, after)]
    assert counts[1]() > counts[0]()  # type: ignore[operator]  (two more solves are counted)


def test_without_labels_it_teaches_views_to_agree() -> None:
    """Twenty steps on the term alone lower it by a third, and reach injection and cell."""
    task, term = Classify(config()), RedundancyReduction(weight=1.0, noise=0.2)
    torch.manual_seed(0)
    model = task.model()
    agreeing = RedundancyReduction(weight=1.0, off=0.0, noise=0.3).term(task.batch(model, 0), None)
    assert float(agreeing.detach()) > 1e-2  # the two views are not one and the same
    weights = [p for name, p in model.named_parameters() if not name.startswith("head")]
    optimiser, losses = torch.optim.Adam(weights, 0.01), []
    for _ in range(20):
        optimiser.zero_grad()
        loss = term.term(task.batch(model, 0), None)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.67 * losses[0] and all(p.grad is not None for p in weights)


def made(**options: Any) -> Callable[[], Any]:
    return lambda: RedundancyReduction(**options)


A = torch.zeros(4, 3)
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "weight zero": (made(weight=0.0), "RedundancyReduction.weight"),
    "weight a word": (made(weight="much"), "RedundancyReduction.weight"),
    "off negative": (made(off=-0.1), "RedundancyReduction.off"),
    "off NaN": (made(off=float("nan")), "RedundancyReduction.off"),
    "kind unknown": (made(kind="twins"), "RedundancyReduction.kind"),
    "shift negative": (made(shift=-1), "RedundancyReduction.shift"),
    "shift a half": (made(shift=0.5), "RedundancyReduction.shift"),
    "noise negative": (made(noise=-1.0), "RedundancyReduction.noise"),
    "neither shift nor noise": (made(shift=0, noise=0.0), "a shift or noise"),
    "features of other widths": (lambda: redundancy(A, A[:, :2]), "features"),
    "features of one image": (lambda: redundancy(A[:1], A[:1]), "two images or more"),
    "features that are maps": (lambda: redundancy(A[None], A[None]), "features"),
    "an unknown kind of loss": (lambda: redundancy(A, A, kind="vicreg"), "kind"),
    "a network without an equilibrium": (
        lambda: build(
            ClassifyConfig,
            {"model": {"cell": {"name": "Reference"}}, "defence": [{"name": "RedundancyReduction"}]},
        ),
        "needs an equilibrium",
    ),
    "an unknown option": (lambda: config({"name": "RedundancyReduction", "options": {"lambda": 1.0}}), "lambda"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_are_refused_in_a_sentence(case: str) -> None:
    action, words = BAD[case]
    with pytest.raises(jiio.JiioError, match=words) as caught:
        action()
    assert "\n" not in str(caught.value)
