"""Pictures: contact sheets, a moving picture of an iteration, plots of curves, and maps of colours; all as bytes.

Matplotlib and Pillow are imported when used.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

INK, SOFT, PAPER = "#1b1f24", "#6a737d", "#ffffff"
COLOURS = {"z": "#0b6e99", "mu": "#c2571a", "x": "#3a7d44"}
GAP = 4  # pixels between two images


def to_uint8(images: Tensor) -> np.ndarray:
    """(B, C, H, W) in [0, 1] -> (B, H, W, 3) uint8."""
    images = images.detach().cpu().float().clamp(0, 1)
    images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def paste(canvas: Any, images: np.ndarray, corner: tuple[int, int], scale: int) -> None:
    """A row of images (B, H, W, 3) onto a picture of Pillow, each pixel a square of ``scale`` pixels, unsmoothed."""
    from PIL import Image

    left, top = corner
    height, width = images.shape[1] * scale, images.shape[2] * scale
    for column, image in enumerate(images):
        big = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
        canvas.paste(big, (left + column * (width + GAP), top))


def sheet(rows: dict[str, Tensor], scale: int = 4) -> bytes:
    """A PNG with one labelled row of images per entry; pixels enlarged without smoothing."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=14)
    blocks = {name: to_uint8(images) for name, images in rows.items()}
    count, height, width = next(iter(blocks.values())).shape[:3]

    # Labels to the left, as wide as the longest.
    left = 10 + int(max(font.getlength(name) for name in rows)) + 10
    size = (left + count * (width * scale + GAP), len(rows) * (height * scale + GAP))
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    for r, (name, images) in enumerate(blocks.items()):
        top = r * (height * scale + GAP)
        draw.text((10, top + height * scale // 2), name, fill=INK, font=font, anchor="lm")
        paste(canvas, images, (left, top), scale)
    return _png(canvas)


def moving(frames: Sequence[Tensor], captions: Sequence[str], scale: int = 5, milliseconds: int = 140) -> bytes:
    """A GIF: each frame a row of images (B, C, H, W) with a caption below; the last frame stays for two seconds."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=15)
    pictures = []
    for images, caption in zip(frames, captions, strict=True):
        array = to_uint8(images)
        count, height, width = array.shape[:3]
        canvas = Image.new("RGB", (count * (width * scale + GAP), height * scale + 30), PAPER)
        paste(canvas, array, (0, 0), scale)
        ImageDraw.Draw(canvas).text((4, height * scale + 7), caption, fill=INK, font=font)
        pictures.append(canvas.quantize(64))  # a GIF has few colours

    buffer = io.BytesIO()
    durations = [milliseconds] * (len(pictures) - 1) + [2000]
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    return buffer.getvalue()


@dataclass(frozen=True)
class Curve:
    """A line of a plot; NaN breaks nothing, it is skipped."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    dashed: bool = False

    def draw(self, axis: Any, *, log: bool) -> None:
        """Onto an axis of matplotlib; on a logarithmic one what is not positive is skipped as well."""
        points = [(a, b) for a, b in zip(self.x, self.y, strict=True) if np.isfinite(b) and (b > 0 or not log)]
        if points:
            style = {"linestyle": "--" if self.dashed else "-", "linewidth": 1.6, "color": self.colour}
            axis.plot(*zip(*points, strict=True), label=self.label, **style)


def plot(panels: Sequence[tuple[str, str, Sequence[Curve]]], xlabel: str, *, log: bool = True) -> bytes:
    """A PNG with panels side by side, each (title, y label, curves)."""
    pyplot = _pyplot()
    spare = {"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": SOFT}
    with pyplot.rc_context({"font.size": 9} | spare):
        size = (4.6 * len(panels), 3.3)
        figure, axes = pyplot.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
        for axis, (title, ylabel, curves) in zip(axes[0], panels, strict=True):
            for curve in curves:
                curve.draw(axis, log=log)

            # Titles to the left, so that they read on from panel to panel.
            axis.set_title(title, loc="left", fontsize=10, color=INK)
            axis.set_ylabel(ylabel)
            axis.set_xlabel(xlabel)
            if log:
                axis.set_yscale("log")
            axis.grid(True, which="major", linewidth=0.4, alpha=0.6)
            axis.legend(frameon=False, fontsize=8)
        return _drawn(figure)


Frame = tuple[float, float, float, float]  # left, top, width, height


def heat(values: np.ndarray, label: str, *, limit: float, signed: bool = False, boxes: Sequence[Frame] = ()) -> bytes:
    """A PNG of values (H, W) as colours with their scale beside: from 0 to ``limit``, or to both sides of 0.

    ``boxes`` are drawn over it.
    """
    pyplot = _pyplot()
    from matplotlib.patches import Rectangle

    height, width = values.shape
    scale = min(7.0 / width, 6.0 / height)  # inches for a pixel: the picture keeps its proportions
    with pyplot.rc_context({"font.size": 9}):
        figure, axis = pyplot.subplots(figsize=(width * scale + 1.2, height * scale + 0.3), layout="constrained")
        low, colours = (-limit, "RdBu_r") if signed else (0.0, "magma")
        shown = axis.imshow(values, cmap=colours, vmin=low, vmax=limit, interpolation="nearest")
        style: dict[str, Any] = {"fill": False, "edgecolor": "#00a0ff", "linewidth": 1.5}
        for left, top, wide, high in boxes:
            axis.add_patch(Rectangle((left - 0.5, top - 0.5), wide, high, **style))  # pixels are centred on numbers

        axis.set_axis_off()
        figure.colorbar(shown, ax=axis, label=label, extend="both" if signed else "max", shrink=0.9)
        return _drawn(figure)


def _pyplot() -> Any:
    """Matplotlib's, without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _drawn(figure: Any) -> bytes:
    """A figure of matplotlib as a PNG; it is closed."""
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    pyplot.close(figure)
    return buffer.getvalue()


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
