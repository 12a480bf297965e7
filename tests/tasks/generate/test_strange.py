"""Strange images and groups: traits, two-sample statistics against closed forms and sums, and what is refused."""

# pyright: reportArgumentType=false
# Wrong types are the point of the last table.

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from jiio.models import DenseConfig, ModelConfig, build
from jiio.tasks.generate.fit.fit import fit_images
from jiio.tasks.generate.generator import LatentGenerator
from jiio.tasks.generate.samples import auroc
from jiio.tasks.generate.strange import BANDS, BROKEN, FLOOR, OURS, Familiar, spectrum, traits, traits_of


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small() -> LatentGenerator:
    torch.manual_seed(0)
    plan = ModelConfig(DenseConfig(6, gain=0.5), (3,), "image", (1, 6, 6), "none")
    return LatentGenerator(build(plan), torch.full((1, 6, 6), 0.4), prior=0.1).eval()


IMAGES = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))


# ----------------------------------------------------------------------------------------------------------------------
# Traits


def test_white_noise_has_its_variance_in_every_ring() -> None:
    found = spectrum(0.3 * drawn(0, 400, 2, 16, 16))
    assert found.shape == (400, BANDS) and torch.allclose(found.mean(0), torch.tensor(0.09).double(), rtol=0.05)


def test_a_constant_has_all_its_power_in_the_first_ring_and_a_chessboard_in_the_last() -> None:
    board = (torch.arange(8)[:, None] + torch.arange(8)).remainder(2).float()[None, None]
    flat, stripes = spectrum(torch.ones(1, 1, 8, 8))[0], spectrum(2 * board - 1)[0]
    assert float(flat[0]) > 0 and float(flat[1:].max()) < 1e-10
    assert float(stripes[-1]) > 0 and float(stripes[:-1].max()) < 1e-10


def test_rings_of_all_power_add_up_to_the_mean_square() -> None:
    """Parseval, with the number of frequencies of every ring."""
    image = drawn(1, 3, 1, 9, 9)
    radius = (torch.fft.fftfreq(9)[:, None] ** 2 + torch.fft.fftfreq(9) ** 2).sqrt()
    count = torch.bincount((2 * BANDS * radius).long().clamp_max(BANDS - 1).flatten(), minlength=BANDS)
    assert torch.allclose((spectrum(image) * count).sum(1), image.square().sum((1, 2, 3)))


def test_traits_are_those_of_the_fit() -> None:
    model = small()
    fit = fit_images(model, IMAGES)
    found = traits(IMAGES, fit)
    error = (fit.image - IMAGES).square().flatten(1).mean(1)
    power = IMAGES.flatten(1).var(1, correction=0)
    assert found.shape == (5, OURS + 3) and torch.equal(found[:, OURS:], fit.x)
    assert torch.allclose(found[:, 0], fit.objective.log())
    assert torch.allclose(found[:, 1], (error + FLOOR).log() - (power + FLOOR).log(), atol=1e-5)
    assert torch.equal(traits_of(model, IMAGES), found)


def test_a_fit_that_broke_down_is_as_strange_as_can_be() -> None:
    import dataclasses

    fit = fit_images(small(), IMAGES)
    broken = dataclasses.replace(fit, objective=torch.full_like(fit.objective, math.nan))
    assert bool((traits(IMAGES, broken)[:, 0] == BROKEN).all())


# ----------------------------------------------------------------------------------------------------------------------
# Scores of points and of groups


def familiar(count: int = 300) -> tuple[Familiar, Tensor]:
    known = 2.0 + 3.0 * drawn(2, count, OURS + 4)
    return Familiar.of(known), known


def test_typicality_is_two_sided_and_in_deviations() -> None:
    told, known = familiar()
    mean, deviation = known[:, 0].mean(), known[:, 0].std()
    points = known[:2].clone()
    points[:, 0] = torch.stack([mean - 2 * deviation, mean + 2 * deviation])
    assert torch.allclose(told.typicality(points), torch.tensor(2.0).double())
    groups = points[:1].expand(3, -1)[None]
    assert torch.allclose(told.group_typicality(groups), torch.tensor(2.0).double())


def test_surprises_are_of_the_density_of_their_own_traits() -> None:
    """Far out along one kind of trait; the other does not move. A Gaussian's surprise grows with the square."""
    told, known = familiar()
    middle = known.mean(0)[None]
    for score, other, place in (("residual", "code", 0), ("code", "residual", OURS)):
        far, twice = middle.clone(), middle.clone()
        far[:, place], twice[:, place] = far[:, place] + 30, twice[:, place] + 60
        at = [float(getattr(told, f"{score}_surprise")(p)) for p in (middle, far, twice)]
        assert abs((at[2] - at[0]) / (at[1] - at[0]) - 4) < 1e-6
        assert torch.allclose(getattr(told, f"{other}_surprise")(far), getattr(told, f"{other}_surprise")(middle))
    assert abs(float(told.residual_surprise(known).mean())) < 1e-6
    assert abs(float(told.residual_surprise(known).std()) - 1) < 1e-6


