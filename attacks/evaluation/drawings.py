"""The drawings of a report: robust accuracy over the radius, and broken samples. Matplotlib is imported when used."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jiio.checks import fail

from .gallery import Gallery

ROWS = ("image", "attacked", "perturbation")


@dataclass(frozen=True)
class Decline:
    """Robust accuracy over the radius. at: radii, or multiples of ``unit``, beginning with 0. shares: at each of them
    ``share``, ``low`` and ``high``, from 0 to 1. unit: where the evaluation's own radius stands. axis: what is named
    below.
    """

    at: list[float]
    shares: list[dict[str, float]]
    unit: float
    axis: str


def decline(curve: Decline) -> bytes:
    """A PNG of the curve with its band of uncertainty."""
    drawing = _figure(6.4, 3.6)
    axes = drawing.add_subplot()
    low, high, middle = ([100 * share[name] for share in curve.shares] for name in ("low", "high", "share"))

    # The band is the interval of every point by itself, not of the curve as a whole.
    axes.fill_between(curve.at, low, high, alpha=0.2, linewidth=0)
    axes.plot(curve.at, middle, marker="o", clip_on=False, zorder=3)
    axes.axvline(curve.unit, color="0.6", linestyle=":")

    axes.set(ylim=(0, 101), xlim=(0, None), ylabel="robust accuracy, %", xlabel=curve.axis)
    axes.grid(alpha=0.3)
    return _png(drawing)


def broken(gallery: Gallery) -> bytes:
    """A PNG with a column per broken sample: image, attacked image, perturbation."""
    count = len(gallery.clean)
    drawing = _figure(1.5 * count, 4.8)
    axes = drawing.subplots(len(ROWS), count, squeeze=False)

    for j, word in enumerate(gallery.words):
        _column(axes[:, j], gallery.clean[j].double(), gallery.attacked[j].double())
        axes[0, j].set_title(word, fontsize=9)
    for axis, name in zip(axes[:, 0], ROWS, strict=True):
        axis.set_ylabel(name, fontsize=9)
    return _png(drawing)


def _column(axes: Any, clean: Tensor, attacked: Tensor) -> None:
    """One sample, both images (C, H, W)."""
    # One scale for both images, so that what differs is the attack's doing.
    low, high = float(torch.minimum(clean, attacked).min()), float(torch.maximum(clean, attacked).max())
    for axis, image in zip(axes, (clean, attacked), strict=False):
        shown = ((image - low) / max(high - low, 1e-12)).permute(1, 2, 0).numpy()
        axis.imshow(shown[:, :, 0] if shown.shape[2] == 1 else shown, cmap="gray", vmin=0, vmax=1)

    # The perturbation has a scale of its own, from its largest fall to its largest rise.
    change = (attacked - clean).mean(0)
    largest = float(change.abs().max()) or 1.0
    axes[2].imshow(change.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest)

    for axis in axes:
        axis.set(xticks=[], yticks=[])


def _figure(width: float, height: float) -> Any:
    """An empty drawing, in inches; no window and no global state behind it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        fail("Report.to_html", "the package matplotlib", "no such package", "pip install matplotlib.")
    return Figure(figsize=(width, height))


def _png(drawing: Any) -> bytes:
    buffer = io.BytesIO()
    # No version or date in the file: the same report gives the same page.
    drawing.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()
