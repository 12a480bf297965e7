"""What a map is, found by trying it on random images: linear or not, its own adjoint, a multiplication, a filter.

For a linear map a random test is nearly a proof: two different matrices agree on a random vector with probability zero.
Every test is made sample by sample, on the whole batch, because masks and kernels may differ from image to image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jiio.checks import fail

PROBES = 4  # random pairs of the dot test
Map = Callable[[Tensor], Tensor]


def probes(like: Tensor, count: int, *, seed: int = 0) -> list[Tensor]:
    """Standard normal tensors of the shape of ``like``, the same ones every time."""
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(like.shape, generator=random).to(like) for _ in range(count)]


def size(t: Tensor) -> Tensor:
    """(B,), the length of each sample."""
    return t.flatten(1).double().norm(dim=1)


def apart(a: Tensor, b: Tensor) -> float:
    """How far two tensors are from each other, relative to the second: the worst sample."""
    gap = size(a - b) / size(b).clamp_min(1e-30)
    both = (size(a) == 0) & (size(b) == 0)
    return float(torch.where(both, torch.zeros_like(gap), gap).nan_to_num(float("inf")).max())


def precision(like: Tensor) -> float:
    """What rounding may explain in a map computed in this type."""
    return max(1e-4, 300 * torch.finfo(like.dtype).eps)


def check_steady(A: Map, image: Tensor) -> None:
    """The map gives the same twice.

    Errors: ArgumentError, for a function that adds noise of its own.
    """
    (u,) = probes(image, 1)
    u = 0.5 + 0.1 * u  # bright images, which every map is defined on
    if apart(A(u), A(u)) != 0.0:
        remedy = "Leave its noise away (deepinv: physics.A in place of physics) and say it by sigma= or noise=."
        fail("physics.A", "a map that gives the same twice", "one that draws something at every call", remedy)


def bend(A: Map, image: Tensor) -> float:
    """How far the map is from linear: |A(u + 2 v) - A(u) - 2 A(v)| / |A(u)|, and the same for images a hundred times as
    large and as small, and in the usual range.
    """
    u, v = probes(image, 2)
    worst = 0.0
    for scale, shift in ((1.0, 0.0), (100.0, 0.0), (0.01, 0.0), (0.2, 0.5)):
        a, b = scale * u + shift, scale * v + shift
        parts = A(a), 2.0 * A(b)
        worst = max(worst, apart(A(a + 2.0 * b), parts[0] + parts[1]))
    return worst


def adjoint_gap(A: Map, A_adjoint: Map, image: Tensor, y: Tensor) -> float:
    """How far ``A_adjoint`` is from the adjoint: the gap of <A u, v> and <u, A* v> over random pairs, of the worst
    sample, relative to their size.
    """
    us, vs = probes(image, PROBES), probes(y, PROBES, seed=1)  # never the same: a symmetric form proves nothing
    left = torch.stack([(A(u) * v).flatten(1).double().sum(1) for u, v in zip(us, vs, strict=True)])  # (PROBES, B)
    right = torch.stack([(u * A_adjoint(v)).flatten(1).double().sum(1) for u, v in zip(us, vs, strict=True)])
    return float(((left - right).norm(dim=0) / left.norm(dim=0).clamp_min(1e-30)).nan_to_num(float("inf")).max())


def as_diagonal(A: Map, image: Tensor) -> Tensor | None:
    """d (1 or B, C, H, W) where the linear map is ``A(x) = d x``, else None."""
    d = A(torch.ones_like(image))
    if d.shape != image.shape:
        return None
    (u,) = probes(image, 1)
    if apart(A(u), d * u) > precision(image):
        return None

    # A mask is found to the last bit, and once where it is the same for all.
    near = d.round()
    d = near if bool(((d - near).abs() <= precision(image)).all()) else d
    return d[:1] if bool((d == d[:1]).all()) else d


def as_filter(A: Map, image: Tensor) -> Tensor | None:
    """The spectrum (1 or B, C, H, W // 2 + 1) where the linear map is a circular convolution of each channel."""
    point = torch.zeros_like(image)
    point[..., 0, 0] = 1.0
    kernel = A(point)
    if kernel.shape != image.shape:
        return None

    spectrum = torch.fft.rfft2(kernel.double())
    (u,) = probes(image, 1)
    if apart(A(u), filtered(u, spectrum)) > precision(image):
        return None
    return spectrum[:1] if bool((kernel == kernel[:1]).all()) else spectrum


def filtered(x: Tensor, spectrum: Tensor) -> Tensor:
    """The circular convolution of images with the kernel of a spectrum, in double precision inside."""
    return torch.fft.irfft2(torch.fft.rfft2(x.double()) * spectrum, s=x.shape[2:]).to(x)
