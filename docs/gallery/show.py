"""What the scripts of the gallery share: where the picture goes, and a row of images with a line under each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from torch import Tensor

HERE = Path(__file__).parents[1] / "assets" / "gallery"


def folder(argv: Sequence[str] | None = None) -> Path:
    """The folder that the command line names; without one, where the documentation has its pictures."""
    argv = sys.argv[1:] if argv is None else argv
    where = Path(argv[0]) if argv else HERE
    where.mkdir(parents=True, exist_ok=True)
    return where


def psnr(image: Tensor, clean: Tensor) -> float:
    """dB, data range 1."""
    return -10 * float((image.clamp(0, 1) - clean).square().mean().log10())


def panel(axis: Any, image: Tensor, caption: str, **settings: Any) -> None:
    """One image (C, H, W) or (H, W) in [0, 1] on an axis of matplotlib."""
    pixels = image.detach().float().cpu()
    shown = pixels.permute(1, 2, 0) if pixels.dim() == 3 and len(pixels) == 3 else pixels.reshape(pixels.shape[-2:])
    axis.imshow(shown.numpy(), **({"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"} | settings))
    axis.set_title(caption, fontsize=9, y=-0.04, va="top")
    axis.set_axis_off()


def row(path: Path, images: Sequence[tuple[str, Tensor]], **settings: Any) -> Path:
    """A PNG of images side by side, a caption under each."""
    figure, axes = pyplot.subplots(1, len(images), figsize=(2.4 * len(images), 2.75), layout="constrained")
    for axis, (caption, image) in zip(axes, images, strict=True):
        panel(axis, image.clamp(0, 1), caption, **settings)
    return save(path, figure)


def save(path: Path, figure: Any) -> Path:
    """Write a figure of matplotlib, small, and close it."""
    from PIL import Image

    figure.canvas.draw()
    pixels = Image.frombytes("RGBA", figure.canvas.get_width_height(), figure.canvas.buffer_rgba()).convert("RGB")
    pixels.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    pyplot.close(figure)
    print(path)
    return path
