"""Classical restorers and their tuning: against scikit-image called by hand, and better than the measurement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import restoration

from jiio.outputs.seeds import generator
from jiio.tasks.images.metrics import psnr
from jiio.tasks.maps.base import Denoise, Inpaint, random_mask
from jiio.tasks.maps.convolution import blur
from jiio.tasks.maps.corruption import (
    BoxHole,
    CompressedSensing,
    Downsampling,
    GaussianBlur,
    GaussianNoise,
    MotionBlur,
    RandomHoles,
)
from jiio.tasks.maps.kernels import motion_kernel
from jiio.tasks.restore.compare import classical
from jiio.tasks.restore.compare.baselines import BASELINES, Baseline, Trial, best, serving, tune

CORRUPTIONS = [
    GaussianNoise(0.1),
    GaussianBlur(width=1.2),
    MotionBlur(length=5, angle=20, boundary="symmetric"),
    GaussianBlur(width=1.0, boundary="valid"),
    Downsampling(2, sigma=0.01),
    RandomHoles(0.5),
    RandomHoles(0.3, sigma=0.05),
    CompressedSensing(0.4),
]


GOOD = {  # near the best for small pictures like the ones here
    **{"strength": 0.8, "patch_size": 5, "patch_distance": 6, "wavelet": "db2", "method": "BayesShrink", "shifts": 3},
    **{"balance": 0.01, "rounds": 8, "weight": 0.003},
}


def scene(channels: int, height: int = 48, width: int = 40) -> torch.Tensor:
    """Smooth slopes, edges and a disc; colours that differ."""
    rows, columns = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)
    image = (
        0.2
        + 0.2 * rows
        + 0.3 * (columns > 0.5) * (rows < 0.7)
        + 0.2 * ((rows - 0.4) ** 2 + (columns - 0.3) ** 2 < 0.04)
    )
    return torch.stack([image * (1 - 0.2 * c) + 0.1 * c for c in range(channels)])[None]


def case(corruption, channels=1, seed=0) -> Trial:
    return Trial.draw(scene(channels), corruption, seed, "test")


def quality(case: Trial, image: torch.Tensor) -> float:
    return float(psnr(case.finished(image), case.clean))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=repr)
def test_every_baseline_beats_what_it_starts_from(corruption, channels):
    """Under settings near its best, but for three: the mean fill, bicubic (it is the start), biharmonic under noise."""
    one = case(corruption, channels)
    start = quality(one, one.operator.start(one.y))
    names = []
    for baseline in serving(one.operator):
        image = baseline(one.y, one.operator, {key: GOOD[key] for key in baseline.grid})
        assert image.shape == one.clean.shape and image.dtype == torch.float32
        noisy = baseline.name.startswith("biharmonic") and one.operator.sigma > 0
        if baseline.name not in ("mean fill", "bicubic") and not noisy:
            assert quality(one, image) > start, baseline.name
        names.append(baseline.name)
    assert "total variation (scikit-image)" in names and len(set(names)) == len(names)


def test_which_baselines_serve_which_corruption():
    def names(corruption):
        words = [b.name for b in serving(case(corruption).operator)]
        return [word.removesuffix(" (scikit-image)") for word in words]

    assert names(GaussianNoise(0.1)) == ["non-local means", "wavelet", "wavelet, cycle spinning", "total variation"]
    assert names(GaussianNoise(0.0)) == []
    assert names(GaussianBlur()) == ["Wiener", "unsupervised Wiener", "Richardson-Lucy", "total variation"]
    assert names(Downsampling(3)) == ["bicubic", "total variation"]
    assert names(BoxHole(4)) == names(RandomHoles()) == ["mean fill", "biharmonic", "total variation"]
    assert names(CompressedSensing()) == ["total variation"]


# -- what they compute


@pytest.mark.parametrize("channels", [1, 3])
def test_denoisers_are_those_of_scikit_image(channels):
    one = case(GaussianNoise(0.1), channels)
    image = one.y[0].numpy() if channels == 3 else one.y[0, 0].numpy()
    axis = 0 if channels == 3 else None
    expected = {
        "nl_means": restoration.denoise_nl_means(image, 5, 6, h=0.06, sigma=0.1, channel_axis=axis),
        "wavelet": restoration.denoise_wavelet(image, 0.05, "sym4", rescale_sigma=False, channel_axis=axis),
        "tv": restoration.denoise_tv_chambolle(image, 0.07, channel_axis=axis),
    }
    found = {
        "nl_means": classical.nl_means(one.y, one.operator, strength=0.6, patch_size=5, patch_distance=6),
        "wavelet": classical.wavelet(one.y, one.operator, wavelet="sym4", method="BayesShrink", strength=0.5),
        "tv": classical.tv_denoise(one.y, one.operator, strength=0.7),
    }
    for name, image in found.items():
        torch.testing.assert_close(image[0], torch.from_numpy(expected[name]).view_as(image[0]), msg=name)


@pytest.mark.parametrize("channels", [1, 3])
def test_cycle_spinning_is_the_mean_over_shifts(channels):
    one = case(GaussianNoise(0.1), channels)
    settings = {"wavelet": "db2", "method": "BayesShrink", "strength": 0.8}
    spun = classical.wavelet(one.y, one.operator, **settings, shifts=1)
    moved = []
    for move in ((0, 0), (0, 1), (1, 0), (1, 1)):
        image = classical.wavelet(one.y.roll(move, (2, 3)), one.operator, **settings)
        moved.append(image.roll((-move[0], -move[1]), (2, 3)))
    torch.testing.assert_close(spun, torch.stack(moved).mean(0), atol=1e-5, rtol=0.0)


def test_wiener_undoes_a_circular_blur_without_noise():
    """Nothing is lost at the border: with a tiny balance the image comes back."""
    kernel = torch.zeros(3, 4, dtype=torch.float64)
    kernel[1, 2], kernel[0, 1], kernel[2, 3] = 0.6, 0.3, 0.1  # invertible; an even side, not symmetric
    operator = blur(kernel, (48, 40))
    clean = scene(3)
    sharp = classical.wiener(operator.A(clean), operator, balance=1e-9)
    torch.testing.assert_close(sharp, clean, atol=1e-4, rtol=0.0)


def test_wiener_is_scikit_images():
    operator = blur(motion_kernel(5, 30), (48, 40))
    y = operator.A(scene(1))
    expected = restoration.wiener(y[0, 0].double().numpy(), operator.kernel.numpy(), 0.01, clip=False)
    found = classical.wiener(y, operator, balance=0.01)
    torch.testing.assert_close(found[0, 0].double(), torch.from_numpy(expected), atol=1e-6, rtol=0.0)


def test_richardson_lucy_has_no_dark_border():
    """scikit-image's own takes the outside to be black; with our frame the border is as good as the inside."""
    operator, clean = blur(motion_kernel(7, 30), (48, 40)), scene(1)
    y = operator.A(clean)
    sharp = classical.richardson_lucy(y, operator, rounds=20)
    bare = restoration.richardson_lucy(y[0, 0].double().numpy(), operator.kernel.numpy(), 20, clip=False)
    edge = torch.ones(1, 1, 48, 40)
    edge[..., 4:-4, 4:-4] = 0.0
    ours = float(psnr(sharp, clean, mask=edge))
    assert ours > float(psnr(torch.from_numpy(bare).view_as(sharp), clean, mask=edge)) + 3.0


