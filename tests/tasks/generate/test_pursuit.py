"""Latent pursuit, Gauss and Newton, images with holes: closed forms, derivatives, what each claims, and refusals."""

# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# Wrong types are the point of the last table.

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from inversion_cases import DOUBLE, FORWARD, apart, codes, equilibrium, picture_of, random_net
from jiio.checks import JiioError
from jiio.tasks.generate.inversion.base import AbstractInversion, AdamDescent
from jiio.tasks.generate.inversion.layers import Layer, Visible, layers_of
from jiio.tasks.generate.inversion.layerwise import LayerWise, Peeled
from jiio.tasks.generate.inversion.newton import GaussNewton, derivatives, settle
from jiio.tasks.generate.inversion.pursuit import LatentPursuit, PairInverted

# -- least squares


def test_derivatives_by_finite_differences() -> None:
    net = random_net(3, 8, 12, activation=nn.Tanh(), last=nn.Sigmoid())
    x = codes(4, 3)
    value, slope = derivatives(net, x)
    assert torch.allclose(value, picture_of(net, x)) and slope.shape == (4, 12, 3)
    for j in range(3):
        step = 1e-6 * torch.eye(3, dtype=DOUBLE)[j]
        moved = (picture_of(net, x + step) - picture_of(net, x - step)) / 2e-6
        assert torch.allclose(slope[:, :, j], moved, atol=1e-8)


def test_a_linear_problem_is_solved_in_one_step() -> None:
    draw = torch.Generator().manual_seed(0)
    a, y = torch.randn(7, 3, generator=draw, dtype=DOUBLE), torch.randn(5, 7, generator=draw, dtype=DOUBLE)

    def residual(x: Tensor) -> Tensor:
        return x @ a.T - y.repeat_interleave(len(x) // 5, 0)

    found = settle(residual, codes(5, 3), 1)
    assert torch.allclose(found.x, torch.linalg.lstsq(a, y.T).solution.T)
    assert torch.allclose(found.error, residual(found.x).square().sum(1)) and bool(found.determined.all())
    flat = torch.cat([a[:, :2], a[:, :1]], 1)  # the first and the last number of the code do the same

    def blind(x: Tensor) -> Tensor:
        return x @ flat.T - y.repeat_interleave(len(x) // 5, 0)

    assert not bool(settle(blind, codes(5, 3), 3).determined.any())
    assert not bool(settle(lambda x: residual(x)[:, :2], codes(5, 3), 3).determined.any())  # more unknown than known


def test_no_step_makes_it_worse() -> None:
    net = random_net(4, 9, 12)
    y, x = picture_of(net, codes(6, 4)), codes(6, 4, 7)

    def residual(v: Tensor) -> Tensor:
        return net(v) - y.repeat_interleave(len(v) // 6, 0)

    with torch.no_grad():
        errors = [residual(x).square().sum(1), *(settle(residual, x, steps).error for steps in (1, 2, 5))]
    assert all(bool((after <= before).all()) for before, after in itertools.pairwise(errors))


# -- the contract of an inversion

HOWS = {
    "latent": LatentPursuit(),
    "newton": GaussNewton(starts=3),
    "newton after latent": GaussNewton(steps=3, start=LatentPursuit()),
    "adam after latent": AdamDescent(rate=1e-3, steps=3, start=LatentPursuit()),
}


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
def test_every_method_says_how_it_went(how: AbstractInversion) -> None:
    x = 0.5 * codes(3, 3)
    y = picture_of(FORWARD, x)
    y = torch.cat([y, torch.flip(y[:1], [-1]) * 3])  # the last one is no image of this generator
    state = torch.get_rng_state()
    found = how.find(FORWARD, y)
    assert found.succeeded.tolist() == [True, True, True, False]
    assert float(apart(found.x, torch.cat([x, x[:1]]))[:3].max()) < 1e-3
    assert torch.allclose(found.image, picture_of(FORWARD, found.x))
    assert found.evaluations > 0 and not found.x.requires_grad
    assert torch.equal(torch.get_rng_state(), state) and all(p.grad is None for p in FORWARD.parameters())
    assert torch.allclose(how.find(FORWARD, y[1:2]).x, found.x[1:2], atol=1e-6)


# -- the last two problems


@pytest.mark.parametrize("last", [None, nn.ReLU(), nn.Sigmoid(), nn.LeakyReLU(0.3)], ids=str)
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.2), nn.Tanh()], ids=str)
def test_every_activation_is_undone(activation: nn.Module, last: nn.Module | None) -> None:
    generator, x = random_net(4, 24, 96, activation=activation, last=last), 0.3 * codes(2, 4)
    found = LatentPursuit().find(generator, picture_of(generator, x))
    assert bool(found.succeeded.all()) and float(apart(found.x, x).max()) < 1e-6


