"""Image quality, per image, on values in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from jiio.checks import fail


def check_pair(x: Tensor, reference: Tensor) -> None:
    """Two batches of images of one shape (B, C, H, W)."""
    if x.ndim != 4 or x.shape != reference.shape:
        fail("x", f"images (B, C, H, W) of the reference's shape {tuple(reference.shape)}", x)


def psnr(x: Tensor, reference: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB, ``-10 log10(mean squared error)`` with data range 1, one figure per image.

    The mean runs over channels and pixels, in float64; with ``mask`` (broadcastable to the images) over the entries
    where it is 1, for example the hole of an inpainting. Equal images give infinity, an empty mask NaN.
    On data in [-1, 1] the same formula would read 6.02 dB too low; the range here is [0, 1].

    Returns: (B,) float64.
    """
    check_pair(x, reference)
    square = (x.double() - reference.double()) ** 2
    weight = torch.ones_like(square) if mask is None else mask.to(square).expand_as(square)
    error = (weight * square).flatten(1).sum(1) / weight.flatten(1).sum(1)  # (B,)
    return -10.0 * torch.log10(error)


def ssim(x: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity as Wang et al. (2004) define it, one figure per image, by scikit-image.

    Gaussian window with sigma 1.5 (11 pixels wide), population covariance, data range 1, mean over the channels; the
    options are spelled out because scikit-image's defaults (a uniform 7-pixel window, sample covariance) are another
    measure.

    Returns: (B,) float64.
    """
    from skimage.metrics import structural_similarity

    check_pair(x, reference)
    if min(x.shape[2:]) < 11:
        fail("x", "images of at least 11 x 11 pixels, the width of the window", x)
    pairs = zip(x.detach().double().cpu().numpy(), reference.detach().double().cpu().numpy(), strict=True)
    figures = [
        structural_similarity(
            a, b, data_range=1.0, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for a, b in pairs
    ]
    return torch.tensor(figures, dtype=torch.float64)
