"""How far a set of generated images is from a set of real ones.

The distances here need no network: they compare pixels, and say nothing of what a person would see. FID and KID, which
do to some degree, are measured where torch-fidelity is installed (extra ``fidelity``) and finds its feature weights.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jiio.checks import check_integer, fail
from tasks.files import InputError, reason
from tasks.seeds import generator

PROJECTIONS = 512


def check_sets(samples: Tensor, real: Tensor) -> None:
    """Two sets of images of one shape, at least two of each."""
    if samples.dim() != 4 or samples.shape[1:] != real.shape[1:] or min(len(samples), len(real)) < 2:
        fail("samples", f"at least two images like those of shape {tuple(real.shape)}", samples)


def sliced_wasserstein(samples: Tensor, real: Tensor, *, projections: int = PROJECTIONS, seed: int = 0) -> float:
    """The sliced 2-Wasserstein distance of pixels (Rabin, Peyre, Delon, Bernot 2011), root mean square per pixel.

    Both sets are projected onto random directions of length sqrt(pixels); in one dimension the distance is between
    sorted values. Zero for equal sets; two sets whose images differ by a constant c are |c| apart at least in part of
    the directions. Sets of different sizes are compared at the quantiles of the smaller one.
    """
    check_sets(samples, real)
    check_integer("projections", projections, 1)
    a, b = samples.flatten(1).double(), real.flatten(1).double()
    directions = torch.randn(a.shape[1], projections, generator=generator(seed, "slices"), dtype=torch.float64)
    directions /= directions.norm(dim=0)
    count = min(len(a), len(b))
    places = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    apart = [_quantiles((x.cpu() @ directions).sort(0).values, places) for x in (a, b)]
    return float((apart[0] - apart[1]).square().mean().sqrt())


def _quantiles(sorted_values: Tensor, places: Tensor) -> Tensor:
    """(count, projections), the empirical quantiles (N, projections) -> at places in (0, 1)."""
    return sorted_values[(places * len(sorted_values)).long().clamp_max(len(sorted_values) - 1)]


def nearest_neighbour_accuracy(samples: Tensor, real: Tensor) -> float:
    """How well the nearest other image tells generated from real (Lopez-Paz and Oquab 2017), by pixels.

    0.5: the sets cannot be told apart. 1: every image is closer to its own kind. Below 0.5: generated images sit on top
    of the real ones, as copies do. Both sets are cut to the size of the smaller one.
    """
    check_sets(samples, real)
    count = min(len(samples), len(real))
    everything = torch.cat([samples[:count], real[:count]]).flatten(1).double()
    distance = torch.cdist(everything, everything)
    distance.fill_diagonal_(float("inf"))
    kind = torch.arange(2 * count, device=everything.device) < count
    return float((kind[distance.argmin(1)] == kind).double().mean())


def auroc(inside: Tensor, outside: Tensor) -> float:
    """The chance that a random score (M,) of ``outside`` is above one (N,) of ``inside``; ties count one half.

    The area under the receiver operating characteristic, as the Mann-Whitney statistic: 0.5 tells nothing, 1 all.
    """
    if not len(inside) or not len(outside):
        fail("inside", "at least one score on each side", f"{len(inside)} and {len(outside)}")
    above = (outside[:, None] > inside).double().mean()
    return float(above + 0.5 * (outside[:, None] == inside).double().mean())


def has_fidelity() -> bool:
    """Whether torch-fidelity is installed."""
    return importlib.util.find_spec("torch_fidelity") is not None


def fidelity(samples: Tensor, real: Tensor, *, weights: Path | None = None) -> dict[str, float]:
    """FID (Heusel et al. 2017) and KID (Binkowski et al. 2018) by torch-fidelity.

    weights: file of its Inception network (default: the one it keeps or fetches itself).

    Errors: InputError where torch-fidelity is missing or has no weights.
    """
    check_sets(samples, real)
    if not has_fidelity():
        remedy = "Install jiio[fidelity], or use the sliced Wasserstein distance."
        fail("torch-fidelity", "the package", "no such package", remedy, InputError)
    import torch_fidelity  # type: ignore[import-not-found]

    def as_bytes(images: Tensor) -> list[Tensor]:
        return list((images.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).cpu())

    options: dict[str, Any] = {"feature_extractor_weights_path": str(weights)} if weights else {}
    size = min(len(samples), len(real), 1000)
    try:
        found = torch_fidelity.calculate_metrics(
            input1=_Listed(as_bytes(samples)),
            input2=_Listed(as_bytes(real)),
            cuda=False,
            fid=True,
            kid=True,
            kid_subset_size=size,
            verbose=False,
            **options,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"torch-fidelity: it could not measure ({reason(error)}).") from error
    return {
        "FID": float(found["frechet_inception_distance"]),
        "KID": float(found["kernel_inception_distance_mean"]),
    }


class _Listed(torch.utils.data.Dataset):
    """Images in memory, as torch-fidelity takes them."""

    def __init__(self, images: list[Tensor]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]
