"""FID and KID of a set of images, by torch-fidelity (extra ``fidelity``), over features that the user has.

Features are any callable from images (B, C, H, W) in [0, 1] to (B, n). Those of the published figures are the 2048 of
an Inception network; its weights are a file that the user fetches once, here nothing is downloaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jiio.checks import check_finite, fail
from jiio.tasks.frame.files import InputError, check_file, reason

from .samples import check_sets

Features = Callable[[Tensor], Tensor]
CHUNK = 64  # images at a time
SUBSET = 1000  # images that KID compares at a time, as torch-fidelity does


def has_fidelity() -> bool:
    """Whether torch-fidelity is installed."""
    return importlib.util.find_spec("torch_fidelity") is not None


def part_of_library(name: str) -> Any:
    """A module of torch-fidelity.

    Errors: InputError where it is not installed.
    """
    if not has_fidelity():
        remedy = "Install jiio[fidelity], or use the distances of jiio.tasks.generate.samples, which need no features."
        fail("torch-fidelity", "the package", "no such package", remedy, InputError)
    return importlib.import_module(f"torch_fidelity.{name}")


class Inception:
    """Images (B, 1 or 3, H, W) in [0, 1] -> (B, 2048), the features of torch-fidelity's Inception network, on the CPU.

    weights: the file ``weights-inception-2015-12-05-6726825d.pth`` of torch-fidelity's releases.

    Errors: InputError where torch-fidelity is missing or the file holds something else.
    """

    def __init__(self, weights: Path, argument: str = "features") -> None:
        library = part_of_library("feature_extractor_inceptionv3")
        check_file(argument, weights, "the weights of torch-fidelity's Inception network", 1 << 30)
        try:
            # The library reads the file as a pickle, which could run code: it has to hold tensors and nothing else.
            torch.load(weights, map_location="cpu", weights_only=True)
            options = {"feature_extractor_weights_path": str(weights)}
            self.network = library.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], **options)
        except (OSError, EOFError, RuntimeError, ValueError, TypeError, KeyError, pickle.UnpicklingError) as error:
            came = f"{weights}, which holds something else ({reason(error)})"
            raise InputError(
                f"{argument}: expected the weights of torch-fidelity's Inception network, got {came}."
            ) from error

    def __call__(self, images: Tensor) -> Tensor:
        pixels = (images.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
        return self.network(pixels.expand(-1, 3, -1, -1).contiguous())[0]


@torch.no_grad()
def features_of(features: Features, images: Tensor) -> Tensor:
    """(N, n) float64 on the CPU.

    Errors: ArgumentError where a feature is missing or not finite.
    """
    found = [features(part) for part in images.split(CHUNK)]
    if any(not isinstance(f, Tensor) or f.dim() != 2 for f in found) or sum(map(len, found)) != len(images):
        fail("features", "a callable from images (B, C, H, W) to features (B, n)", found[0])
    return check_finite("features", torch.cat(found).double().cpu())


def fidelity(samples: Tensor, real: Tensor, features: Features) -> dict[str, float]:
    """FID (Heusel et al. 2017) and KID (Binkowski et al. 2018) between two sets of images (N, C, H, W) in [0, 1].

    FID is the Frechet distance |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2) of Gaussians with the features' moments; few
    images make it too large. KID is the unbiased squared maximum mean discrepancy with kernel (a b / n + 1)^3, the mean
    over random subsets where there are more than 1000 images; it can be below zero.

    Errors: InputError where torch-fidelity is missing, ArgumentError where sets or features do not fit.
    """
    check_sets(samples, real)
    fid, kid = part_of_library("metric_fid"), part_of_library("metric_kid")
    a, b = (features_of(features, images) for images in (samples, real))
    if a.shape[1] != b.shape[1] or a.shape[1] < 2:
        fail("features", "equally many of every image, and more than one", f"{a.shape[1]} and {b.shape[1]}")
    moments = (fid.fid_features_to_statistics(f) for f in (a, b))
    size = min(len(a), len(b), SUBSET)
    whole = len(a) == len(b) == size  # every subset would be the same
    discrepancy = kid.kid_features_to_metric(a, b, kid_subsets=1 if whole else 100, kid_subset_size=size, verbose=False)
    frechet = fid.fid_statistics_to_metric(*moments, False)[fid.KEY_METRIC_FID]
    return {"FID": float(frechet), "KID": float(discrepancy[kid.KEY_METRIC_KID_MEAN])}
