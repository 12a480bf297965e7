"""``Restorer.load("prior-grey")(y, physics)``: one map, one result, whoever wrote it; noise of several kinds; batches,
number types, channels; the prior in the algorithms of others."""

from __future__ import annotations

import types

import pytest
import torch

import jiio
from jiio import ArgumentError, tasks
from jiio.outputs.seeds import generator
from jiio.tasks.maps.base import Denoise, Inpaint, random_mask
from jiio.tasks.maps.compressed import compressed
from jiio.tasks.maps.convolution import blur, downsample
from jiio.tasks.maps.kernels import gaussian_kernel
from jiio.tasks.maps.noise import Gaussian, Likelihood, Poisson
from jiio.tasks.maps.physics import as_map
from jiio.tasks.restore.public import Denoiser, Reconstructor, Restorer

SIDE = 24


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer.load("prior-grey")


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    """Two corners of a photograph, (2, 1, H, W)."""
    import skimage.data

    camera = torch.from_numpy(skimage.data.camera()[::2, ::2]).float() / 255
    return torch.stack([camera[30 : 30 + SIDE, 90 : 90 + SIDE], camera[60 : 60 + SIDE, 80 : 80 + SIDE]])[:, None]


def psnr(image: torch.Tensor, x: torch.Tensor) -> float:
    return float(-10 * (image - x).square().mean((1, 2, 3)).log10().mean())


MAPS = {
    "noise": Denoise(0.1),
    "holes": Inpaint(random_mask(1, SIDE, SIDE, missing=0.5, generator=generator(0))),
    "holes of each": Inpaint(random_mask(2, SIDE, SIDE, missing=0.5, generator=generator(1)), 0.02),
    "blur": blur(gaussian_kernel(1.2), (SIDE, SIDE), sigma=0.02),
    "blur, mirrored": blur(gaussian_kernel(1.2), (SIDE, SIDE), boundary="symmetric", sigma=0.02),
    "half the size": downsample(2, (SIDE, SIDE), sigma=0.01),
    "compressed": compressed((SIDE, SIDE), 0.4, sigma=0.01, generator=generator(2)),
}


@pytest.mark.parametrize(
    "name",
    [n if n in ("noise", "compressed") else pytest.param(n, marks=pytest.mark.slow) for n in MAPS],
)
def test_one_map_one_result(restorer, x, name):
    """Our class, an object with the two methods, and a function that says nothing of itself."""
    ours = MAPS[name]
    x = x if name.endswith("each") else x[:1]
    y = ours.measure(x, generator(3))
    stranger = types.SimpleNamespace(A=ours.A, A_adjoint=ours.A_adjoint)
    done = restorer(y, ours)
    other = restorer(y, stranger, sigma=ours.sigma)
    bare = restorer(y, lambda x: ours.A(x), sigma=ours.sigma, shape=(1, SIDE, SIDE))
    assert psnr(other.image, x) == pytest.approx(psnr(done.image, x), abs=0.05)
    assert psnr(bare.image, x) == pytest.approx(psnr(done.image, x), abs=0.05)
    assert psnr(done.image, x) > psnr(ours.start(y), x) + 0.5


@pytest.mark.slow
def test_a_map_in_other_units_gives_the_same_picture(restorer, x):
    """A scanner that counts to 4000 in place of 1: the noise is scaled with it."""
    ours = MAPS["blur"]
    y = ours.measure(x, generator(3))
    large = restorer(4000 * y, lambda x: 4000 * ours.A(x), sigma=4000 * ours.sigma)
    assert psnr(large.image, x) == pytest.approx(psnr(restorer(y, ours).image, x), abs=0.05)
    halved = restorer(0.5 * MAPS["noise"].measure(x, generator(3)), lambda x: 0.5 * x, sigma=0.05)
    plain = restorer(MAPS["noise"].measure(x, generator(3)), sigma=0.1)
    torch.testing.assert_close(halved.image, plain.image, atol=1e-3, rtol=0.0)


