"""The head that gives class and density: exact in two dimensions, what its term teaches, and what is refused."""

# pyright: reportArgumentType=false
# Wrong types are the point of the last table.

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import jiio
from jiio.tasks.classify import density
from jiio.tasks.classify.defences import Answers, Clean
from jiio.tasks.classify.density import DensityHead, HybridHead, has_zuko
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.load import build

needs_zuko = pytest.mark.skipif(not has_zuko(), reason="zuko is not installed (extra density)")


def head(classes: int = 3, width: int = 2) -> HybridHead:
    torch.manual_seed(0)
    return HybridHead(nn.Identity(), width, classes, transforms=2, hidden=8).double()


def config(*defence: dict[str, Any], **data: Any) -> ClassifyConfig:
    cell = {"name": "Dense", "options": {"features": 8}}
    shown = {"size": 8, "batch_size": 8, **data}
    return build(ClassifyConfig, {"task": "classify", "data": shown, "model": {"cell": cell}, "defence": list(defence)})


def with_head(**options: Any) -> dict[str, Any]:
    return {"name": "DensityHead", "options": {"hidden": 8, "transforms": 1, **options}}


@needs_zuko
def test_the_density_of_all_features_is_one() -> None:
    side = torch.linspace(-14, 14, 281, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        assert abs(float(head().log_density(grid).exp().sum()) * 0.1**2 - 1) < 1e-3


@needs_zuko
def test_scores_are_the_gaussians_and_the_volume_of_the_jacobian_by_finite_differences() -> None:
    made, f = head(), torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    transform, step = made.transform(), 1e-6
    ends = [(transform(f + e) - transform(f - e)) / (2 * step) for e in step * torch.eye(2, dtype=torch.float64)]
    volume = torch.cat(ends).det().abs().log()
    gaussian = torch.distributions.Normal(made.means, 1.0).log_prob(transform(f)).sum(1)
    assert torch.allclose(made.scores(f)[0], gaussian + volume - math.log(3), atol=1e-6)
    assert torch.allclose(made.log_density(f), made.scores(f).exp().sum(1).log())
    assert torch.equal(made(f), made.scores(f))


@needs_zuko
@pytest.mark.parametrize("through", [False, True])
def test_the_term_shapes_the_features_only_where_it_is_said(through: bool) -> None:
    task = Classify(config(with_head(through=through, weight=1.0, width=5)))  # a layer of its own makes the features
    model, defence = task.model().double(), task.config.defences()[0]
    batch = task.batch(model, 0)
    batch.x.data = batch.x.double()
    answers = Answers.of(batch.target, batch.x, [Clean()])
    term = defence.term(batch, answers)
    assert term is not None
    shaped = [p for name, p in model.named_parameters() if name.startswith(("cell", "head.inner"))]
    assert any(name.startswith("head.inner") for name, _ in model.named_parameters())
    assert isinstance(model.head, HybridHead)
    seen = torch.autograd.grad(term, [*shaped, model.head.means], allow_unused=True)
    assert seen[-1] is not None and float(seen[-1].abs().max()) > 0
    assert any(g is not None and float(g.abs().max()) > 0 for g in seen[:-1]) is through


@needs_zuko
def test_the_term_is_minus_the_mean_log_density_of_a_feature() -> None:
    task = Classify(config(with_head(weight=0.5), labels=20))
    model, defence = task.model(), task.config.defences()[0]
    batch = task.batch(model, 0)
    assert batch.unlabelled is not None
    with torch.no_grad():
        answers = Answers.of(batch.target, batch.x, [Clean()])
        told = [model(x).logsumexp(1).mean() for x in (batch.x, batch.target.normalised(batch.unlabelled))]
        found = defence.term(batch, answers)
    assert found is not None
    assert torch.allclose(found, -0.5 * torch.stack(told).mean() / 8, rtol=1e-3)


@needs_zuko
def test_labelled_and_unlabelled_images_are_different_ones() -> None:
    task = Classify(config(with_head(), labels=20))
    for step in range(6):
        batch = task.batch(task.model(), step)
        assert batch.unlabelled is not None
        assert apart(batch.x, task.data.train[:20]) == 0.0 == apart(batch.unlabelled, task.data.train[20:])


def apart(images: Tensor, known: Tensor) -> float:
    """How far the image that is farthest from all known ones is from them."""
    return float((images[:, None] - known).abs().amax((2, 3, 4)).amin(1).max())


@needs_zuko
def test_features_of_a_width_of_their_own_and_no_mask_in_the_weights() -> None:
    model = Classify(config(with_head(width=5))).model()
    assert isinstance(model.head, HybridHead) and model.head.means.shape == (2, 5)
    assert set(model.head.state_dict()) == {name for name, _ in model.head.named_parameters()}


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density, "has_zuko", lambda: False)
    with pytest.raises(jiio.JiioError, match=r"jiio\[density\]"):
        density.invertible(2, 1, 4)


def made(**options: Any) -> Callable[[], Any]:
    return lambda: DensityHead(**options)


def given(**options: Any) -> Callable[[], Any]:
    return lambda: HybridHead(**{"inner": nn.Identity(), "width": 2, "classes": 3} | options)


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "weight negative": (made(weight=-1.0), "DensityHead.weight"),
    "weight NaN": (made(weight=math.nan), "DensityHead.weight"),
    "weight a word": (made(weight="much"), "DensityHead.weight"),
    "width negative": (made(width=-1), "DensityHead.width"),
    "width a half": (made(width=0.5), "DensityHead.width"),
    "transforms none": (made(transforms=0), "DensityHead.transforms"),
    "hidden none": (made(hidden=0), "DensityHead.hidden"),
    "through a word": (made(through="yes"), "DensityHead.through"),
    "a plain network": (lambda: DensityHead().network(nn.Linear(2, 2)), "model"),
    "an unknown option": (lambda: config(with_head(depth=3)), "depth"),
    "labels without a use": (lambda: config(labels=10), "data.labels"),
    "labels without a weight": (lambda: config(with_head(weight=0.0), labels=10), "data.labels"),
    "labels none": (lambda: config(with_head(), labels=0), "data.labels"),
    "labels for all": (lambda: Classify(config(with_head(), labels=100_000)), "data.labels"),
    "head: width one": (given(width=1), "width"),
    "head: width a word": (given(width="two"), "width"),
    "head: no classes": (given(classes=0), "classes"),
    "head: classes a half": (given(classes=1.5), "classes"),
    "head: no transforms": (given(transforms=0), "transforms"),
    "head: too many transforms": (given(transforms=101), "transforms"),
    "head: hidden none": (given(hidden=0), "hidden"),
    "head: hidden negative": (given(hidden=-3), "hidden"),
    "head: hidden a word": (given(hidden="many"), "hidden"),
    "head: no module": (given(inner=len), "inner"),
    "head: a class": (given(inner=nn.Linear), "inner"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_a_sentence(case: str) -> None:
    action, words = BAD[case]
    with pytest.raises(jiio.JiioError, match=words) as caught:
        action()
    assert "\n" not in str(caught.value)
