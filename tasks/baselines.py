"""What a person would try first: the classical restorers that every table names beside ours."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.corruption import Inpaint, LinearMap
from tasks.metrics import psnr

TV_WEIGHTS = (0.01, 0.02, 0.05, 0.1, 0.2)


def total_variation(y: Tensor, operator: LinearMap, *, weight: float, rounds: int = 40) -> Tensor:
    """min |A x - y|^2 / 2 + weight TV(x) by proximal gradient, the prox being scikit-image's ``denoise_tv_chambolle``.

    y: measurement (B, C, H, W). The maps here have norm 1, so a step of 1 converges (for denoising, in one round).
    """
    from skimage.restoration import denoise_tv_chambolle

    rounds = rounds if isinstance(operator, Inpaint) else 1
    x = operator.A_adjoint(y)
    if isinstance(operator, Inpaint):
        x = x + (1 - operator.mask.to(x)) * _kept_mean(y, operator)
    for _ in range(rounds):
        x = x - operator.A_adjoint(operator.A(x) - y)
        smooth = [denoise_tv_chambolle(one.numpy(), weight=weight, channel_axis=0) for one in x]
        x = torch.stack([torch.from_numpy(one) for one in smooth]).to(y)
    return x


def tuned_tv_weight(clean: Tensor, y: Tensor, operator: LinearMap) -> float:
    """The weight with the best mean PSNR on images that are not the test images."""
    scores = [float(psnr(total_variation(y, operator, weight=w), clean).mean()) for w in TV_WEIGHTS]
    return TV_WEIGHTS[scores.index(max(scores))]


def biharmonic(y: Tensor, operator: Inpaint) -> Tensor:
    """scikit-image's ``inpaint_biharmonic`` on each image: a smooth continuation into the hole."""
    from skimage.restoration import inpaint_biharmonic

    mask = operator.mask.expand(y.shape[0], 1, *y.shape[2:])
    done = [
        inpaint_biharmonic(one.double().numpy(), hole[0].numpy() == 0, channel_axis=0)
        for one, hole in zip(y, mask, strict=True)
    ]
    return torch.stack([torch.from_numpy(one) for one in done]).to(y)


def mean_fill(y: Tensor, operator: Inpaint) -> Tensor:
    """The hole filled with the mean of the pixels that are left, per image and channel."""
    return y + (1 - operator.mask.to(y)) * _kept_mean(y, operator)


def _kept_mean(y: Tensor, operator: Inpaint) -> Tensor:
    kept = operator.mask.to(y).expand_as(y)
    return (kept * y).sum((2, 3), keepdim=True) / kept.sum((2, 3), keepdim=True).clamp_min(1.0)
