"""The linear physics of deepinv 0.5, each made for images of N x N pixels; what it needs beyond torch stands beside it.

Not here, because they need packages or devices that a test cannot bring: RadioInterferometry (torchkbnufft),
NonCartesianMRI (mri-nufft), PET (parallelproj), TomographyWithAstra (a GPU), UltrasoundPlaneWave (a probe's geometry);
and DynamicMRI, whose images are films.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

N = 16


def draw(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def kernel(batch: int = 1, parts: int | None = None) -> torch.Tensor:
    shape = (batch, 1, 3, 3) if parts is None else (batch, 1, parts, 3, 3)
    values = draw(*shape) + 0.1
    return values / values.sum((-2, -1), keepdim=True)


def mask(*shape: int) -> torch.Tensor:
    return (draw(*shape) > 0.4).float()


def kspace(*shape: int) -> torch.Tensor:
    """A mask of frequencies that keeps the lowest, in the middle."""
    kept, middle = mask(*shape), slice(N // 2 - 3, N // 2 + 3)
    kept[..., middle, middle] = 1.0
    return kept


ALONE = ("SequentialMRI", "CompressiveSpectralImaging")  # in deepinv 0.5 their A_adjoint is not the adjoint of their A


def cases(P: Any, T: Any, batch: int = 2) -> dict[str, Callable[[], tuple[Any, int]]]:
    """name -> (the physics, channels of its images). P: deepinv.physics. T: deepinv.transform."""
    grey, pair, coils = (1, N, N), (2, N, N), draw(1, 3, N, N)
    shift = {"x_shift": torch.tensor([2]), "y_shift": torch.tensor([1])}
    blur = lambda padding="circular": P.Blur(kernel(), padding=padding)  # noqa: E731
    return {
        "Denoising": lambda: (P.Denoising(P.GaussianNoise(0.1)), 1),
        "Inpainting": lambda: (P.Inpainting(grey, mask=mask(*grey)), 1),
        "Inpainting, a mask each": lambda: (P.Inpainting(grey, mask=mask(batch, *grey)), 1),
        **{f"Blur, {p}": lambda p=p: (blur(p), 1) for p in ("valid", "circular", "reflect", "replicate", "constant")},
        "BlurFFT": lambda: (P.BlurFFT(grey, kernel()), 1),
        "BlurFFT, a kernel each": lambda: (P.BlurFFT(grey, kernel(batch)), 1),
        "SpaceVaryingBlur": lambda: (P.SpaceVaryingBlur(kernel(1, 2), draw(1, 1, 2, N, N), padding="valid"), 1),
        "TiledSpaceVaryingBlur": lambda: (P.TiledSpaceVaryingBlur(kernel(1, 9), patch_size=N // 2, stride=N // 4), 1),
        "Downsampling": lambda: (P.Downsampling(grey, filter="bicubic", factor=2), 1),
        "DownsamplingMatlab": lambda: (P.DownsamplingMatlab(2), 1),
        "Upsampling": lambda: (P.Upsampling((1, 2 * N, 2 * N), filter="bicubic", factor=2), 1),
        "Decolorize": lambda: (P.Decolorize(), 3),
        "Demosaicing": lambda: (P.Demosaicing((3, N, N)), 3),
        "CompressedSensing": lambda: (P.CompressedSensing(N * N // 2, grey), 1),
        "CompressedSensing, complex": lambda: (P.CompressedSensing(N * N // 4, grey, dtype=torch.cfloat), 1),
        "SinglePixelCamera": lambda: (P.SinglePixelCamera(N * N // 3, grey), 1),
        "StructuredRandom": lambda: (P.StructuredRandom(grey, grey), 1),
        "Tomography": lambda: (P.Tomography(30, N, normalize=True), 1),
        "Tomography, not normalised": lambda: (P.Tomography(30, N, normalize=False), 1),
        "Tomography, fan": lambda: (P.Tomography(30, N, normalize=False, fan_beam=True), 1),
        "MRI": lambda: (P.MRI(kspace(N, N), (N, N)), 2),
        "MRI, a mask each": lambda: (P.MRI(kspace(batch, 1, N, N).expand(-1, 2, -1, -1), (N, N)), 2),
        "MultiCoilMRI": lambda: (
            P.MultiCoilMRI(kspace(N, N), torch.complex(coils, coils.flip(3)), pair),
            2,
        ),
        "SequentialMRI": lambda: (P.SequentialMRI(kspace(batch, 2, 3, N, N), pair), 2),
        "Pansharpen": lambda: (P.Pansharpen((3, N, N), factor=2), 3),
        "HyperSpectralUnmixing": lambda: (P.HyperSpectralUnmixing(E=4, C=8), 4),
        "ComposedLinearPhysics": lambda: (P.ComposedLinearPhysics(blur(), P.Inpainting(grey, mask=mask(*grey))), 1),
        "StackedLinearPhysics": lambda: (P.StackedLinearPhysics([blur(), P.Inpainting(grey, mask=mask(*grey))]), 1),
        "LinearPhysics": lambda: (P.LinearPhysics(A=sums, A_adjoint=sums_back), 1),
        "LinearPhysics, no adjoint": lambda: (P.LinearPhysics(A=sums, img_size=grey), 1),
        "DecomposablePhysics": lambda: (P.MRI(kspace(N, N), (N, N)), 2),
        "PhysicsCropper": lambda: (P.PhysicsCropper(P.Blur(kernel(), padding="circular"), (2, 2)), 1),
        "BlurMultiScaler": lambda: (P.BlurMultiScaler(blur(), grey), 1),
        "BlurFFTMultiScaler": lambda: (P.BlurFFTMultiScaler(P.BlurFFT(grey, kernel()), grey), 1),
        "InpaintingMultiScaler": lambda: (P.InpaintingMultiScaler(P.Inpainting(grey, mask=mask(*grey)), grey), 1),
        "LinearPhysicsMultiScaler": lambda: (P.LinearPhysicsMultiScaler(P.BlurFFT(grey, kernel()), grey), 1),
        "VirtualLinearPhysics": lambda: (
            P.VirtualLinearPhysics(physics=P.BlurFFT(grey, kernel()), transform=T.Shift(), g_params=shift),
            1,
        ),
        "PtychographyLinearOperator": lambda: (P.PtychographyLinearOperator(grey), 1),
        "CompressiveSpectralImaging": lambda: (P.CompressiveSpectralImaging((4, N, N), mask=0.5), 4),
    }


def sums(x: torch.Tensor, **_: Any) -> torch.Tensor:
    return x.cumsum(3) / N


def sums_back(y: torch.Tensor, **_: Any) -> torch.Tensor:
    return y.flip(3).cumsum(3).flip(3) / N
