"""How far a set of generated images is from a set of real ones.

The distances here need no network: they compare pixels, and say nothing of what a person would see. For FID and KID,
which do to some degree, see :mod:`jiio.tasks.generate.fidelity`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jiio.checks import check_integer, fail
from jiio.outputs.seeds import generator

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
