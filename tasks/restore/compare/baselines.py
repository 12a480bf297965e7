"""The baselines that a table names beside a restorer, each with its parameters tuned on other images.

A baseline says which corruptions it serves and over which settings it is tuned. Tuning is a pure function of the
baseline, the tuning images, the corruption and the seed: the setting with the best mean PSNR.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from jiio.outputs.seeds import generator
from jiio.tasks.images.metrics import psnr
from jiio.tasks.maps.base import Denoise, Inpaint, LinearMap
from jiio.tasks.maps.convolution import Convolution
from jiio.tasks.maps.corruption import AbstractCorruption

from . import classical

Settings = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """A clean image (B, C, H, W), the map, and what was measured."""

    clean: Tensor
    operator: LinearMap
    y: Tensor

    @classmethod
    def draw(cls, clean: Tensor, corruption: AbstractCorruption, seed: int, *purpose: str) -> Trial:
        """A pure function of (seed, purpose): map and noise have generators of their own."""
        batch, _, height, width = clean.shape
        operator = corruption.draw(batch, height, width, generator=generator(seed, "map", *purpose))
        return cls(clean, operator, operator.measure(clean, generator(seed, "noise", *purpose)))

    def finished(self, image: Tensor) -> Tensor:
        """As every method's image is measured: pixels known exactly put back, clipped to [0, 1]."""
        return self.operator.keep(self.y, image).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Baseline:
    """A classical restorer.

    name: in tables. serves: whether it can invert a map. restore: (y, operator, **settings) to images. grid: the values
    of each setting among which it is tuned; none for a restorer without settings.
    """

    name: str
    serves: Callable[[LinearMap], bool]
    restore: Callable[..., Tensor]
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __call__(self, y: Tensor, operator: LinearMap, settings: Settings) -> Tensor:
        """The restored images (B, C, H, W), not clipped."""
        return self.restore(y, operator, **settings)

    def choices(self) -> list[Settings]:
        """Every combination of the grid; one, without settings, where there is none."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


def best(baseline: Baseline, cases: Sequence[Trial]) -> Settings:
    """The settings with the highest PSNR, in the mean over the cases; the first where some are equal."""
    choices = baseline.choices()
    if len(choices) == 1:
        return choices[0]

    def quality(settings: Settings) -> float:
        scores = [psnr(c.finished(baseline(c.y, c.operator, settings)), c.clean).mean() for c in cases]
        return sum(float(score) for score in scores) / len(scores)

    return max(choices, key=quality)


def tune(baseline: Baseline, images: Iterable[Tensor], corruption: AbstractCorruption, *, seed: int = 0) -> Settings:
    """The best settings on images (1, C, H, W) or (B, C, H, W), each corrupted once by a draw of its own."""
    cases = [Trial.draw(image, corruption, seed, "tune", str(i)) for i, image in enumerate(images)]
    return best(baseline, cases)


def _denoising(operator: LinearMap) -> bool:
    return isinstance(operator, Denoise) and operator.sigma > 0


def _inpainting(operator: LinearMap) -> bool:
    return isinstance(operator, Inpaint)


def _deblurring(operator: LinearMap) -> bool:
    return isinstance(operator, Convolution) and operator.rows.stride == operator.columns.stride == 1


def _upsampling(operator: LinearMap) -> bool:
    return isinstance(operator, Convolution) and not _deblurring(operator)


WAVELETS = {
    "wavelet": ("db2", "sym4", "sym8"),
    "method": ("BayesShrink", "VisuShrink"),
    "strength": (0.25, 0.35, 0.5, 0.7, 1.0, 1.3),
}
DECADES = tuple(round(1e-4 * 10 ** (k / 4), 6) for k in range(15))  # 0.0001 to 0.3, four to a decade
BASELINES = (
    Baseline(
        "non-local means (scikit-image)",
        _denoising,
        classical.nl_means,
        {"strength": (0.4, 0.5, 0.6, 0.7, 0.8, 1.0), "patch_size": (3, 5, 7), "patch_distance": (6, 11)},
    ),
    Baseline("wavelet (scikit-image)", _denoising, classical.wavelet, WAVELETS),
    Baseline("wavelet, cycle spinning (scikit-image)", _denoising, classical.wavelet, {**WAVELETS, "shifts": (3,)}),
    Baseline("Wiener (scikit-image)", _deblurring, classical.wiener, {"balance": DECADES}),
    Baseline("unsupervised Wiener (scikit-image)", _deblurring, classical.unsupervised_wiener),
    Baseline(
        "Richardson-Lucy (scikit-image)",
        _deblurring,
        classical.richardson_lucy,
        {"rounds": (3, 5, 10, 15, 20, 30, 45, 70, 100)},
    ),
    Baseline("bicubic", _upsampling, lambda y, operator: operator.start(y)),
    Baseline("mean fill", _inpainting, classical.mean_fill),
    Baseline("biharmonic (scikit-image)", _inpainting, classical.biharmonic),
    Baseline(
        "total variation (scikit-image)",
        _denoising,
        classical.tv_denoise,
        {"strength": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4)},
    ),
    Baseline(
        "total variation (scikit-image)",
        lambda operator: not isinstance(operator, Denoise),
        classical.total_variation,
        {"weight": DECADES},
    ),
)


def serving(operator: LinearMap, baselines: Iterable[Baseline] = BASELINES) -> list[Baseline]:
    """Those that can invert this map, in their order."""
    return [baseline for baseline in baselines if baseline.serves(operator)]
