"""Foreign physics: a hand-made one always, those of deepinv where it is installed."""

from __future__ import annotations

import types

import pytest
import torch

from jiio import ArgumentError
from jiio.outputs.seeds import generator
from jiio.tasks.maps.base import Denoise
from jiio.tasks.maps.convolution import blur, downsample
from jiio.tasks.maps.kernels import gaussian_kernel
from jiio.tasks.maps.least import least_squares
from jiio.tasks.maps.noise import Gaussian, Poisson
from jiio.tasks.maps.physics import as_linear_map, as_map
from toy_restorer import SmoothRestorer


class Matrix:
    """A dense map on images 1 x 6 x 5 that NumPy computes, so that autograd sees nothing of it."""

    def __init__(self, *, rows: int = 20, twist: float = 0.0) -> None:
        self.matrix = torch.randn(rows, 30, generator=generator(0), dtype=torch.float64) / 30**0.5
        self.transpose = self.matrix.T + twist * torch.randn(30, rows, generator=generator(1)).double() / 30**0.5

    def A(self, x):
        return torch.from_numpy(x.detach().double().flatten(1).numpy() @ self.matrix.T.numpy()).to(x)

    def A_adjoint(self, y):
        flat = y.detach().double().numpy() @ self.transpose.T.numpy()
        return torch.from_numpy(flat).view(-1, 1, 6, 5).to(y)


@pytest.fixture
def y():
    return torch.randn(3, 20, generator=generator(2), dtype=torch.float64)


def test_a_foreign_physics_is_a_linear_map(y):
    linear = as_linear_map(Matrix(), y, sigma=0.1)
    x = torch.randn(3, 1, 6, 5, generator=generator(3), dtype=torch.float64)
    assert linear.sigma == 0.1
    assert abs((linear.A(x) * y).sum() - (x * linear.A_adjoint(y)).sum()) < 1e-12
    largest = float(torch.linalg.matrix_norm(Matrix().matrix, 2))
    assert largest <= linear.norm_bound(x) <= 1.06 * largest
    noisy = linear.measure(x, generator(4))
    assert torch.equal(noisy, linear.measure(x, generator(4))) and not torch.equal(noisy, linear.A(x))
    with pytest.raises(ArgumentError, match="acts locally"):
        linear.window(0, 0, 3, 3)


def test_derivatives_of_any_order_pass_through_a_map_that_autograd_cannot_see(y):
    linear = as_linear_map(Matrix(), y)
    x = torch.randn(3, 1, 6, 5, generator=generator(3), dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad((linear.A(x) - y).square().sum(), x, create_graph=True)
    torch.testing.assert_close(first, 2 * linear.A_adjoint(linear.A(x) - y))
    direction = torch.randn(x.shape, generator=generator(4), dtype=torch.float64)
    (second,) = torch.autograd.grad((first * direction).sum(), x)
    torch.testing.assert_close(second, 2 * linear.A_adjoint(linear.A(direction)))


def test_the_start_is_the_least_squares_image_of_least_norm(y):
    linear = as_linear_map(Matrix(), y)
    pseudo = torch.linalg.pinv(Matrix().matrix) @ y[0]
    found = least_squares(linear, y, rounds=40)
    torch.testing.assert_close(found[0].flatten(), pseudo, atol=1e-8, rtol=0.0)
    assert float((linear.A(linear.start(y)) - y).norm() / y.norm()) < 0.05


def test_the_start_stops_at_the_noise_for_each_sample(y):
    """A sample whose measurement is below the noise stays one grey, whatever its batch mates do."""
    mixed = torch.cat([y, 1e-3 * y])
    start = as_linear_map(Matrix(), mixed, sigma=0.05).start(mixed)
    assert bool((start[3:] == start[3:, :, :1, :1]).all()) and float(start[3:].abs().max()) < 0.01
    residual = as_linear_map(Matrix(), mixed).A(start[:3]) - y
    assert bool((residual.square().mean(1).sqrt() <= 0.05).all())
    assert float(residual.square().mean(1).sqrt().min()) > 1e-3


def noise(name, **values):
    return types.new_class(name)() if not values else type(name, (), values)()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (None, 0.0),
        (noise("ZeroNoise"), 0.0),
        (noise("GaussianNoise", sigma=0.2), 0.2),
        (noise("GaussianNoise", sigma=torch.tensor([0.25])), 0.25),
        (noise("GaussianNoise", sigma=torch.tensor([0.1, 0.2])), "one for each of the 3 samples, got .* \\(2,\\)"),
        (noise("GaussianNoise", sigma=torch.tensor([0.1, 0.2, 0.3])), "under Gaussian noise of one level"),
        (noise("PoissonNoise", gain=0.1), "under Gaussian noise of one level, got Poisson noise"),
        (noise("PoissonGaussianNoise", gain=0.1, sigma=0.2), "Gaussian noise of one level"),
        (noise("PoissonNoise", gain=0.1, normalize=False), "got bare counts"),
        (noise("SaltPepperNoise", p=0.1, update_parameters=lambda: None), "noise: expected Gaussian or Poisson"),
        (noise("GaussianNoise"), "GaussianNoise with its sigma"),
        (noise("GaussianNoise", sigma=-1.0), "of at least 0"),
    ],
)
def test_the_noise_level_is_read_from_the_physics(model, expected, y):
    physics = Matrix()
    physics.noise_model = model  # type: ignore[attr-defined]
    if isinstance(expected, str):
        with pytest.raises(ArgumentError, match=expected):
            as_linear_map(physics, y)
        assert as_linear_map(physics, y, sigma=0.3).sigma == 0.3
    else:
        assert as_linear_map(physics, y).sigma == expected


