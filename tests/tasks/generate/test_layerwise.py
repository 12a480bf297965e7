"""Inversion of generators: what every method promises, when layers determine their input, and what noise costs."""

from __future__ import annotations

import math

import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from inversion_cases import DOUBLE, FORWARD, apart, codes, equilibrium, picture_of, random_net
from jiio.checks import JiioError
from jiio.tasks.generate.generator import LatentGenerator
from jiio.tasks.generate.inversion.base import AbstractInversion, AdamDescent, JointFit
from jiio.tasks.generate.inversion.layers import layers_of, spectrum, undone
from jiio.tasks.generate.inversion.layerwise import LayerWise, Pursuit

# ----------------------------------------------------------------------------------------------------------------------
# The contract: every method on every kind of generator that it takes

CONTRACT = {
    "layers": (LayerWise(), FORWARD, 3),
    "adam": (AdamDescent(steps=300, starts=3), FORWARD, 3),
    "adam after layers": (AdamDescent(rate=1e-3, steps=3, start=LayerWise()), FORWARD, 3),
    "adam, equilibrium": (AdamDescent(steps=40, within=0.05), equilibrium(), 2),
    "joint": (JointFit(restarts=1), equilibrium(), 2),
}


@pytest.mark.parametrize("how, generator, latent", CONTRACT.values(), ids=CONTRACT)
def test_every_method_says_how_it_went(how: AbstractInversion, generator: nn.Module, latent: int):
    x = 0.5 * codes(3, latent)
    y = picture_of(generator, x)
    y = torch.cat([y, torch.flip(y[:1], [-1]) * 3])  # the last one is no image of this generator
    before = {name: t.clone() for name, t in generator.state_dict().items()}
    state = torch.get_rng_state()
    found = how.find(generator, y)
    assert found.succeeded.tolist() == [True, True, True, False]
    assert float(apart(found.x, torch.cat([x, x[:1]]))[:3].max()) < 50 * how.within
    assert torch.allclose(found.image, picture_of(generator, found.x), atol=1e-2 * how.within)
    error = (found.image - y).flatten(1).norm(dim=1)
    assert torch.allclose(found.residual, error / y.flatten(1).norm(dim=1))
    prior = generator.prior if isinstance(generator, LatentGenerator) else 0.0
    assert torch.allclose(found.objective, error.square() + prior * found.x.square().sum(1))
    assert bool((found.residual[found.succeeded] <= how.within).all())
    assert found.evaluations > 0 < found.gradients
    assert not any(t.requires_grad for t in (found.x, found.image, found.objective, found.residual))
    # Nothing of the generator or of anybody's random numbers has changed; again gives the same.
    assert all(torch.equal(t, before[name]) for name, t in generator.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in generator.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(how.find(generator, y).x, found.x)


@pytest.mark.parametrize("how, generator, latent", CONTRACT.values(), ids=CONTRACT)
def test_images_do_not_touch_each_other(how: AbstractInversion, generator: nn.Module, latent: int):
    y = picture_of(generator, 0.5 * codes(2, latent))
    if isinstance(how, JointFit):
        how = JointFit(restarts=0)  # the codes that it would start from are drawn for the whole batch
    both, alone = how.find(generator, y), how.find(generator, y[:1])
    assert torch.allclose(both.x[:1], alone.x, atol=1e-6)


# ----------------------------------------------------------------------------------------------------------------------
# Layer by layer


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(5, 20, 60), (4, 20, 60, 180), (8, 40)]))
def test_expanding_random_relu_generators_are_inverted_exactly(seed, widths):
    generator, x = random_net(*widths, seed=seed), codes(4, widths[0], seed)
    found = LayerWise().find(generator, picture_of(generator, x))
    assert bool(found.succeeded.all()) and float(apart(found.x, x).max()) < 1e-4
    assert len(found.layers) == len(widths) - 1 and all(bool(p.determined.all()) for p in found.layers)


@pytest.mark.parametrize("last", [None, nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.LeakyReLU(0.3)], ids=str)
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.2), nn.Tanh()], ids=str)
def test_every_activation_is_undone(activation, last):
    generator, x = random_net(4, 24, 96, activation=activation, last=last), 0.3 * codes(2, 4)
    found = LayerWise().find(generator, picture_of(generator, x))
    assert bool(found.succeeded.all()) and float(apart(found.x, x).max()) < 1e-4


