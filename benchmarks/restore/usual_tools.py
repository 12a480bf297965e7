"""The usual tools on damaged pictures (C, H, W), as somebody would call them who knows no level of noise."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np


def restored_by(kind: str, pixels: np.ndarray, keep: np.ndarray | None, kernel: np.ndarray) -> dict[str, np.ndarray]:
    """What each tool for this kind of damage makes of a picture. keep: (H, W), which pixels are known."""
    if kind == "noise":
        return denoised(pixels)
    if kind == "holes":
        assert keep is not None
        return filled(pixels, keep)
    return deblurred(pixels, kernel) if kind == "blur" else enlarged(pixels)


def optional(module: str) -> Any:
    """A module, or None where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def denoised(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Non-local means, wavelets, BM3D."""
    from skimage.restoration import denoise_nl_means, denoise_wavelet, estimate_sigma

    sigma = float(np.mean(estimate_sigma(pixels, channel_axis=0)))
    how = {"channel_axis": 0, "sigma": sigma}
    found = {"NLM": denoise_nl_means(pixels, h=0.8 * sigma, patch_size=5, patch_distance=6, fast_mode=True, **how)}
    found["wavelets"] = denoise_wavelet(pixels, convert2ycbcr=len(pixels) == 3, rescale_sigma=True, channel_axis=0)
    bm3d = optional("bm3d")
    if bm3d is not None:
        turned = pixels.transpose(1, 2, 0).astype(np.float64)
        call = bm3d.bm3d_rgb if len(pixels) == 3 else bm3d.bm3d
        found["BM3D"] = np.asarray(call(turned, max(sigma, 1e-3))).reshape(turned.shape).transpose(2, 0, 1)
    return found


def filled(pixels: np.ndarray, keep: np.ndarray) -> dict[str, np.ndarray]:
    """A biharmonic surface, and OpenCV's method of Telea."""
    from skimage.restoration import inpaint_biharmonic

    found = {"biharmonic": inpaint_biharmonic(pixels.astype(np.float64), ~keep, channel_axis=0)}
    cv2 = optional("cv2")
    if cv2 is not None:
        values = np.ascontiguousarray(np.rint(255 * pixels).astype(np.uint8).transpose(1, 2, 0))
        result = cv2.inpaint(values, (~keep).astype(np.uint8), 3, cv2.INPAINT_TELEA)
        found["OpenCV"] = result.reshape(values.shape).transpose(2, 0, 1) / 255
    return found


def deblurred(pixels: np.ndarray, kernel: np.ndarray) -> dict[str, np.ndarray]:
    """Wiener at two balances, and Richardson-Lucy at two numbers of rounds."""
    from skimage.restoration import richardson_lucy, wiener

    found = {f"Wiener {b:g}": np.stack([np.asarray(wiener(plane, kernel, b)) for plane in pixels]) for b in (0.01, 0.1)}
    return found | {
        f"Richardson-Lucy {n}": np.stack([richardson_lucy(plane, kernel, n) for plane in pixels]) for n in (10, 30)
    }


def enlarged(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Twice as large, by Lanczos and by bicubic interpolation."""
    from PIL import Image

    size = 2 * pixels.shape[2], 2 * pixels.shape[1]
    ways = {"Lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC}
    return {
        name: np.stack([np.asarray(Image.fromarray(plane).resize(size, way)) for plane in pixels])
        for name, way in ways.items()
    }
