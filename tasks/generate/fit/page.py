"""The pictures and the page of ``jiio fit``: the fit beside the picture, the way there, the residuals, the numbers."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jiio.outputs.page import Page
from jiio.tasks.frame import drawings
from jiio.tasks.frame.machine import versions

from ..generator import LatentGenerator
from .fit import SETTINGS, fit_images

if TYPE_CHECKING:
    from .fitted import Fitted

SHOWN = 900  # pixels of the longest side of a picture on the page, at most; small ones are enlarged
LEAD = (
    "Codes of a generator, fitted to {size} pixels by the joint solve: {quality:.2f} dB, {good:.0%} of {n} converged."
)
PATH = (
    "The image that the generator makes of the state while state, multiplier and code are being solved together, for "
    "the part of the picture with most contrast. Each step costs one evaluation of the network and one vector-Jacobian "
    "product."
)
RESIDUALS = (
    "Residuals of the three blocks of unknowns, and the objective, over the steps; the same part of the picture."
)
ERROR = (
    "Squared error of each fitted part, mean over its pixels: where it is bright, the generator knows nothing like it."
)
FILES = ("fitted.png", "beside.png", "path.png", "residuals.png", "index.html", "fit.json")  # what a fit leaves
BRIGHTER = 5  # times, so that a good fit's distance is not simply black


def pictures_of(model: LatentGenerator, fitted: Fitted, told: dict[str, Any], *, command: str) -> dict[str, bytes]:
    """File name -> bytes."""
    distance = (BRIGHTER * (fitted.result - fitted.image).abs()).clamp(0, 1)
    frames, captions, residuals = path_of(model, fitted)
    named = {caption: frame for caption, frame in zip(captions, frames, strict=True)}
    files = {
        "fitted.png": png(fitted.result),
        "beside.png": side_by_side([fitted.image, fitted.result, distance]),
        "path.png": drawings.sheet(named, scale=scale_of(fitted.side)),
        "residuals.png": residuals,
    }

    # The page holds the same pictures, so that it can be passed on alone.
    software = ", ".join(f"{name} {number}" for name, number in versions().items())
    page = page_of(fitted, told, files)
    return {**files, "index.html": page.render(f"{command}. {software}.").encode()}


def page_of(fitted: Fitted, told: dict[str, Any], files: dict[str, bytes]) -> Page:
    """The page: the fit, where it fits, how it came about, and the numbers."""
    good, count = told["converged"], len(fitted.fit.objective)
    size = f"{fitted.image.shape[2]} x {fitted.image.shape[1]}"
    page = Page(f"{told['picture']}, fitted", LEAD.format(size=size, quality=told["PSNR"], good=good, n=count))
    page.heading("Picture, fit, and the distance between them")
    beside = f"As it was fitted; the fit; {BRIGHTER} times the distance between them."
    page.picture(files["beside.png"], beside, pixels=True)
    if len(fitted.places) > 1:
        page.heading("Where it fits")
        page.picture(error_map(fitted), ERROR)

    page.heading("The way there")
    page.picture(files["path.png"], PATH, pixels=True)
    page.picture(files["residuals.png"], RESIDUALS)
    page.heading("Numbers")  # rounded; fit.json has all digits
    page.facts({key: f"{v:.4g}" if isinstance(v, float) else str(v) for key, v in told.items()})
    return page


def scale_of(side: int) -> int:
    """By how much small images are enlarged."""
    return max(1, 72 // side)


def side_by_side(images: list[Tensor]) -> bytes:
    """A PNG of images (C, H, W) in a row, small ones enlarged without smoothing."""
    from PIL import Image

    arrays = [drawings.to_uint8(image[None])[0] for image in images]
    height, width = arrays[0].shape[:2]
    scale = max(1, SHOWN // (3 * max(height, width)))
    canvas = Image.new("RGB", (3 * width * scale + 16, height * scale), drawings.PAPER)
    for i, array in enumerate(arrays):
        big = Image.fromarray(array).resize((width * scale, height * scale), Image.Resampling.NEAREST)
        canvas.paste(big, (i * (width * scale + 8), 0))
    return encoded(canvas)


def png(image: Tensor) -> bytes:
    """A PNG of an image (C, H, W), grey where it has one channel."""
    from PIL import Image

    array = drawings.to_uint8(image[None])[0]
    return encoded(Image.fromarray(array[:, :, 0] if image.shape[0] == 1 else array))


def encoded(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def part_of(fitted: Fitted) -> Tensor:
    """(B, C, side, side), the tile with most contrast, one channel at a time where the generator is grey."""
    tiles = torch.stack([fitted.image[:, r : r + fitted.side, c : c + fitted.side] for r, c in fitted.places])
    tile = tiles[tiles.flatten(1).var(1).argmax()]
    return tile[:, None] if fitted.fit.image.shape[1] == 1 else tile[None]


@torch.no_grad()
def path_of(model: LatentGenerator, fitted: Fitted) -> tuple[list[Tensor], list[str], bytes]:
    """Frames (images of some steps), their captions, and a plot of the residuals."""
    part = part_of(fitted).to(model.mean.device)
    fit = fit_images(model, part, restarts=0, trace="points", **{"max_steps": SETTINGS["max_steps"]})
    trace = fit.solution.trace
    assert trace is not None

    # Early steps change most, so the frames double their distance.
    last = len(trace.z) - 1
    steps = sorted({min(k, last) for k in (0, 2, 4, 8, 16, 32, 64, last)})
    grey = fitted.fit.image.shape[1] == 1

    def show(images: Tensor) -> Tensor:  # (B, 1, ...) channels of one picture -> one picture
        return images.transpose(0, 1) if grey and len(images) in (1, 3) else images

    frames = [torch.cat([show(part), show(model.decode(trace.z[k]))]).cpu() for k in steps]
    captions = [f"step {k}" for k in steps]
    return frames, captions, residual_plot(trace, fit.objective)


def residual_plot(trace: Any, objective: Tensor) -> bytes:
    """The residuals of the blocks, and how far the objective is from its last value (B,), over the steps."""
    blocks, count = trace.residual.nanmedian(1).values, list(range(len(trace.z)))
    curves = [
        drawings.Curve(name, count, blocks[:, i].tolist(), drawings.COLOURS[name])
        for i, name in enumerate(("z", "mu", "x"))
    ]
    gap = (trace.value - objective).abs().nanmean(1).tolist()
    one = drawings.Curve("objective", count, gap, drawings.COLOURS["z"])
    return drawings.plot([("Residuals", "RMS", curves), ("Objective", "distance to the last value", [one])], "step")


def error_map(fitted: Fitted) -> bytes:
    """Mean squared error of every tile as colours."""
    rows = sorted({r for r, _ in fitted.places})
    values = fitted.fit.error.cpu().view(len(fitted.places), -1).mean(1) / fitted.side**2
    grid = values.view(len(rows), -1).numpy()
    return drawings.heat(grid, "mean squared error of a part", limit=max(float(grid.max()), 1e-6))