def test_energy_distance_and_discrepancy_are_their_sums_written_out() -> None:
    told, _ = familiar(12)
    group = 1.0 + 2.0 * drawn(3, 1, 3, OURS + 4)
    x, y = (group[0] - told.mean) / told.scale, told.known

    def mean(a: Tensor, b: Tensor, kernel: Callable[[float], float], *, same: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return sum(kernel(float((a[i] - b[j]).norm())) for i, j in pairs) / len(pairs)

    width = float(told.width)
    for found, kernel in (
        (told.energy(group), lambda d: -d),
        (told.discrepancy(group), lambda d: math.exp(-d * d / (2 * width * width))),
    ):
        expected = mean(x, x, kernel, same=True) + mean(y, y, kernel, same=True) - 2 * mean(x, y, kernel, same=False)
        assert abs(float(found) - expected) < 1e-9


def test_in_one_dimension_the_energy_distance_is_scipys() -> None:
    """2 int (F - G)^2 for large samples, from the distribution functions."""
    from scipy.stats import energy_distance

    known = torch.zeros(400, OURS + 1, dtype=torch.float64)
    known[:, 0] = drawn(4, 400)
    told = Familiar.of(known)
    group = torch.zeros(1, 300, OURS + 1, dtype=torch.float64)
    group[0, :, 0] = 1.0 + drawn(5, 300)
    expected = energy_distance(((group[0, :, 0] - told.mean[0]) / told.scale[0]).numpy(), told.known[:, 0].numpy()) ** 2
    assert abs(float(told.energy(group)) - expected) < 0.02 * expected


def test_kolmogorov_is_the_largest_gap_of_the_distribution_functions() -> None:
    told, known = familiar(100)
    group = known[:1].expand(5, -1)[None].clone()
    group[0, :, 0] = float(known[:, 0].max()) + torch.arange(1, 6)
    assert abs(float(told.kolmogorov(group)) - 1.0) < 1e-12
    group[0, :, 0] = float(known[:, 0].median())
    assert abs(float(told.kolmogorov(group)) - 0.5) < 0.02


@pytest.mark.parametrize("score", ["energy", "discrepancy"])
def test_a_group_is_told_where_its_points_are_not(score: str) -> None:
    """Shifted by half a deviation in every trait: of ten, the group is told nearly always."""
    told, _ = familiar()
    same, other = 2.0 + 3.0 * drawn(6, 100, 10, OURS + 4), 3.5 + 3.0 * drawn(7, 100, 10, OURS + 4)
    points = auroc(told.residual_surprise(same[:, 0]), told.residual_surprise(other[:, 0]))
    assert auroc(getattr(told, score)(same), getattr(told, score)(other)) > 0.97 > 0.7 > points


# ----------------------------------------------------------------------------------------------------------------------
# What is refused

POINTS = torch.zeros(2, OURS + 4, dtype=torch.float64)
TOLD, KNOWN = familiar(20)
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no model": (lambda: traits_of("generator", IMAGES), "model"),
    "the class of a model": (lambda: traits_of(LatentGenerator, IMAGES), "model"),
    "images of another size": (lambda: traits_of(small(), IMAGES[:, :, :5]), "images"),
    "no images": (lambda: traits_of(small(), IMAGES[:0]), "images"),
    "one image without a batch": (lambda: traits_of(small(), IMAGES[0]), "images"),
    "an image with NaN": (lambda: traits_of(small(), IMAGES * math.nan), "images"),
    "restarts negative": (lambda: traits_of(small(), IMAGES, restarts=-1), "restarts"),
    "too few familiar images": (lambda: Familiar.of(KNOWN[:3]), "at least 4"),
    "too few for the components": (lambda: Familiar.of(KNOWN, components=11), "at least 22"),
    "components none": (lambda: Familiar.of(KNOWN, components=0), "components"),
    "components a word": (lambda: Familiar.of(KNOWN, components="ten"), "components"),
    "seed negative": (lambda: Familiar.of(KNOWN, seed=-1), "seed"),
    "familiar traits with NaN": (lambda: Familiar.of(KNOWN * math.nan), "traits"),
    "traits without a code": (lambda: Familiar.of(KNOWN[:, :OURS]), "traits"),
    "a list of traits": (lambda: Familiar.of(KNOWN.tolist()), "traits"),
    "points of other traits": (lambda: TOLD.typicality(POINTS[:, :-1]), "traits"),
    "a group for a point": (lambda: TOLD.code_surprise(POINTS[None]), "traits"),
    "points for a group": (lambda: TOLD.energy(POINTS), "traits"),
    "groups of one": (lambda: TOLD.discrepancy(POINTS[:1][None]), "at least two"),
    "points that are infinite": (lambda: TOLD.residual_surprise(POINTS + math.inf), "traits"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_a_sentence(case: str) -> None:
    action, words = BAD[case]
    with pytest.raises(jiio.JiioError, match=words) as caught:
        action()
    assert "\n" not in str(caught.value)