def negative_log(prediction: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Laplace noise, rounded at its tip."""
    return (((prediction - y) / 0.05).square() + 0.1).sqrt().flatten(1).sum(1)


def laplace(x: torch.Tensor) -> torch.Tensor:
    u = torch.rand(x.shape, generator=generator(4)) - 0.5
    return x - 0.05 * u.sign() * (1 - 2 * u.abs()).clamp_min(1e-6).log()


def identity(x):
    return x


def gamma(x):
    return x.clamp_min(1e-3) ** 0.4


def saturated(x):
    return (1.2 * x).clamp_max(1.0)


@pytest.mark.parametrize(
    ("function", "noise", "gain"),
    [
        (identity, Poisson(1 / 30), 3.0),
        (MAPS["blur"].A, Poisson(1 / 60, 0.02), 5.0),
        (identity, Likelihood(negative_log, sample=lambda x, g: laplace(x)), 3.0),
        (gamma, Gaussian(0.1), 2.0),
        (saturated, Gaussian(0.05), 1.0),
    ],
)
def test_other_noise_and_curved_maps_restore(restorer, x, function, noise, gain):
    """Against the start, which explains the measurement as far as it goes."""
    y = noise.draw(function(x), generator(5))
    start = as_map(function, y, noise=noise).start(y)
    done = restorer(y, function, noise=noise, max_steps=40)
    assert psnr(done.image, x) > psnr(start, x) + gain
    assert set(done.status.tolist()) <= {jiio.Status.CONVERGED, jiio.Status.MAX_STEPS}


def test_the_phase_is_retrieved(restorer, x):
    """From the squared absolute values of four times as many random projections as pixels."""
    x = x[:, :, :16, :16]
    draw = torch.randn(2, 1024, 256, generator=generator(6)) / 2048**0.5
    project = torch.complex(draw[0], draw[1])

    def intensities(image):
        return (image.flatten(1).to(project) @ project.T).abs().square()

    clean = intensities(x)
    y = clean + 0.3 * float(clean.mean()) * torch.randn(clean.shape, generator=generator(7))
    shape, sigma = (1, 16, 16), 0.3 * float(clean.mean())
    start = as_map(intensities, y, sigma=sigma, shape=shape).start(y)
    done = restorer(y, intensities, sigma=sigma, shape=shape)
    assert psnr(done.image, x) > psnr(start, x) + 0.5 and psnr(done.image, x) > 22.0


@pytest.mark.slow
def test_every_image_may_have_noise_of_its_own(restorer, x):
    """The same as one by one."""
    sigma = torch.tensor([0.02, 0.05])
    noisy = Gaussian(sigma).draw(x, generator(8))
    for map in (None, MAPS["blur"].A):
        y = noisy if map is None else Gaussian(sigma).draw(map(x), generator(8))
        together = restorer(y, map, sigma=sigma, max_steps=200).image
        alone = torch.cat([restorer(y[i : i + 1], map, sigma=float(sigma[i]), max_steps=200).image for i in range(2)])
        assert psnr(together, x) == pytest.approx(psnr(alone, x), abs=0.15)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_measurements_of_any_type(restorer, x, dtype):
    """The physics is called in the type of the measurement, and the image comes in it."""
    seen = set()

    def shift(image):
        seen.add(image.dtype)
        return 0.5 * (image + image.roll(1, 3))

    y = (shift(x) + 0.02 * torch.randn(x.shape, generator=generator(9))).to(dtype)
    seen.clear()
    done = restorer(y, shift, sigma=0.02, max_steps=20)
    assert done.image.dtype == dtype and seen == {dtype}
    assert psnr(done.image.float(), x) > psnr(y.float(), x) + 1.0


def test_doubles_as_the_default_type(restorer, x):
    y = MAPS["noise"].measure(x, generator(3))
    plain = restorer(y, sigma=0.1).image
    torch.set_default_dtype(torch.float64)
    try:
        loaded = Restorer.load("prior-grey")
        torch.testing.assert_close(loaded(y, sigma=0.1).image, plain)
        assert loaded(y.double(), MAPS["blur"], sigma=0.1, max_steps=5).image.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    double = Restorer.load("prior-grey", dtype=torch.float64)(y.double(), sigma=0.1)
    torch.testing.assert_close(double.image.float(), plain, atol=1e-3, rtol=0.0)


def test_grey_weights_take_any_number_of_channels(restorer, x):
    """Each channel by itself, in one solve for maps that mix them and where they do not."""
    three = torch.cat([x, 1 - x, x.flip(3)], 1)
    y = three + 0.1 * torch.randn(three.shape, generator=generator(10))
    done = restorer(y, sigma=0.1)
    alone = torch.cat([restorer(y[:, i : i + 1], sigma=0.1).image for i in range(3)], 1)
    torch.testing.assert_close(done.image, alone, atol=2e-3, rtol=0.0)
    assert done.converged.shape == (2,) and done.residual.shape == (2,)

    fourier = lambda v: torch.fft.fft2(torch.complex(*v.chunk(2, 1)), norm="ortho")  # noqa: E731
    pair = torch.cat([x, 0.2 * x.flip(2)], 1)
    measured = fourier(pair + 0.1 * torch.randn(pair.shape, generator=generator(11)))
    complex_ = restorer(measured, fourier, sigma=0.1, shape=(2, SIDE, SIDE))
    assert complex_.image.shape == pair.shape and psnr(complex_.image, pair) > 25.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda r, x: r(x), "sigma: expected the level of the noise"),
        (lambda r, x: r(x, sigma=-1.0), "of at least 0"),
        (lambda r, x: r(x, sigma=torch.tensor([0.1, 0.2, 0.3])), "one for each of the 2 samples"),
        (lambda r, x: r(x, identity, noise="loud"), "noise: expected Gaussian or Poisson noise"),
        (lambda r, x: r(x, identity, noise=lambda p, y: (p - y).square().sum()), "Sum over each sample"),
        (lambda r, x: r(x, identity, noise=lambda p, y: -negative_log(p, y)), "a likelihood that is largest near y"),
        (lambda r, x: r(x, identity, noise=lambda p, y: negative_log(p.detach(), y)), "autograd can differentiate"),
        (lambda r, x: r(x.round().long(), sigma=0.1), "a measurement, a floating tensor"),
        (lambda r, x: r("y", sigma=0.1), "a measurement, a floating tensor"),
        (lambda r, x: r(x[:0], sigma=0.1), "y: expected a batch with a measurement in it"),
        (lambda r, x: r(x / 0.0, sigma=0.1), "y: expected finite values"),
        (lambda r, x: r(x * torch.nan, [identity], sigma=0.1), "y: expected finite values"),
        (lambda r, x: r(x, sigma=0.1, noise=Poisson(0.1)), "noise: expected sigma or noise, got both"),
        (lambda r, x: r(x, noise=lambda prediction, y: 1 / 0), "noise: .* raised ZeroDivisionError"),
        (lambda r, x: r(x, lambda image: 0.0 * image, sigma=0.1), "physics.A: .* zero for every image"),
        (lambda r, x: r(x, identity, sigma=0.1, shape=(1, -2, 3)), "shape: expected .*three numbers of at least 1"),
        (
            lambda r, x: Restorer.load("prior-grey", device="nowhere"),
            "device: expected one of 'auto', .*, got nowhere",
        ),
        (lambda r, x: Restorer.load("prior-grey", dtype=torch.int64), "dtype: expected a floating-point type"),
        (lambda r, x: Restorer("prior-grey"), "an instance of AbstractRestorer"),  # type: ignore[arg-type]
        (lambda r, x: Restorer.load("prior-gray"), "none of the shipped ones .*prior-grey"),
        (lambda r, x: Restorer.load("prior-colour")(x, sigma=0.1), "images of 3 channels, .* Use a grey prior"),
    ],
)
def test_what_cannot_be_is_one_sentence(restorer, x, call, words):
    with pytest.raises(jiio.JiioError, match=words) as caught:
        call(restorer, x)
    assert "\n" not in str(caught.value)


def test_the_name_stands_at_both_doors():
    assert jiio.Restorer is Restorer is tasks.Restorer
    assert "Restorer" not in jiio.__all__  # who asks for everything does not get the rooms above
    assert tasks.Denoiser is Denoiser and tasks.Reconstructor is Reconstructor


def test_the_prior_as_a_denoiser(restorer, x):
    """In any form of the level that algorithms of others use."""
    denoiser = Denoiser(restorer)
    y = MAPS["noise"].measure(x, generator(3))
    expected = restorer(y, sigma=0.1).image
    for sigma in (0.1, torch.tensor(0.1), torch.tensor([0.1, 0.1]), torch.full((2, 1, 1, 1), 0.1)):
        torch.testing.assert_close(denoiser(y, sigma), expected)
    assert denoiser(y, 0.0).shape == y.shape
    torch.testing.assert_close(Reconstructor(restorer)(y, MAPS["noise"]), expected)


@pytest.mark.filterwarnings("default")
def test_the_prior_in_the_algorithms_of_deepinv(restorer, x):
    """Half-quadratic splitting with our denoiser, and our solve on their physics: both far above the measurement."""
    deepinv = pytest.importorskip("deepinv", reason="deepinv is not installed")
    torch.manual_seed(0)
    kernel = gaussian_kernel(1.2).float()[None, None]
    noise = deepinv.physics.GaussianNoise(0.02)
    physics = deepinv.physics.BlurFFT((1, SIDE, SIDE), kernel, noise_model=noise)
    y = physics(x)
    split = deepinv.optim.DPIR(sigma=0.02, denoiser=Denoiser(restorer), device="cpu")
    assert psnr(split(y, physics), x) > psnr(y, x) + 3.0
    assert psnr(Reconstructor(restorer)(y, physics), x) > psnr(y, x) + 3.0
    with pytest.raises(ArgumentError, match="noise: expected Gaussian or Poisson"):
        restorer(y, deepinv.physics.Denoising(deepinv.physics.UniformNoise(0.1)))