@pytest.mark.parametrize(("name", "value"), [("noise", Gaussian(0.07)), ("sigma", 0.07), ("sigma", torch.tensor(0.07))])
def test_an_object_may_say_its_noise_in_our_words(name, value, y):
    physics = Matrix()
    setattr(physics, name, value)
    assert as_linear_map(physics, y).sigma == pytest.approx(0.07)
    assert as_linear_map(physics, y, sigma=0.3).sigma == 0.3
    physics.noise_model = noise("GaussianNoise", sigma=0.2)  # type: ignore[attr-defined]
    assert as_linear_map(physics, y).sigma == 0.2


class Bent(Matrix):
    def A(self, x):
        return super().A(x).square()


class Flat(Matrix):
    def A_adjoint(self, y):
        return super().A_adjoint(y)[0]


@pytest.mark.parametrize(
    ("physics", "words"),
    [
        (object(), "object without A"),
        (Bent(), "physics.A: expected a linear map, as the adjoint beside it says"),
        (Matrix(twist=0.3), "the adjoint of A to 0.01, got one that is off by 0\\."),
        (Flat(), "expected images \\(B, C, H, W\\)"),
        (types.SimpleNamespace(A=lambda x: x, A_adjoint=Matrix().A_adjoint), "measurements of the shape of y"),
        (lambda x: x.flatten(1)[:, :20], "shape: expected the shape \\(C, H, W\\) of the images"),
    ],
)
def test_what_is_no_linear_physics_is_refused(physics, words, y):
    with pytest.raises(ArgumentError, match=words):
        as_linear_map(physics, y)


def test_a_small_mismatch_can_be_accepted(y):
    assert as_linear_map(Matrix(twist=0.3), y, tolerance=0.9).sigma == 0.0


@pytest.mark.parametrize("wrong", [None, torch.zeros(3), torch.zeros(3, 20, dtype=torch.long)])
def test_bad_measurements_are_refused(wrong):
    with pytest.raises(ArgumentError, match="y: expected a measurement"):
        as_linear_map(Matrix(), wrong)


@pytest.mark.parametrize(
    "ours", [Denoise(0.1), blur(gaussian_kernel(1.0), (12, 11), sigma=0.05), downsample(2, (12, 11))], ids=repr
)
def test_our_own_maps_are_physics_too(ours):
    x = torch.rand(1, 3, 12, 11, generator=generator(0))
    y = ours.A(x)
    again = as_linear_map(ours, y, sigma=ours.sigma)
    torch.testing.assert_close(again.A(x), y)
    torch.testing.assert_close(again.A_adjoint(y), ours.A_adjoint(y))


# -- what a map is


def shifted(x):
    return 0.75 * x.roll(1, 3) + 0.25 * x