def test_convolutions_of_an_image_generator():
    torch.manual_seed(0)
    generator = nn.Sequential(
        nn.Sequential(nn.Linear(3, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Unflatten(1, (12, 2, 2))),
        nn.ConvTranspose2d(12, 16, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.3),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(16, 3, 3, padding=1),
        nn.Dropout(),
    )
    generator[0][1].running_mean.copy_(0.1 * torch.randn(48))  # type: ignore[index,union-attr,operator]
    generator = generator.double().eval()
    layers = layers_of(generator, 3)
    assert [layer.shape for layer in layers] == [(3,), (48,), (16, 4, 4)]
    weights = [3 * 48, 12 * 16 * 16 * 2 * 2, 16 * 3 * 9 * 8 * 8]
    assert [layer.work for layer in layers] == [1 + w for w in weights]
    x = codes(2, 3)
    y = picture_of(generator, x)
    found = LayerWise(max_steps=300).find(generator, y)
    assert found.image.shape == (2, 3, 8, 8)
    # 16 channels at half the resolution, upsampled, are mixed into 3: more unknowns than pixels.
    assert found.layers[2].determined.tolist() == [False, False] and not bool(found.succeeded.any())
    head = generator[:3]
    found = LayerWise().find(head, picture_of(head, x))
    assert bool(found.succeeded.all()) and float(apart(found.x, x).max()) < 1e-4


@pytest.mark.parametrize("widths, culprit", [((20, 10, 60), 0), ((10, 12, 60), 0), ((6, 60, 20), 1), ((6, 5, 40), 0)])
def test_layers_that_do_not_expand_are_failures_not_wrong_answers(widths, culprit):
    generator, x = random_net(*widths), codes(8, widths[0])
    found = LayerWise().find(generator, picture_of(generator, x))
    wrong = apart(found.x, x) > 1e-2
    assert float(wrong.double().mean()) > 0.5 and not bool((found.succeeded & wrong).any())
    assert not bool(found.layers[culprit].determined[wrong].any())
    if culprit == 0:  # the image itself is reproduced: the residual alone would have called it a success
        assert bool((found.residual < 1e-4).all())


def test_a_layer_that_was_silent_is_not_known():
    generator, x = random_net(3, 12, 36), codes(2, 3)
    hidden = generator[0]
    assert isinstance(hidden, nn.Linear)
    hidden.bias.data.fill_(-100.0)
    found = LayerWise().find(generator, picture_of(generator, x))
    assert bool((found.residual == 0).all()) and not bool(found.succeeded.any())
    assert [p.determined.tolist() for p in found.layers] == [[False, False], [True, True]]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000))
def test_a_success_is_the_right_code_where_layers_are_on_the_edge(seed):
    """Twice as many outputs as inputs: half of the codes are determined. No wrong one may pass."""
    generator, x = random_net(8, 16, 32, seed=seed), codes(8, 8, seed)
    found = LayerWise().find(generator, picture_of(generator, x))
    assert not bool((found.succeeded & (apart(found.x, x) > 1e-2)).any())


def test_the_error_is_as_large_as_the_noise():
    generator, x = random_net(6, 30, 90), codes(8, 6)
    clean = picture_of(generator, x)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    noise *= clean.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)
    errors = []
    for size in (1e-4, 1e-3, 1e-2):
        found = LayerWise(within=2 * size).find(generator, clean + size * noise)
        assert bool(found.succeeded.all()) and bool((found.residual < 1.5 * size).all())
        errors.append(float(apart(found.x, x).median()) / size)
    assert all(0.1 < error < 2.0 for error in errors)
    assert max(errors) / min(errors) < 1.5
    # The same images as exact ones: nothing fits, and it says so.
    assert not bool(LayerWise().find(generator, clean + 0.05 * noise).succeeded.any())


def test_sparse_inputs_are_found_where_a_layer_does_not_expand():
    """100 hidden units, a sixth of them positive, seen through 60 pixels."""
    generator, x = random_net(10, 100, 60), codes(8, 10)
    first = generator[0]
    assert isinstance(first, nn.Linear)
    first.bias.data.fill_(-1.0)
    y = picture_of(generator, x)
    plain, sparse = LayerWise(sparsity=0.0).find(generator, y), LayerWise().find(generator, y)
    assert int(sparse.succeeded.sum()) >= 6 > int(plain.succeeded.sum())
    assert float(apart(sparse.x, x)[sparse.succeeded].max()) < 1e-3


def test_a_pursuit_is_nonnegative_least_squares():
    """Against the active-set method of Lawson and Hanson, with more unknown than known, and noise."""
    generator = random_net(10, 25)
    (layer,) = layers_of(generator, 10)
    y = codes(3, 25)
    power, _ = spectrum(layer, y)
    found = Pursuit(layer, *undone(nn.Identity(), y, 0.0), nn.ReLU(), power).solve(y.new_zeros(3, 10), 0.0, 5000, 1e-10)
    weight, bias = (p.detach().numpy() for p in generator.parameters())
    for v, target in zip(found.v, y.numpy(), strict=True):
        assert v.numpy() == pytest.approx(scipy.optimize.nnls(weight, target - bias)[0], abs=1e-7)
    exact = torch.linalg.matrix_norm(torch.from_numpy(weight), 2).square()
    assert 1.0 <= float(power / exact) < 1.11


