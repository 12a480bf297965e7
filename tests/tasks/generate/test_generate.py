"""Generators: the gradients that train them, densities of codes, distances between sets, honest fits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

import jiio
from helpers import central, relative
from jiio.checks import JiioError
from jiio.models import DenseConfig, ModelConfig
from jiio.models import build as build_model
from jiio.tasks.cli import main
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.load import build
from jiio.tasks.generate.codes import GaussianMixture
from jiio.tasks.generate.fit.fit import Fit, fit_images, surprise
from jiio.tasks.generate.generator import Inferred, LatentGenerator
from jiio.tasks.generate.inference import JointInference, NestedInference, VariationalInference
from jiio.tasks.generate.samples import auroc, nearest_neighbour_accuracy, sliced_wasserstein
from jiio.tasks.generate.task import Generate, GenerateConfig, encoder_plan, load_generator
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.families import load_images
from loop_cases import dies, stopped

TIGHT: dict[str, Any] = {"atol": 1e-12, "rtol": 1e-11}


def small(seed: int = 0, *, encoder: bool = False, activation: str = "tanh") -> LatentGenerator:
    """Images of 3 x 3 pixels from 2 numbers, in double precision."""
    torch.manual_seed(seed)
    plan = ModelConfig(DenseConfig(6, activation=activation, gain=0.5), (2,), "image", (1, 3, 3), "none")
    reads = build_model(encoder_plan(plan), tolerance=jiio.Tolerance(1e-12, 1e-11)) if encoder else None
    return LatentGenerator(build_model(plan), torch.full((1, 3, 3), 0.4), prior=0.3, encoder=reads).double()


def images(count: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient_check(model: LatentGenerator, loss, tolerance: float) -> None:
    """The gradient of loss() against central differences along two directions of all weights."""
    weights = list(model.parameters())
    at = torch.cat([p.detach().flatten() for p in weights])

    def move(vector: Tensor) -> Tensor:
        with torch.no_grad():
            for p, part in zip(weights, vector.split([p.numel() for p in weights]), strict=True):
                p.copy_(part.view_as(p))
        return loss()

    found = torch.autograd.grad(loss(), weights, allow_unused=True)
    gradient = torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(found, weights, strict=True)]
    )
    draw = torch.Generator().manual_seed(5)
    for _ in range(2):
        direction = torch.randn(at.shape, generator=draw, dtype=torch.float64)
        assert relative(float(gradient @ direction), central(move, at, direction)) < tolerance
    move(at)


# ----------------------------------------------------------------------------------------------------------------------
# The three ways to train


def test_the_envelope_gradient_of_a_joint_fit_is_exact():
    model, y = small(), images()
    how = JointInference(**TIGHT, max_steps=500)
    gradient_check(model, lambda: how.infer(model, y).loss.sum(), 1e-6)


@pytest.mark.slow
def test_nested_adam_trains_on_the_same_loss_and_gradient():
    model, y = small(), images()
    joint = JointInference(**TIGHT, max_steps=500).infer(model, y)
    nested = NestedInference(rate=0.05, steps=120, atol=1e-9, rtol=1e-8).infer(model, y)
    assert torch.allclose(joint.loss, nested.loss, rtol=1e-4)
    weights = list(model.decoder.parameters())
    a, b = (torch.cat([g.flatten() for g in torch.autograd.grad(r.loss.sum(), weights)]) for r in (joint, nested))
    assert float((a - b).norm() / a.norm()) < 0.05
    assert joint.calls < nested.calls


def test_the_variational_bound_and_its_gradient():
    """Against its closed form, with the state by plain iteration; and finite differences."""
    model, y = small(encoder=True), images()
    noise = torch.randn(4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    how = VariationalInference(**TIGHT)
    loss = how.infer(model, y, noise).loss
    mean, log_spread = model.encode(y)
    x = mean + log_spread.exp() * noise
    z = torch.zeros(4, 6, dtype=torch.float64)
    for _ in range(100):
        z = model.decoder.cell(z, model.decoder.inject(x))
    q = torch.distributions.Normal(mean, log_spread.exp())
    p = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = (model.decode(z) - y).square().flatten(1).sum(1)
    expected = expected + 2 * model.prior * torch.distributions.kl_divergence(q, p).sum(1)
    assert torch.allclose(loss, expected, rtol=1e-8)
    gradient_check(model, lambda: how.infer(model, y, noise).loss.sum(), 1e-5)
    assert torch.equal(how.infer(model, y).x, mean.detach())  # without noise the best code


def test_running_moments_are_means_over_batches():
    model, draw = small(), torch.Generator().manual_seed(0)
    codes = [torch.randn(50, 2, generator=draw, dtype=torch.float64) + 3 for _ in range(4)]
    for x in codes:
        z = model.decoder.solve(x).z
        y = model.decode(z).detach() + 0.1
        model.observe(y, Inferred(x, z, torch.ones(50), 0, torch.ones(50, dtype=torch.bool)))
    every = torch.cat(codes)
    assert torch.allclose(model.code_mean, every.mean(0))
    assert torch.allclose(model.code_square, every.T @ every / 200)
    assert float(model.errors[2]) == pytest.approx(0.01)
    before = model.code_mean.clone()
    bad = torch.full((50, 2), math.nan, dtype=torch.float64)
    model.observe(images(50), Inferred(bad, torch.zeros(50, 6).double(), torch.ones(50), 0, torch.zeros(50)))
    assert torch.equal(model.code_mean, before)


# ----------------------------------------------------------------------------------------------------------------------
# Fits


def test_a_fit_finds_the_code_of_a_generated_image():
    model = small()
    model.prior = 1e-8
    x = torch.tensor([[0.3, -0.4], [-0.5, 0.1]], dtype=torch.float64)
    y = model.decode(model.decoder.solve(x).z).detach()
    fit = fit_images(model, y, restarts=2, tolerance=jiio.Tolerance(1e-10, 1e-9), max_steps=500)
    assert bool(fit.converged.all()) and torch.allclose(fit.x, x, atol=1e-3)
    assert float(fit.error.max()) < 1e-8 and fit.starts.shape == (3, 2)
    assert torch.allclose(fit.objective, fit.error + fit.prior)
    assert bool((fit.objective <= fit.starts.amin(0) + 1e-12).all())


def test_a_fit_that_was_stopped_says_so():
    fit = fit_images(small(), images(), max_steps=3)
    assert not bool(fit.converged.any()) and float(fit.residual.min()) > 1e-3


def test_a_further_start_that_converged_replaces_one_that_did_not(monkeypatch):
    solve: Any = jiio.solve
    calls = []

    def sometimes(*where, **options):
        calls.append(None)
        return solve(*where, **(options | {"max_steps": 3} if len(calls) == 1 else options))

    monkeypatch.setattr(jiio, "solve", sometimes)
    fit = fit_images(small(), images(), restarts=1)
    assert len(calls) == 2 and bool(fit.converged.all()) and bool((fit.start == 1).all())


def test_the_surprise_of_a_linear_generator_is_minus_the_log_density():
    """A relu far from its kink is linear, so the image is Gaussian: mean d(m), covariance J C J^T + s^2 1."""
    model = small(activation="relu")
    with torch.no_grad():
        model.decoder.get_parameter("inject.linear.bias").fill_(50.0)
        model.code_mean.copy_(torch.tensor([0.2, -0.1]))
        mean = model.code_mean
        model.code_square.copy_(torch.tensor([[0.8, 0.2], [0.2, 0.5]]).double() + torch.outer(mean, mean))
        model.errors.copy_(torch.tensor([1.0, 2.0, 0.04]))
    covariance, variance = model.codes.covariances[0], 0.04

    def decode(x: Tensor) -> Tensor:
        return model.decode(model.decoder.solve(x, tolerance=jiio.Tolerance(1e-13, 1e-13)).z).detach().flatten(1)

    origin = decode(torch.zeros(1, 2).double())
    slope = torch.cat([decode(torch.eye(2).double()[i : i + 1]) - origin for i in range(2)])  # (2, pixels)
    y = origin + torch.tensor([[0.3, 0.4]]).double() @ slope + 0.1 * torch.randn(1, 9).double()
    precision = torch.linalg.inv(covariance)
    hessian = precision + slope @ slope.T / variance
    x = torch.linalg.solve(hessian, slope @ (y - origin)[0] / variance + precision @ mean)[None]
    image = decode(x)
    error = (image - y).square().sum(1)
    blank = torch.zeros(1).double()
    fit = Fit(image.view(1, 1, 3, 3), x, error, error, blank, blank, blank, blank, blank, 0, 0, None)  # type: ignore[arg-type]
    gaussian = torch.distributions.MultivariateNormal(
        origin[0] + mean @ slope, slope.T @ covariance @ slope + variance * torch.eye(9).double()
    )
    assert float(surprise(model, fit)) == pytest.approx(-float(gaussian.log_prob(y)), rel=1e-6)


# ----------------------------------------------------------------------------------------------------------------------
# Densities of codes


def test_one_gaussian_has_the_moments_of_the_codes():
    codes = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ torch.diag(
        torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    )
    found = GaussianMixture.fit(codes, 1, generator=torch.Generator())
    own = torch.distributions.MultivariateNormal(found.means[0], found.covariances[0])
    assert torch.allclose(found.log_density(codes), own.log_prob(codes))
    assert torch.allclose(found.means[0], codes.mean(0))
    drawn = found.draw(20000, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(drawn.T.cov(), found.covariances[0], atol=0.12)


def test_a_mixture_finds_two_clusters_and_beats_one_gaussian():
    draw = torch.Generator().manual_seed(0)
    codes = 0.3 * torch.randn(600, 2, generator=draw, dtype=torch.float64)
    codes[:200] += 4.0
    mixture = GaussianMixture.fit(codes, 2, generator=torch.Generator().manual_seed(1))
    assert sorted(mixture.weights.tolist()) == pytest.approx([1 / 3, 2 / 3], abs=0.02)
    one = GaussianMixture.fit(codes, 1, generator=draw)
    assert float(mixture.log_density(codes).mean()) > float(one.log_density(codes).mean()) + 0.5
    share = (mixture.draw(3000, generator=torch.Generator().manual_seed(2))[:, 0] > 2).double().mean()
    assert float(share) == pytest.approx(1 / 3, abs=0.04)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_a_mixture_is_always_a_density(seed, components):
    codes = torch.randn(12, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    codes[:, 2] = codes[:, 0]  # a direction without any spread
    mixture = GaussianMixture.fit(codes, components, generator=torch.Generator().manual_seed(seed))
    assert float(mixture.weights.sum()) == pytest.approx(1.0)
    assert bool((torch.linalg.eigvalsh(mixture.covariances) > 0).all())
    assert bool(torch.isfinite(mixture.log_density(codes)).all())


# ----------------------------------------------------------------------------------------------------------------------
# Distances between sets


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(-0.5, 0.5))
def test_sliced_wasserstein_of_a_shifted_set(seed, shift):
    draw = torch.Generator().manual_seed(seed)
    a = torch.rand(20, 1, 4, 4, generator=draw)
    assert sliced_wasserstein(a, a[torch.randperm(20, generator=draw)]) == pytest.approx(0.0, abs=1e-7)
    # The projection of a constant image onto a random unit direction has variance c^2 pixels / pixels.
    assert sliced_wasserstein(a, a + shift, projections=4000) == pytest.approx(abs(shift), rel=0.1, abs=1e-6)


def test_the_nearest_neighbour_tells_sets_apart():
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.rand(200, 1, 4, 4, generator=draw) for _ in range(2))
    assert nearest_neighbour_accuracy(a, a + 5) == 1.0
    assert nearest_neighbour_accuracy(a, b) == pytest.approx(0.5, abs=0.08)
    assert nearest_neighbour_accuracy(a, a + 1e-6) < 0.1  # copies


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_auroc_counts_pairs(inside, outside):
    pairs = [1.0 if b > a else 0.5 if b == a else 0.0 for a in inside for b in outside]
    expected = sum(pairs) / len(pairs)
    assert auroc(torch.tensor(inside), torch.tensor(outside)) == pytest.approx(expected)


# ----------------------------------------------------------------------------------------------------------------------
# The task

TOY = {
    "task": "generate",
    "steps": 4,
    "checkpoint_every": 2,
    "threads": 1,
    "data": {"size": 12, "batch_size": 4},
    "model": {"cell": {"name": "Dense", "options": {"features": 12, "gain": 0.6}}, "latent": 4},
    "sampling": {"codes": 20, "samples": 10},
    "inference": {"name": "Joint", "options": {"max_steps": 20}},
}
HOW = {"Joint": {"max_steps": 20}, "Nested": {"steps": 5}, "Variational": {}}


def toy(output: Path, **changes) -> GenerateConfig:
    return build(GenerateConfig, TOY | {"output": str(output)} | changes)


@pytest.mark.parametrize("name", HOW)
def test_training_improves_reconstruction(name, tmp_path):
    task = Generate(toy(tmp_path, inference={"name": name, "options": HOW[name]}))
    torch.manual_seed(0)
    model = task.model()
    assert isinstance(model, LatentGenerator) and (model.encoder is not None) == (name == "Variational")
    before = task.loss(model, 99)[0].item()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(8):
        optimiser.zero_grad()
        task.loss(model, step)[0].backward()
        optimiser.step()
    assert task.loss(model, 99)[0].item() < 0.9 * before


def test_the_multiscale_decoder_trains_too(tmp_path):
    cell = {"name": "Multiscale", "options": {"channels": [4, 4], "expansion": 1, "groups": 2, "fusion_groups": 2}}
    cell["options"] |= {"head_channels": [2, 2], "final_channels": 4, "activation": "silu"}
    task = Generate(
        toy(tmp_path, model={"cell": cell, "latent": 3}, inference={"name": "Joint", "options": {"max_steps": 5}})
    )
    torch.manual_seed(0)
    loss, _ = task.loss(task.model(), 0)
    assert math.isfinite(loss.item()) and loss.requires_grad


@pytest.mark.parametrize("name", HOW)
def test_the_command_trains_shows_and_measures(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("g.yaml").write_text(
        "task: generate\nsteps: 2\ndata: {size: 12, batch_size: 4}\nsampling: {codes: 20, samples: 10}\n"
    )
    model = ["--model.cell", '{"name": "Dense", "options": {"features": 8}}', "--model.latent", "3"]
    words = [*model, "--inference.name", name, "--inference.options", str(HOW[name]).replace("'", '"')]
    assert main(["train", "g.yaml", "--output", "run", *words]) == 0
    for sheet in ("samples.png", "reconstructions.png", "interpolations.png"):
        Image.open(Path("run") / sheet).verify()
    capsys.readouterr()
    assert main(["evaluate", "run", "--json", "f.json"]) == 0
    table = capsys.readouterr().err
    for word in (name, "joint fit", "mean image", "samples", "training images", "sliced Wasserstein", "told apart"):
        assert word in table


def test_a_resumed_training_is_the_same_bit_for_bit(tmp_path):
    from jiio.tasks.frame.loop import train

    train(toy(tmp_path / "a"), report=lambda line: None)
    with pytest.raises(KeyboardInterrupt), stopped(Generate, 3, dies):
        train(toy(tmp_path / "b"), report=lambda line: None)
    train(toy(tmp_path / "b"), resume=True, report=lambda line: None)
    a, b = load(tmp_path / "a" / "weights.safetensors"), load(tmp_path / "b" / "weights.safetensors")
    assert a.step == b.step == 4 and all(torch.equal(t, b.tensors[name]) for name, t in a.tensors.items())
    model = load_generator(a)  # the moments of the codes come with the weights
    trained = Generate.trained(a).state_dict()
    assert all(torch.equal(trained[name], value) for name, value in model.state_dict().items())
    assert float(model.seen) == 4 and not torch.equal(model.code_mean, torch.zeros(4))


def test_patches_come_from_photographs_and_the_test_ones_from_another():
    found = load_images(DataConfig(family="patches", size=16))
    assert found.train.shape == (6000, 1, 16, 16) and found.test.shape == (500, 1, 16, 16)
    assert torch.equal(found.train, load_images(DataConfig(family="patches", size=16)).train)
    assert len(np.unique(found.test.flatten(1).mean(1).numpy().round(3))) > 50


@pytest.mark.parametrize(
    "values, words",
    [
        ({"inference": {"name": "Joined"}}, "Did you mean 'Joint'"),
        ({"inference": {"name": "Nested", "options": {"steps": 0}}}, "steps"),
        ({"inference": {"name": "Variational", "options": {"steps": 3}}}, "no such option"),
        ({"sampling": {"components": 0}}, "sampling.components"),
        ({"sampling": {"samples": 1}}, "sampling.samples"),
        ({"sampling": {"codes": 1}}, "sampling.codes"),
        ({"model": {"latent": 0}}, "model.latent"),
        ({"model": {"prior": -1.0}}, "model.prior"),
        ({"data": {"family": "patch"}}, "Did you mean 'patches'"),
        ({"data": {"train_limit": 1}}, "two training images"),
        ({"corruption": {"name": "BoxHole"}}, "no such key"),
        ({"joint": {"max_steps": 3}}, "no such key"),
    ],
)
def test_bad_configurations_get_a_sentence(values, words):
    with pytest.raises(JiioError, match=words):
        Generate(build(GenerateConfig, {"task": "generate"} | values))