def test_a_layer_that_does_not_expand_is_no_obstacle_if_the_code_is_short() -> None:
    """40 hidden units through 24 pixels: not determined alone, determined by 5 numbers."""
    generator, x = random_net(5, 40, 24), codes(3, 5)
    y = picture_of(generator, x)
    layered, latent = LayerWise(max_steps=200).find(generator, y), LatentPursuit(max_steps=200).find(generator, y)
    assert not bool(layered.succeeded.any()) and bool(latent.succeeded.all())
    assert float(apart(latent.x, x).max()) < 1e-9


def test_under_noise_it_is_the_least_squares_of_both_layers() -> None:
    """On the support of the answer the generator is linear: its normal equations hold there."""
    generator, x = random_net(6, 30, 90), codes(5, 6)
    y = picture_of(generator, x)
    y = y + 0.01 * y.std() * torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    layered, latent = LayerWise(within=0.04).find(generator, y), LatentPursuit(within=0.04).find(generator, y)
    assert bool((latent.objective <= layered.objective).all()) and bool((latent.objective < layered.objective).any())
    first, second = layers_of(generator, 6)
    for code, image in zip(latent.x, y, strict=True):
        on = (first.affine[0](code) > 0).to(DOUBLE).detach()
        both = (second.affine[0].weight * on) @ first.affine[0].weight  # type: ignore[operator]
        offset = second.affine[0](on * first.affine[0].bias)  # type: ignore[operator]
        expected = torch.linalg.lstsq(both.detach(), (image - offset.detach())[:, None]).solution[:, 0]
        assert torch.allclose(code, expected, atol=1e-8)


def test_what_stands_above_is_peeled_and_its_word_counts() -> None:
    generator, x = random_net(4, 16, 60, 180), codes(3, 4)
    found = LatentPursuit(max_steps=300).find(generator, picture_of(generator, x))
    assert isinstance(found, PairInverted) and len(found.layers) == 1 and bool(found.succeeded.all())
    doubted = Doubting(max_steps=300).find(generator, picture_of(generator, x))
    assert torch.equal(doubted.x, found.x) and not bool(doubted.succeeded.any())


class Doubting(LatentPursuit):
    """It finds the same, and says of every layer that it peels that another input would do as well."""

    def peel(self, layer: Layer, target: Tensor, below: nn.Module) -> tuple[Tensor, Peeled, int]:
        found, peeled, passes = super().peel(layer, target, below)
        return found, dataclasses.replace(peeled, apart=torch.ones_like(peeled.apart)), passes


def test_two_codes_of_one_image_are_no_success() -> None:
    generator = random_net(20, 10, 60)
    x = codes(8, 20)
    found = LatentPursuit().find(generator, picture_of(generator, x))
    assert bool((found.residual < 1e-3).any()) and not bool(found.succeeded.any())


