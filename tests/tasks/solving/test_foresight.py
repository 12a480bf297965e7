"""A model that keeps its sensitivity: trained, saved and fitted with it, at the same answers in fewer calls."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from helpers import gap
from jiio.models import DenseConfig, ModelConfig
from jiio.models import build as build_model
from jiio.tasks.frame.config import ConfigError
from jiio.tasks.frame.load import build
from jiio.tasks.frame.loop import train
from jiio.tasks.generate.fit.fit import fit_images
from jiio.tasks.generate.generator import LatentGenerator
from jiio.tasks.generate.task import Generate, GenerateConfig
from jiio.tasks.restore.latent import Restore, RestoreConfig
from jiio.tasks.solving.foresight import due
from jiio.tasks.solving.settings import JointConfig
from jiio.tasks.solving.starts import Plain

DENSE = {"name": "Dense", "options": {"features": 24, "gain": 0.5, "scaling": "spectral"}}
SMALL: dict[str, Any] = {
    "threads": 1,
    "steps": 4,
    "data": {"family": "faces", "size": 12, "batch_size": 4, "train_limit": 8, "test_limit": 4},
    "model": {"cell": DENSE, "latent": 6, "prior": 0.05, "jacobian": 0.1},
}


def generator() -> LatentGenerator:
    torch.manual_seed(0)
    plan = ModelConfig(DenseConfig(24, gain=0.5), (6,), "image", (1, 12, 12))
    return LatentGenerator(build_model(plan), torch.full((1, 12, 12), 0.4), prior=0.05).eval().requires_grad_(False)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def test_a_model_that_measured_it_fits_the_same_codes_in_fewer_calls(images: Tensor) -> None:
    model = generator()
    close: dict[str, Any] = {"tolerance": jiio.Tolerance(1e-6, 1e-5)}
    plain = fit_images(model, images, **close)
    assert model.foresee() < 40
    found = fit_images(model, images, **close)
    assert bool(plain.converged.all() & found.converged.all()) and gap(plain.x, found.x) < 1e-3
    assert 1.5 * (found.evaluations + found.vjps) < plain.evaluations + plain.vjps


def test_never_measured_it_says_nothing(images: Tensor) -> None:
    model = generator()
    twin = LatentGenerator(model.decoder, model.mean, prior=model.prior, foresight=True)
    assert isinstance(twin.beginning, Plain)
    assert torch.equal(fit_images(model, images).x, fit_images(twin, images).x)


def configured(kind: type, every: int, **over: Any) -> Any:
    if kind is RestoreConfig:
        more = {"joint": {"metric_every": every, "max_steps": 12, "adjoint": {"name": "Implicit"}}}
        return build(kind, SMALL | {"corruption": {"name": "BoxHole", "options": {"side": 4}}} | more | over)
    options = {"metric_every": every, "max_steps": 12}
    return build(kind, SMALL | {"inference": {"name": "Joint", "options": options}} | over)


@pytest.mark.parametrize(("kind", "task"), [(RestoreConfig, Restore), (GenerateConfig, Generate)])
def test_a_training_measures_it_in_turn_and_saves_it(kind: type, task: type, tmp_path: Path) -> None:
    config = configured(kind, 2, output=str(tmp_path / "run"))
    model = task(config).model()
    told = [task(config).loss(model, step)[1]["measuring"] for step in range(3)]
    assert told[0] > 0 and told[1] == 0 and told[2] > 0

    held = train(config)
    again = task.trained(held)
    assert again.foresight is not None and float(again.foresight.factor) < 1
    assert bool((again.foresight.matrix != 0).any()) and not isinstance(again.beginning, Plain)


def test_without_it_a_model_is_what_it_was() -> None:
    names = set(Restore(configured(RestoreConfig, 0)).model().state_dict())
    assert not any("foresight" in name for name in names)
    assert names < set(Restore(configured(RestoreConfig, 3)).model().state_dict())


def test_solves_of_a_training_converge_that_did_not() -> None:
    shares = []
    for every in (0, 1):
        options = {"metric_every": every, "max_steps": 30}
        task = Generate(build(GenerateConfig, SMALL | {"inference": {"name": "Joint", "options": options}}))
        torch.manual_seed(0)
        shares.append(task.loss(task.model().train(), 0)[1]["converged"])
    assert shares[1] > shares[0]


def test_due() -> None:
    assert [due(3, step) for step in range(7)] == [True, False, False, True, False, False, True]
    assert not any(due(0, step) for step in range(3))


def test_what_a_metric_cannot_go_with_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"joint\.rule: expected GradientStep where there is a metric"):
        build(JointConfig, {"rule": {"name": "AdamStep"}, "metric_every": 10})
    long = SMALL["model"] | {"latent": 600}
    for kind in (RestoreConfig, GenerateConfig):
        with pytest.raises(ConfigError, match="metric_every: expected 0 where codes have more than 512"):
            configured(kind, 10, model=long)
    assert dataclasses.replace(JointConfig(), metric_every=0).metric_every == 0