def test_total_variation_is_at_its_minimum():
    """No small step into any of several directions makes the objective smaller."""
    one = case(GaussianBlur(width=1.0, sigma=0.02))
    weight = 0.003

    def objective(x):
        down, right = x.diff(dim=2)[..., :, :-1], x.diff(dim=3)[..., :-1, :]
        variation = (down.square() + right.square()).sqrt().sum() + x[..., -1, :].diff().abs().sum()
        variation = variation + x[..., :, -1].diff().abs().sum()
        return float(0.5 * (one.operator.A(x) - one.y).square().sum() + weight * variation)

    x = classical.total_variation(one.y, one.operator, weight=weight, rounds=300)
    least = objective(x)
    directions = [x - one.clean, x - one.y, x - x.mean(), 0.05 * torch.randn(x.shape, generator=generator(0))]
    for direction in (*directions, torch.from_numpy(ndimage.gaussian_filter(x[0, 0].numpy(), 1.0)).view_as(x) - x):
        for step in (-0.3, -0.1, 0.1, 0.3):
            assert objective(x + step * direction) > least * (1 - 2e-3)


def test_biharmonic_fills_a_ramp():
    ramp = torch.linspace(0, 1, 30).expand(2, 3, 20, 30)
    mask = torch.ones(2, 1, 20, 30)
    mask[0, 0, 5:9, 12:17] = 0.0
    mask[1] = random_mask(1, 20, 30, missing=0.2, generator=generator(0))[0]
    filled = classical.biharmonic(mask * ramp, Inpaint(mask))
    torch.testing.assert_close(filled[0], ramp[0], atol=1e-4, rtol=0.0)
    torch.testing.assert_close(filled[1], ramp[1], atol=1e-2, rtol=0.0)  # at the border it is not quite


