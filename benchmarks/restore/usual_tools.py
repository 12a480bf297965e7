"""The usual tools on damaged pictures (C, H, W), as somebody would call them who knows no level of noise, and at
strengths among which somebody could choose who knows the clean picture.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

STRENGTHS = (0.02, 0.035, 0.05, 0.08, 0.12, 0.18)  # levels of noise, on the range [0, 1],
FEW = (0.035, 0.05, 0.08, 0.12)  # and for BM3D, which takes a hundred times as long


def restored_by(
    kind: str, pixels: np.ndarray, keep: np.ndarray | None, kernel: np.ndarray, *, factor: int = 2
) -> dict[str, np.ndarray]:
    """What each tool for this kind of damage makes of a picture. keep: (H, W), which pixels are known."""
    if kind == "noise":
        from skimage.restoration import estimate_sigma

        return denoised(pixels, float(np.mean(estimate_sigma(pixels, channel_axis=0)))) | coloured_in(pixels, (10,))
    if kind == "holes":
        assert keep is not None
        return filled(pixels, keep)
    return deblurred(pixels, kernel) if kind == "blur" else enlarged(pixels, factor)


def tuned_by(kind: str, pixels: np.ndarray, keep: np.ndarray | None, kernel: np.ndarray) -> dict[str, np.ndarray]:
    """More of the same, at other strengths."""
    if kind == "noise":
        found = {}
        for sigma in STRENGTHS:
            named = denoised(pixels, sigma, slow=sigma in FEW)
            found |= {f"{name}, {255 * sigma:.0f}": image for name, image in named.items()}
        return found | coloured_in(pixels, (3, 5, 7, 14, 20, 28))
    if kind == "blur":
        return deblurred(pixels, kernel, balances=(0.003, 0.03, 0.3, 1.0, 3.0), rounds=(3, 5, 20))
    return {}


def optional(module: str) -> Any:
    """A module, or None where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def denoised(pixels: np.ndarray, sigma: float, *, slow: bool = True) -> dict[str, np.ndarray]:
    """Non-local means, wavelets and, where it may be slow, BM3D, each told a level of noise."""
    from skimage.restoration import denoise_nl_means, denoise_wavelet

    colours = len(pixels) == 3
    # With an axis of one channel scikit-image's means are those of something else.
    image = pixels if colours else pixels[0]
    how: dict[str, Any] = {"channel_axis": 0 if colours else None, "sigma": sigma}
    means = denoise_nl_means(image, h=0.8 * sigma, patch_size=5, patch_distance=6, fast_mode=True, **how)
    waves = denoise_wavelet(image, convert2ycbcr=colours, rescale_sigma=True, **how)
    found = {"NLM": means.reshape(pixels.shape), "wavelets": waves.reshape(pixels.shape)}
    bm3d = optional("bm3d") if slow else None
    if bm3d is not None:
        turned = pixels.transpose(1, 2, 0).astype(np.float64)
        call = bm3d.bm3d_rgb if colours else bm3d.bm3d
        found["BM3D"] = np.asarray(call(turned, max(sigma, 1e-3))).reshape(turned.shape).transpose(2, 0, 1)
    return found


def coloured_in(pixels: np.ndarray, strengths: tuple[int, ...]) -> dict[str, np.ndarray]:
    """OpenCV's non-local means, at strengths of its own, of which 10 is what its examples take."""
    cv2 = optional("cv2")
    if cv2 is None:
        return {}
    values = eight_bits(pixels)
    found = {}
    for h in strengths:
        if len(pixels) == 1:
            result = cv2.fastNlMeansDenoising(values, None, h)
        else:
            result = cv2.fastNlMeansDenoisingColored(values, None, h, h)
        found[f"OpenCV, {h}"] = result.reshape(values.shape).transpose(2, 0, 1) / np.float32(255)
    return found


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    """(H, W, C), as OpenCV takes it."""
    return np.ascontiguousarray(np.rint(255 * pixels).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def filled(pixels: np.ndarray, keep: np.ndarray) -> dict[str, np.ndarray]:
    """A biharmonic surface, and OpenCV's method of Telea."""
    from skimage.restoration import inpaint_biharmonic

    found = {"biharmonic": inpaint_biharmonic(pixels.astype(np.float64), ~keep, channel_axis=0)}
    cv2 = optional("cv2")
    if cv2 is not None:
        values = eight_bits(pixels)
        result = cv2.inpaint(values, (~keep).astype(np.uint8), 3, cv2.INPAINT_TELEA)
        found["OpenCV"] = result.reshape(values.shape).transpose(2, 0, 1) / 255
    return found


def deblurred(
    pixels: np.ndarray, kernel: np.ndarray, balances: Sequence[float] = (0.01, 0.1), rounds: Sequence[int] = (10, 30)
) -> dict[str, np.ndarray]:
    """Wiener at some balances, and Richardson-Lucy at some numbers of rounds."""
    from skimage.restoration import richardson_lucy, wiener

    found = {f"Wiener {b:g}": np.stack([np.asarray(wiener(p, kernel, b)) for p in pixels]) for b in balances}
    return found | {f"Richardson-Lucy {n}": np.stack([richardson_lucy(p, kernel, n) for p in pixels]) for n in rounds}


def enlarged(pixels: np.ndarray, factor: int) -> dict[str, np.ndarray]:
    """By Lanczos and by bicubic interpolation."""
    from PIL import Image

    size = factor * pixels.shape[2], factor * pixels.shape[1]
    ways = {"Lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC}
    return {
        name: np.stack([np.asarray(Image.fromarray(plane).resize(size, way)) for plane in pixels])
        for name, way in ways.items()
    }