def test_another_end_that_fits_as_well_is_told() -> None:
    """|x| of one number: two codes for every image, found from the starts on the other side."""
    fold = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 3)).double().eval()
    with torch.no_grad():
        fold[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))  # type: ignore[operator,union-attr]
        fold[0].bias.zero_()  # type: ignore[operator,union-attr]
        fold[2].weight.copy_(torch.ones(3, 2))  # type: ignore[operator,union-attr]
        fold[2].bias.zero_()  # type: ignore[operator,union-attr]
    found = LatentPursuit(asides=6).find(fold, picture_of(fold, torch.tensor([[0.7]], dtype=DOUBLE)))
    assert isinstance(found, PairInverted)
    assert float(found.residual) < 1e-3 and not bool(found.succeeded.any())


def test_a_generator_of_one_layer_is_peeled() -> None:
    generator, x = random_net(4, 20), codes(3, 4)
    y = picture_of(generator, x)
    assert torch.equal(LatentPursuit().find(generator, y).x, LayerWise().find(generator, y).x)


# -- images with holes


@pytest.mark.parametrize("last", [None, nn.Sigmoid()], ids=str)
def test_half_of_an_image_is_enough(last: nn.Module | None) -> None:
    generator, x = random_net(4, 24, 120, last=last), 0.3 * codes(3, 4)
    mask = torch.rand(120, generator=torch.Generator().manual_seed(0)) < 0.5
    seen = nn.Sequential(generator, Visible(mask)).eval()
    y = picture_of(seen, x)
    assert torch.equal(y, picture_of(generator, x)[:, mask])
    assert len(layers_of(seen, 4)) == 2  # what is left out is part of the last layer
    for how in (LayerWise(), LatentPursuit(), GaussNewton(starts=3)):
        found = how.find(seen, y)
        assert bool(found.succeeded.all()) and float(apart(found.x, x).max()) < 1e-4


Y, HOLES = torch.rand(2, 36, dtype=DOUBLE), torch.ones(35, dtype=torch.bool)
BAD = {
    "no rounds": (lambda: LatentPursuit(rounds=0), "rounds"),
    "asides negative": (lambda: LatentPursuit(asides=-1), "asides"),
    "asides half": (lambda: LatentPursuit(asides=0.5), "asides"),
    "too sparse": (lambda: LatentPursuit(sparsity=2.0), "sparsity"),
    "nothing within": (lambda: LatentPursuit(within=0.0), "within"),
    "no steps": (lambda: GaussNewton(steps=0), "steps"),
    "no starts": (lambda: GaussNewton(starts=0), "starts"),
    "a class as start": (lambda: GaussNewton(start=LatentPursuit), "not the class"),
    "an equilibrium": (lambda: GaussNewton().find(equilibrium(), Y[:, :16].view(2, 1, 4, 4)), "JointFit"),
    "no layers": (lambda: LatentPursuit().find(equilibrium(), Y[:, :16].view(2, 1, 4, 4)), "JointFit"),
    "another shape": (lambda: LatentPursuit().find(FORWARD, Y[:, :35]), r"\(36,\)"),
    "another precision": (lambda: GaussNewton().find(FORWARD, Y.float()), "float64"),
    "not finite": (lambda: LatentPursuit().find(FORWARD, Y * math.nan), "finite"),
    "no images": (lambda: GaussNewton().find(FORWARD, Y[:0]), "images"),
    "a mask of numbers": (lambda: Visible(torch.ones(36)), "truth values"),
    "a mask that is none": (lambda: Visible([True]), "truth values"),
    "nothing seen": (lambda: Visible(~HOLES), "a number that was seen"),
    "a mask of another shape": (lambda: LayerWise().find(nn.Sequential(FORWARD, Visible(HOLES)).eval(), Y), r"\(36,\)"),
}


@pytest.mark.parametrize(("call", "words"), BAD.values(), ids=BAD)
def test_bad_input_gets_a_sentence(call, words: str) -> None:
    with pytest.raises(JiioError, match=words):
        call()