def test_codes_of_single_precision():
    generator, x = random_net(4, 24, 80).float(), codes(3, 4).float()
    found = LayerWise().find(generator, picture_of(generator, x))
    assert found.x.dtype == torch.float32 and bool(found.succeeded.all())
    assert float(apart(found.x, x).max()) < 1e-4


# ----------------------------------------------------------------------------------------------------------------------
# Adam


def test_adam_pays_one_pass_there_and_back_for_every_step_and_start():
    generator = random_net(3, 12, 36)
    y = picture_of(generator, codes(2, 3))
    one, three = (AdamDescent(steps=20, starts=n).find(generator, y) for n in (1, 3))
    assert (one.evaluations, one.gradients, three.evaluations, three.gradients) == (21, 20, 63, 60)
    assert bool((three.objective <= one.objective).all())  # the first start is the same
    layers = LayerWise().find(generator, y)
    both = AdamDescent(rate=1e-6, steps=5, start=LayerWise()).find(generator, y)
    assert both.evaluations == pytest.approx(layers.evaluations + 6)
    assert bool((both.objective <= layers.objective * 1.001).all())


def test_adam_reduces_the_objective_that_noise_left_to_the_layers():
    """Layer by layer, noise is fitted once per layer; the least squares of the whole are better."""
    generator, x = random_net(6, 30, 90), codes(8, 6)
    y = picture_of(generator, x)
    y = y + 0.02 * y.std() * torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    layers = LayerWise(within=0.04).find(generator, y)
    both = AdamDescent(rate=0.01, steps=100, start=LayerWise(within=0.04), within=0.04).find(generator, y)
    assert bool((both.objective < layers.objective).all())


# ----------------------------------------------------------------------------------------------------------------------
# Bad input


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square()


Y = torch.rand(2, 36, dtype=DOUBLE)
BAD = {
    "no such rate": (lambda: AdamDescent(rate=0.0), "rate"),
    "no steps": (lambda: AdamDescent(steps=0), "steps"),
    "no starts": (lambda: AdamDescent(starts=0), "starts"),
    "a class as start": (lambda: AdamDescent(start=LayerWise), "not the class"),  # type: ignore[arg-type]
    "nothing within": (lambda: LayerWise(within=0.0), "within"),
    "too sparse": (lambda: LayerWise(sparsity=2.0), "sparsity"),
    "negative support": (lambda: LayerWise(support=-1.0), "support"),
    "no tolerance": (lambda: LayerWise(rtol=0.0), "rtol"),
    "one step": (lambda: JointFit(max_steps=1), "max_steps"),
    "no generator": (lambda: LayerWise().find(torch.relu, Y), "generator"),  # type: ignore[arg-type]
    "no tensor": (lambda: AdamDescent().find(FORWARD, [1.0]), "images"),  # type: ignore[arg-type]
    "whole numbers": (lambda: LayerWise().find(FORWARD, torch.ones(2, 36, dtype=torch.int64)), "images"),
    "another shape": (lambda: LayerWise().find(FORWARD, Y[:, :35]), r"\(36,\), float64"),
    "another precision": (lambda: LayerWise().find(FORWARD, Y.float()), "float64"),
    "no images": (lambda: AdamDescent().find(FORWARD, Y[:0]), "images"),
    "not finite": (lambda: AdamDescent().find(FORWARD, Y * math.nan), "finite"),
    "no layers": (lambda: LayerWise().find(equilibrium(), Y[:, :16].view(2, 1, 4, 4)), "JointFit"),
    "no equilibrium": (lambda: JointFit().find(FORWARD, Y), "AdamDescent or LayerWise"),
    "unknown layer": (lambda: LayerWise().find(nn.Sequential(*FORWARD, Squared()).eval(), Y), "Squared"),
    "flat": (lambda: LayerWise().find(random_net(3, 12, 36, last=nn.LeakyReLU(0.0)), Y), "rising"),
    "training": (lambda: AdamDescent().find(nn.Sequential(*FORWARD, nn.Dropout()).train(), Y), r"eval\(\)"),
    "no codes": (lambda: AdamDescent().find(nn.Conv2d(1, 1, 1).double(), Y), "Unflatten"),
}


@pytest.mark.parametrize("call, words", BAD.values(), ids=BAD)
def test_bad_input_gets_a_sentence(call, words):
    with pytest.raises(JiioError, match=words):
        call()
