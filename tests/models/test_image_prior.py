"""The image prior: its convolution, its energy, its gradient step and the problems that it makes."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

import jiio
from jiio.checks import JiioError
from jiio.models import ImagePrior, ImagePriorConfig, TwoScaleCell
from jiio.models.images.smooth import SmoothConv2d, convolve
from jiio.tasks.maps.base import Denoise
from jiio.tasks.restore.load import load_restorer

TIGHT = jiio.Tolerance(atol=1e-12, rtol=1e-12)


def tiny(seed: int = 0, channels: int = 1) -> ImagePrior:
    """Random weights, larger than at a start, so that the cell is neither linear nor trivial."""
    torch.manual_seed(seed)
    prior = ImagePrior(ImagePriorConfig(channels=channels, features=4, wide=6, depth=1))
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.mul_(1.3)
    return prior.double().eval()


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The convolution


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_the_convolution_and_its_derivatives_of_both_orders(size, bias):
    x, w, b = noise(2, 3, 5, 4) - 0.5, noise(2, 3, size, size, seed=2) - 0.5, noise(2, seed=3)
    inputs = tuple(t.requires_grad_() for t in ((x, w, b) if bias else (x, w)))
    torch.testing.assert_close(convolve(*inputs), F.conv2d(x, w, b if bias else None, padding=size // 2))
    assert gradcheck(convolve, inputs)
    assert gradgradcheck(convolve, inputs)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_third_derivatives_of_the_convolution(which):
    inputs = tuple(t.requires_grad_() for t in (noise(1, 2, 3, 4), noise(2, 2, 3, 3, seed=2), noise(2, seed=3)))

    def gradient(*arguments):
        value = convolve(*arguments).tanh().square().sum()
        return torch.autograd.grad(value, arguments, create_graph=True)[which]

    assert gradgradcheck(gradient, inputs)


def test_the_layer_is_an_ordinary_convolution_under_autocast_too():
    torch.manual_seed(0)
    ours, ordinary = SmoothConv2d(3, 4, 3), torch.nn.Conv2d(3, 4, 3, padding=1)
    ordinary.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 6, 5)
    torch.testing.assert_close(ours(x), ordinary(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16
        torch.testing.assert_close(ours(x), ordinary(x), rtol=1e-2, atol=1e-2)


# The energy


def converged_energy(prior: ImagePrior, x: torch.Tensor, level: float) -> torch.Tensor:
    """E(x, level) by 200 plain iterations: a second route to the equilibrium."""
    residual, _, _ = prior.unrolled(x, torch.full((len(x),), level, dtype=x.dtype), 200)
    return 0.5 * residual.square().flatten(1).sum(1)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gradient_step_is_the_gradient_of_the_energy(channels):
    prior, x, level = tiny(channels=channels), noise(2, channels, 8, 12), 0.1
    step, solution = prior.gradient_step(x, level, tolerance=TIGHT)
    assert solution.converged.all()
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(converged_energy(prior, leaf, level).sum(), leaf)
    torch.testing.assert_close(x - step, gradient, rtol=1e-8, atol=1e-10)
    direction, h = noise(*x.shape, seed=5) - 0.5, 1e-5
    up, down = (converged_energy(prior, x + s * h * direction, level).sum() for s in (1, -1))
    assert float((up - down).detach() / (2 * h)) == pytest.approx(float((gradient * direction).sum()), rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(5, 13), st.integers(5, 13), st.floats(0.0, 0.5))
def test_any_size_and_level(height, width, level):
    prior, x = tiny(), noise(1, 1, height, width)
    step, _ = prior.gradient_step(x, level, on_failure="ignore")
    assert step.shape == x.shape and step.isfinite().all()


@pytest.mark.parametrize("height, width", [(9, 12), (11, 13), (3, 5), (2, 2)])
def test_other_sides_are_continued_by_reflection(height, width):
    prior, x = tiny(), noise(1, 1, height, width)
    mode = "reflect" if min(height, width) > 3 else "replicate"
    whole, _ = prior.gradient_step(F.pad(x, (0, -width % 4, 0, -height % 4), mode=mode), 0.1, tolerance=TIGHT)
    step, _ = prior.gradient_step(x, 0.1, tolerance=TIGHT)
    torch.testing.assert_close(step, whole[..., :height, :width])


@pytest.mark.parametrize("channels, name", [(1, "prior-grey"), (3, "prior-colour")])
def test_the_border_of_a_picture_is_restored_like_its_middle(channels, name):
    """Measured figures suffered from this: with 4k + 1 columns, the last one took four steps instead of one."""
    from skimage.data import astronaut

    restorer = load_restorer("weights", name)
    clean = torch.from_numpy(astronaut()[100:165, 150:215, :channels]).float().permute(2, 0, 1)[None] / 255
    noisy = clean + 50 / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    error = (restorer.restore(noisy, Denoise(50 / 255)).image - clean).square().mean((0, 1))
    border, middle = torch.cat([error[-1], error[:, -1]]).mean(), error[8:-8, 8:-8].mean()
    assert border < 3 * middle


def test_a_batch_is_its_pictures():
    prior, x, levels = tiny(), noise(3, 1, 8, 8), torch.tensor([0.05, 0.1, 0.2])
    together, _ = prior.gradient_step(x, levels, tolerance=TIGHT)
    for i in range(3):
        alone, _ = prior.gradient_step(x[i : i + 1], float(levels[i]), tolerance=TIGHT)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-7, atol=1e-7)


def test_far_pixels_do_not_matter():
    """Everything is local: what happens 32 pixels away changes nothing after three iterations."""
    prior = tiny()
    x = noise(1, 1, 8, 120)
    other = x.clone()
    other[..., 80:] = 0.0
    level = torch.tensor([0.1], dtype=torch.float64)
    a, b = (prior.unrolled(t, level, 3)[0] for t in (x, other))
    assert torch.equal(a[..., :40], b[..., :40])
    assert not torch.equal(a[..., 60:100], b[..., 60:100])


# The joint problem


def fidelity(y: torch.Tensor):
    return lambda x: 0.5 * (x - y).square().flatten(1).sum(1)


def test_the_joint_solve_finds_the_minimum_that_descent_finds():
    prior, y = tiny(), noise(2, 1, 8, 8)
    problem = prior.problem(fidelity(y), level=0.1, weight=0.7)
    solution = jiio.solve(problem, y, tolerance=TIGHT, max_steps=500)
    assert solution.converged.all()

    x = y.clone().requires_grad_()
    descent = torch.optim.LBFGS(
        [x], max_iter=100, tolerance_grad=1e-11, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def value() -> torch.Tensor:
        return fidelity(y)(x) + 0.7 * converged_energy(prior, x, 0.1)

    def closure() -> float:
        descent.zero_grad()
        total = value().sum()
        total.backward()
        return float(total.detach())

    descent.step(closure)
    torch.testing.assert_close(solution.x, x.detach(), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(solution.value, value().detach(), rtol=1e-9, atol=1e-9)


def test_the_bilevel_gradient_of_the_weights_against_finite_differences():
    prior, y, clean = tiny(), noise(1, 1, 8, 8), noise(1, 1, 8, 8, seed=9)
    directions = [torch.randn(p.shape, dtype=p.dtype) for p in prior.parameters()]

    def loss(adjoint) -> torch.Tensor:
        problem = prior.problem(fidelity(y), level=0.1)
        solution = jiio.solve(problem, y, adjoint=adjoint, tolerance=TIGHT, max_steps=500)
        return (solution.x - clean).square().sum()

    loss(jiio.KKT(rtol=1e-12, max_steps=2000)).backward()
    pairs = zip(prior.parameters(), directions, strict=True)
    ours = sum(float((p.grad * d).sum()) for p, d in pairs if p.grad is not None)
    ends = []
    for sign in (1, -2):  # to +h, then to -h
        with torch.no_grad():
            for p, d in zip(prior.parameters(), directions, strict=True):
                p.add_(d, alpha=sign * 1e-5)
        ends.append(float(loss(jiio.Detached())))
    assert ours == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


# The cell


@pytest.mark.parametrize("activation", ["elu", "softplus", "silu", "gelu", "tanh"])
def test_the_cell_keeps_the_shape_and_starts_as_a_contraction(activation):
    torch.manual_seed(0)
    cell = TwoScaleCell(8, wide=12, activation=activation)
    cell.requires_grad_(False)
    u = torch.randn(2, 8, 6, 4)
    z = cell.initial_state(u)
    assert torch.equal(z, u) and z.data_ptr() != u.data_ptr()
    moves = []
    for _ in range(6):
        new = cell(z, u)
        moves.append(float((new - z).norm()))
        z = new
    assert z.shape == u.shape
    assert all(b < 0.7 * a for a, b in itertools.pairwise(moves))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: ImagePriorConfig(channels=2), "channels: expected 1"),
        (lambda: ImagePriorConfig(features=0), "features"),
        (lambda: ImagePriorConfig(activation="relu"), "activation"),
        (lambda: ImagePrior("large"), "config"),  # type: ignore[arg-type]
        (lambda: tiny().gradient_step(noise(1, 3, 8, 8), 0.1), "x: expected a tensor of shape"),
        (lambda: tiny().gradient_step(noise(1, 1, 8, 8), -0.1), "level"),
        (lambda: tiny().gradient_step(noise(1, 1, 8, 8).float(), 0.1), "float64"),
        (lambda: tiny().unrolled(noise(1, 1, 8, 8), torch.tensor([0.1]), 0), "steps"),
        (lambda: tiny().problem(fidelity(noise(1, 1, 8, 8)), level=0.1, weight=-1.0), "weight"),
    ],
)
def test_bad_input_gets_a_sentence(make, words):
    with pytest.raises(JiioError, match=words):
        make()
