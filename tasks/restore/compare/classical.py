"""Classical restorers of scikit-image on our measurements: y (B, ...) and a linear map to images (B, C, H, W).

Each image of the batch is done by itself. Where scikit-image knows one kind of border only, the measurement is extended
first, so that the comparison is about the method and not about the border.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio.tasks.maps.base import Inpaint, LinearMap
from jiio.tasks.maps.convolution import Convolution

if TYPE_CHECKING:
    import numpy as np


def each(images: Tensor, function: Callable[..., np.ndarray]) -> Tensor:
    """A function of scikit-image applied to every image (C, H, W) of a batch.

    It is called with a grey image (H, W) and ``channel_axis=None``, or with a colour image and ``channel_axis=0``: an
    axis of length 1 is something that some of these functions drop, and turn the picture over it.
    """
    done = [function(i[0], channel_axis=None) if len(i) == 1 else function(i, channel_axis=0) for i in numpy(images)]
    return torch.stack([torch.from_numpy(one) for one in done]).view(images.shape).to(images)


def numpy(images: Tensor) -> np.ndarray:
    return images.detach().cpu().numpy()


def nl_means(y: Tensor, operator: LinearMap, *, strength: float, patch_size: int, patch_distance: int) -> Tensor:
    """``denoise_nl_means``, the fast variant with the known noise level. strength: of the filter, in units of sigma."""
    from skimage.restoration import denoise_nl_means

    sigma = operator.sigma
    settings: dict[str, Any] = {"patch_size": patch_size, "patch_distance": patch_distance, "fast_mode": True}
    return each(y, partial(denoise_nl_means, h=strength * sigma, sigma=sigma, **settings))


def wavelet(y: Tensor, operator: LinearMap, *, wavelet: str, method: str, strength: float, shifts: int = 0) -> Tensor:
    """``denoise_wavelet`` with the known noise level; averaged over ``shifts + 1`` places per axis by ``cycle_spin``.

    strength: the noise level that it is told, in units of sigma.
    """
    from skimage.restoration import cycle_spin, denoise_wavelet

    sigma = strength * operator.sigma
    settings: dict[str, Any] = {"sigma": sigma, "wavelet": wavelet, "method": method, "rescale_sigma": False}

    def spin(image: np.ndarray, *, channel_axis: int | None) -> np.ndarray:
        inner = settings | {"channel_axis": None if channel_axis is None else -1}  # it moves the channels there
        return cycle_spin(image, denoise_wavelet, shifts, func_kw=inner, workers=1, channel_axis=channel_axis)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a small picture has few levels
        return each(y, spin if shifts > 0 else partial(denoise_wavelet, **settings))


def tv_denoise(y: Tensor, operator: LinearMap, *, strength: float) -> Tensor:
    """``denoise_tv_chambolle``. strength: of its weight, in units of sigma."""
    from skimage.restoration import denoise_tv_chambolle

    return each(y, partial(denoise_tv_chambolle, weight=strength * operator.sigma))


def total_variation(y: Tensor, operator: LinearMap, *, weight: float, rounds: int = 100) -> Tensor:
    """min |A x - y|^2 / 2 + weight TV(x), the prox of TV being ``denoise_tv_chambolle``.

    By FISTA with steps of length 1 / |A|^2 (Beck, Teboulle, SIAM J. Imaging Sciences 2, 2009), until a step changes the
    image by less than one part in 10,000, which is what the prox is good for.
    """
    from skimage.restoration import denoise_tv_chambolle

    x = ahead = operator.start(y)
    step = 1.0 / max(operator.norm_bound(x), 1e-6) ** 2
    prox = partial(denoise_tv_chambolle, weight=step * weight)
    t = 1.0
    for _ in range(rounds):
        before, x = x, each(ahead - step * operator.A_adjoint(operator.A(ahead) - y), prox)
        t, past = (1.0 + (1.0 + 4.0 * t * t) ** 0.5) / 2.0, t
        ahead = x + (past - 1.0) / t * (x - before)
        if float((x - before).norm()) <= 1e-4 * float(x.norm()):
            break
    return x


def biharmonic(y: Tensor, operator: Inpaint) -> Tensor:
    """``inpaint_biharmonic``: a smooth continuation into the holes."""
    from skimage.restoration import inpaint_biharmonic

    missing = numpy(operator.mask_for(y).expand_as(y)[:, 0] == 0)
    pairs = zip(numpy(y.double()), missing, strict=True)
    return torch.stack([torch.from_numpy(inpaint_biharmonic(a, m, channel_axis=0)) for a, m in pairs]).to(y)


def mean_fill(y: Tensor, operator: Inpaint) -> Tensor:
    """The holes filled with the mean of the pixels that are left, per image and channel."""
    kept = operator.mask_for(y).expand_as(y)
    mean = (kept * y).sum((2, 3), keepdim=True) / kept.sum((2, 3), keepdim=True).clamp_min(1.0)
    return y + (1 - kept) * mean


def wiener(y: Tensor, operator: Convolution, *, balance: float) -> Tensor:
    """``wiener``, with its default regulariser, a Laplacian. balance: its weight."""
    from skimage import restoration

    def one(image: np.ndarray, psf: np.ndarray) -> Any:
        return restoration.wiener(image, psf, balance, clip=False)

    return _deblur(y, operator, one)


def unsupervised_wiener(y: Tensor, operator: Convolution) -> Tensor:
    """``unsupervised_wiener``, which finds its two weights itself, by sampling from a fixed seed."""
    from skimage import restoration

    return _deblur(y, operator, lambda image, psf: restoration.unsupervised_wiener(image, psf, clip=False, rng=0)[0])


def richardson_lucy(y: Tensor, operator: Convolution, *, rounds: int) -> Tensor:
    """``richardson_lucy`` on a measurement made positive. All beyond its border counts as 0, so it gets a frame."""
    from skimage import restoration

    def one(image: np.ndarray, psf: np.ndarray) -> np.ndarray:
        return restoration.richardson_lucy(image.clip(1e-4), psf, num_iter=rounds, clip=False)

    return _deblur(y, operator, one, frame=2)


def _deblur(
    y: Tensor, operator: Convolution, function: Callable[[np.ndarray, np.ndarray], Any], *, frame: int = 0
) -> Tensor:
    """A function of (image, kernel), in float64, on every channel.

    The border is what the map has: a circular one needs nothing where the function is circular itself (frame 0), and
    otherwise ``frame`` kernel widths from the opposite side. Other borders get a mirrored frame.
    """
    image = operator.start(y).double()
    height, width = operator.kernel.shape
    kernel = F.pad(operator.kernel, (0, 1 - width % 2, 0, 1 - height % 2))  # odd, with the centre in the same place
    circular = operator.rows.circular and operator.columns.circular
    margin = max(kernel.shape) * (frame if circular else max(frame, 2))
    vertical, horizontal = min(margin, image.shape[2] - 1), min(margin, image.shape[3] - 1)
    mode = "circular" if circular else "reflect"
    framed = F.pad(image, (horizontal, horizontal, vertical, vertical), mode=mode)
    psf = numpy(kernel)
    sharp = each(framed.flatten(0, 1)[:, None], lambda image, channel_axis: function(image, psf)).view_as(framed)
    return sharp[..., vertical : vertical + image.shape[2], horizontal : horizontal + image.shape[3]].to(y)