def test_mean_fill():
    clean, mask = scene(3), random_mask(1, 48, 40, missing=0.5, generator=generator(0))
    filled = classical.mean_fill(mask * clean, Inpaint(mask))
    hole = (mask == 0).expand_as(clean)
    for channel in range(3):
        mean = clean[0, channel][mask[0, 0] == 1].mean()
        torch.testing.assert_close(filled[0, channel][hole[0, channel]], mean.expand(int(hole[0, channel].sum())))
    assert torch.equal(filled[~hole], clean[~hole])


# -- tuning


def shrink(y, operator, *, factor, offset=0.0):
    return factor * y + offset


def test_tuning_finds_the_best_of_the_grid():
    toy = Baseline("toy", lambda operator: True, shrink, {"factor": (0.5, 1.0, 2.0), "offset": (0.0, -0.1)})
    assert len(toy.choices()) == 6
    clean = scene(1)
    cases = [Trial(clean, Denoise(0.0), 2 * clean), Trial(clean, Denoise(0.0), 2 * clean + 0.001)]
    assert best(toy, cases) == {"factor": 0.5, "offset": 0.0}
    assert tune(toy, [clean], GaussianNoise(0.01)) == {"factor": 1.0, "offset": 0.0}


def test_tuning_is_a_function_of_its_arguments():
    """It does not depend on the global random state, and it sees the same noise for all settings."""
    seen = []

    def watch(y, operator, *, a):
        seen.append(y)
        return y

    toy = Baseline("toy", lambda operator: True, watch, {"a": (1, 2)})
    torch.manual_seed(1)
    assert tune(toy, [scene(1), scene(1)], GaussianNoise(0.1), seed=3) == {"a": 1}
    torch.manual_seed(2)
    tune(toy, [scene(1), scene(1)], GaussianNoise(0.1), seed=3)
    assert len(seen) == 8
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[0], seen[4]) and torch.equal(seen[1], seen[5])
    assert not torch.equal(seen[0], seen[1])  # two images, two draws


def test_a_baseline_without_settings_needs_no_tuning():
    fill = next(b for b in BASELINES if b.name == "mean fill")
    assert fill.choices() == [{}] and best(fill, []) == {}


def test_known_pixels_are_put_back_before_measuring():
    one = case(RandomHoles(0.5))
    image = one.finished(torch.full_like(one.clean, 2.0))
    assert torch.equal(image[one.operator.mask == 1], one.clean[one.operator.mask == 1])  # type: ignore[attr-defined]
    assert bool((image[one.operator.mask == 0] == 1.0).all())  # type: ignore[attr-defined]


def test_the_grids_reach_far_enough():
    """The best setting on photograph-like noise is inside the grid, not at its end."""
    rough = torch.rand(1, 1, 60, 60, generator=generator(0))
    clean = torch.from_numpy(ndimage.gaussian_filter(rough[0, 0].numpy(), 2.0)).view(1, 1, 60, 60)
    clean = ((clean - clean.min()) / (clean.max() - clean.min()) * 4).floor() / 5 + 0.1 * scene(1, 60, 60)
    for corruption, name, key in (
        (GaussianNoise(0.1), "total variation", "strength"),
        (GaussianNoise(0.1), "non-local means", "strength"),
        (GaussianBlur(width=1.6, sigma=0.01), "Wiener", "balance"),
        (GaussianBlur(width=1.6, sigma=0.01), "total variation", "weight"),
    ):
        one = Trial.draw(clean, corruption, 0, "test")
        baseline = next(b for b in serving(one.operator) if b.name == f"{name} (scikit-image)")
        values = list(baseline.grid[key])
        chosen = best(baseline, [one])[key]
        assert 0 < values.index(chosen) < len(values) - 1, (name, chosen)
        assert np.all(np.diff(values) > 0)