MASK = (torch.rand(4, 1, 8, 8, generator=generator(5)) > 0.5).float()
RAMP = torch.linspace(0.2, 1.0, 8)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda x: x, "Denoise"),
        (lambda x: MASK * x, "Inpaint"),
        (lambda x: MASK[:1] * x, "Inpaint"),
        (lambda x: 0.5 * x, "Diagonal"),
        (lambda x: RAMP * x, "Diagonal"),
        (shifted, "Circulant"),
        (lambda x: MASK * shifted(x), "Physics"),
        (lambda x: x.mT, "Physics"),
        (lambda x: x.clamp_min(0.0) ** 0.4, "Curved"),
        (lambda x: (1.5 * x).clamp_max(1.0), "Curved"),
        (lambda x: x + 0.1, "Curved"),
        (lambda x: x**0.5, "Curved"),
    ],
)
def test_a_function_is_recognised_by_what_it_does(function, kind):
    """For every image of the batch, with the same values, and linear maps with an exact adjoint."""
    x = torch.rand(4, 1, 8, 8, generator=generator(6))
    y = function(x)
    found = as_map(function, y, sigma=0.1)
    assert type(found).__name__ == kind and found.sigma == 0.1
    torch.testing.assert_close(found.A(x), y)
    if kind != "Curved":
        u = torch.randn(x.shape, generator=generator(7))
        torch.testing.assert_close((found.A(u) * y).sum((1, 2, 3)), (u * found.A_adjoint(y)).sum((1, 2, 3)))  # type: ignore[attr-defined]


def test_one_mask_for_all_is_kept_once():
    y = torch.rand(4, 1, 8, 8, generator=generator(6))
    assert as_map(lambda x: MASK[:1] * x, y).mask.shape == (1, 1, 8, 8)  # type: ignore[attr-defined]
    assert torch.equal(as_map(lambda x: MASK * x, y).mask, MASK)  # type: ignore[attr-defined]


def test_a_map_that_mixes_the_images_of_a_batch_is_refused():
    with pytest.raises(ArgumentError, match=r"adjoint of A to 0\.01"):
        mixing = types.SimpleNamespace(A=lambda x: x + x.flip(0), A_adjoint=lambda y: y + y.flip(0))
        as_map(mixing, torch.rand(4, 1, 8, 8))


class Liar(Denoise):
    """A linear map, it says."""

    def A(self, x):
        return x.clamp(0.0, 1.0)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (Liar(0.1), "a linear map, as the adjoint beside it says, got one with"),
        (lambda x: x + 0.1 * torch.randn_like(x), "gives the same twice, got one that draws something"),
        (lambda x: torch.from_numpy(x.numpy() * 2.0), "expected a function that autograd can differentiate"),
        (lambda x: x.detach() ** 2, "expected a function that autograd can differentiate"),
        (lambda x: x[:, :, :4], "measurements of the shape of y, .* got"),
        (lambda x: torch.fft.fft2(x), "complex images are pairs of channels"),
        (lambda x: x @ torch.ones(3, 3), "got RuntimeError: "),
    ],
)
def test_what_cannot_be_restored_is_one_sentence(function, words):
    with pytest.raises(ArgumentError, match=words):
        as_map(function, torch.rand(4, 1, 8, 8, generator=generator(6)))


def test_complex_measurements_are_pairs_of_channels():
    """Of a real image the Fourier coefficients; the adjoint is the real part of the inverse transform."""
    x = torch.rand(2, 1, 8, 8, generator=generator(6), dtype=torch.float64)
    fourier = lambda x: torch.fft.fft2(x, norm="ortho")  # noqa: E731
    found = as_map(fourier, fourier(x), shape=(1, 8, 8))
    y = found.A(x)
    torch.testing.assert_close(y, torch.cat([fourier(x).real, fourier(x).imag], 1))
    torch.testing.assert_close(found.A_adjoint(y), x)  # type: ignore[attr-defined]
    pairs = as_map(lambda x: fourier(torch.complex(*x.chunk(2, 1))), fourier(x), shape=(2, 8, 8))
    torch.testing.assert_close(pairs.A_adjoint(y), torch.cat([x, torch.zeros_like(x)], 1))  # type: ignore[attr-defined]


def test_a_stack_of_measurements_is_one_vector():
    x = torch.rand(2, 1, 8, 8, generator=generator(6), dtype=torch.float64)
    both = lambda x: [x[:, :, ::2], shifted(x)]  # noqa: E731
    found = as_map(both, both(x), shape=(1, 8, 8))
    assert found.A(x).shape == (2, 96)
    torch.testing.assert_close(found.start(found.A(x)), x, atol=0.05, rtol=0.0)


def test_the_noise_of_our_own_maps_can_be_another():
    y = torch.rand(4, 1, 8, 8, generator=generator(6))
    found = as_map(Denoise(0.2), y, noise=Poisson(0.1))
    assert found.noise == Poisson(0.1) and float(found.diagonal) == 1.0 and not found.quadratic  # type: ignore[arg-type]
    assert as_map(found, y, sigma=0.3).sigma == 0.3 and as_map(Denoise(0.2), y).sigma == 0.2


# -- deepinv itself


@pytest.fixture
def deepinv():
    return pytest.importorskip("deepinv", reason="deepinv is not installed")


@pytest.mark.filterwarnings("default")
def test_a_blur_of_deepinv_is_ours(deepinv):
    """Their circular blur and ours are one map, and their noise level is read."""
    kernel = gaussian_kernel(1.6)
    noise_model = deepinv.physics.GaussianNoise(sigma=0.02)
    physics = deepinv.physics.Blur(filter=kernel.float()[None, None], padding="circular", noise_model=noise_model)
    x = torch.rand(2, 1, 32, 40, generator=generator(0))
    y = physics(x)
    linear, ours = as_linear_map(physics, y), blur(kernel, (32, 40))
    assert linear.sigma == pytest.approx(0.02)
    torch.testing.assert_close(linear.A(x), ours.A(x), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(linear.A_adjoint(y), ours.A_adjoint(y), atol=1e-5, rtol=0.0)
    assert float((linear.A(linear.start(y)) - y).square().mean().sqrt()) < 0.03


@pytest.mark.filterwarnings("default")
def test_a_tomography_of_deepinv(deepinv):
    """Measurements of another shape than the image; the start is a recognisable image."""
    noise_model = deepinv.physics.GaussianNoise(sigma=0.01)
    physics = deepinv.physics.Tomography(angles=60, img_width=32, circle=False, normalize=True, noise_model=noise_model)
    rows, columns = torch.linspace(-1, 1, 32)[:, None], torch.linspace(-1, 1, 32)
    x = (0.2 + 0.6 * ((rows**2 + columns**2) < 0.5).float())[None, None]
    y = physics(x)
    linear = as_linear_map(physics, y)
    start = linear.start(y)
    assert y.shape[2:] != x.shape[2:] and start.shape == x.shape
    assert float((start - x).square().mean().sqrt()) < 0.1  # a blank image of the right mean is off by 0.29
    image = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((linear.A(image) - y).square().sum(), image, create_graph=True)
    (again,) = torch.autograd.grad(gradient.sum(), image)
    torch.testing.assert_close(again, 2 * linear.A_adjoint(linear.A(torch.ones_like(x))), atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["blur", "tomography"])
def test_a_physics_of_deepinv_restores(deepinv, kind):
    """Passed in as it is, to a restorer that knows nothing of it."""
    noise_model = deepinv.physics.GaussianNoise(sigma=0.02)
    if kind == "blur":
        kernel = gaussian_kernel(1.2).float()[None, None]
        physics = deepinv.physics.Blur(filter=kernel, padding="circular", noise_model=noise_model)
    else:
        physics = deepinv.physics.Tomography(angles=20, img_width=32, normalize=True, noise_model=noise_model)
    rows, columns = torch.linspace(-1, 1, 32)[:, None], torch.linspace(-1, 1, 32)
    x = (0.2 + 0.6 * ((rows**2 + columns**2) < 0.5).float())[None, None]
    torch.manual_seed(0)
    y = physics(x)
    operator = as_linear_map(physics, y)
    done = SmoothRestorer(1, weight=0.02).restore(y, operator, max_steps=300, on_failure="ignore")
    error = lambda image: float((image - x).square().mean().sqrt())  # noqa: E731
    assert error(done.image) < error(physics.A_adjoint(y)) and error(done.image) < 0.12
    assert float((operator.A(done.image) - y).square().mean().sqrt()) < 0.05
