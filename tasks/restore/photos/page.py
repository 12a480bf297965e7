"""The page of ``jiio restore --report``: what was done to a picture, what changed, and how the solve went."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jiio.outputs.page import Page
from jiio.tasks.frame.drawings import COLOURS, Curve, heat, plot
from jiio.tasks.frame.machine import versions
from jiio.tasks.frame.terminal import plain
from jiio.tasks.images.pictures import Picture
from jiio.tasks.maps.base import LinearMap

from ..base import AbstractRestorer, Restoration
from ..tiles import OVERLAP, Window
from .one import LEVELS, Restored
from .views import SHOWN, cut, every, local_contrast, richest, shown, thinning

CROP = 96  # pixels to a side of a detail
TRACED = 128  # pixels to a side of the window whose iterates are shown

LEAD = "{size}, {kind}. Damage: {damage}. Noise: {sigma:.1f} grey levels (of 255), {how}."
SLIDE = "Left of the line the picture as it was, right of it restored; drag the line. {scale}"
DETAIL = "Before. {what}, enlarged 3 times (from row {top}, column {left})."
ITERATES = (
    "The window of {height} x {width} pixels with most detail (from row {top}, column {left}), solved again and "
    "stopped early. All unknowns move together: a step costs one evaluation of the network and, where the image is "
    "among the unknowns, one vector-Jacobian product. Where the solve goes through several noise levels, the steps are "
    "those of each of them."
)
RESIDUALS = (
    "The same window: residual of each block of unknowns (z state, mu multiplier, x image) over the steps, in the "
    "scaled units that the tolerance is compared with."
)
OBJECTIVE = " Beside it how far the objective is from its last value."
FRAMED = (
    "Framed: {bad} of {count} tiles, with a margin that overlaps their neighbours. The largest residual left is "
    "{worst:.1e}. More steps (--max-steps) may help; the pictures show whether it matters."
)
CONVERGED = " met its tolerance."
CHANGE = (
    "Restored minus original, mean over the colours, in 8-bit grey levels: red became brighter, blue darker. Where "
    "the damage was noise alone, outlines of the picture here are detail that was lost.{every}"
)
CONFIDENCE = (
    "Root mean square error to be expected of each pixel, in 8-bit grey levels, from restorations of the restored "
    "picture with fresh noise. What the restoration has lost for good does not show, so fine texture reads too "
    "low.{every}"
)


@dataclass(frozen=True, eq=False)
class Subject:
    """What a page is about.

    before, done: the picture and its restoration. expected: (1, 1, H, W), the error to be expected, or None.
    settings: of the solve.
    """

    before: Picture
    done: Restored
    restorer: AbstractRestorer
    weights: str
    device: torch.device
    expected: Tensor | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def pair(self) -> tuple[Picture, Picture]:
        """Before and after at one size: a coarse picture is enlarged as it would be without a restorer."""
        factor = self.done.job.damage.factor
        if factor == 1:
            return self.before, self.done.picture
        pixels = torch.from_numpy(self.before.pixels)[None]
        large = torch.nn.functional.interpolate(pixels, scale_factor=factor, mode="bicubic").clamp(0, 1)
        return Picture(self.before.path, large[0].numpy(), icc=self.before.icc), self.done.picture


def photo_page(subject: Subject, command: str) -> str:
    """The HTML text. command: the line that made it, for the foot of the page."""
    job = subject.done.job
    before, after = subject.pair
    height, width = after.pixels.shape[1:]
    size = f"{width} x {height} pixels"
    how = "estimated from the picture" if job.estimated else "as given"
    kind = subject.before.kind
    words = LEAD.format(size=size, kind=kind, damage=job.damage.words, sigma=job.sigma * LEVELS, how=how)

    # What changed comes first, how it was found after it.
    page = Page(f"{plain(subject.before.path.name)}, restored", words)
    add_comparison(page, before, after)
    add_details(page, before, after)
    add_changes(page, before, after)
    add_convergence(page, subject)
    if subject.expected is not None:
        add_confidence(page, subject.expected)
    add_iteration(page, subject)

    page.heading("Numbers")
    page.facts(numbers(subject))
    software = ", ".join(f"{name} {number}" for name, number in versions().items())
    return page.render(f"{command}. {software}.")


def add_comparison(page: Page, before: Picture, after: Picture) -> None:
    """The whole picture under a slider."""
    scale = min(1.0, SHOWN / max(after.pixels.shape[1:]))
    words = SLIDE.format(scale=f"Shown at {scale:.0%} of its size, which hides some of the noise." if scale < 1 else "")
    page.heading("Before and after")
    page.compare(shown(before, scale), shown(after, scale), words, kind="jpeg" if scale < 1 else "png")


def add_details(page: Page, before: Picture, after: Picture) -> None:
    """The two windows with most change and with most detail, pixel by pixel."""
    page.heading("Details")
    change = np.abs(after.pixels - before.pixels).mean(0)
    shape = (min(CROP, change.shape[0]), min(CROP, change.shape[1]))
    seen: list[Window] = []
    for what, values in (("Most detail", local_contrast(after.pixels)), ("Most change", change)):
        window = richest(values, shape, *seen)
        if window is not None:
            seen.append(window)
            words = DETAIL.format(what=what, top=window.top, left=window.left)
            pictures = [(shown(cut(before, window), 1), words), (shown(cut(after, window), 1), "After.")]
            page.row(pictures, width=3 * window.width)


def add_changes(page: Page, before: Picture, after: Picture) -> None:
    """The map of what changed."""
    page.heading("What changed")
    thin = thinning(after.pixels)
    difference = LEVELS * (after.pixels[:, ::thin, ::thin] - before.pixels[:, ::thin, ::thin]).mean(0)
    limit = max(1.0, math.ceil(float(np.quantile(np.abs(difference), 0.995))))
    page.picture(heat(difference, "grey levels", limit=limit, signed=True), CHANGE.format(every=every(thin)))


def add_convergence(page: Page, subject: Subject) -> None:
    """Where the solve did not reach its tolerance."""
    tiled = subject.done.tiled
    page.heading("Where the solve did not converge")
    bad = [tile for tile in tiled.tiles if not tile.converged]
    if not bad:
        which = "it" if len(tiled.tiles) == 1 else f"each of the {len(tiled.tiles)} tiles"
        page.paragraph(f"Nowhere: {which}{CONVERGED}")
        return

    # Windows are (top, left, height, width), boxes (left, top, width, height), on the map that leaves pixels out.
    image = subject.done.picture
    thin = thinning(image.pixels)
    windows = [[side / thin for side in tile.window] for tile in bad]
    boxes = [(left, top, width, height) for top, left, height, width in windows]
    worst = max(tile.residual for tile in bad)
    words = FRAMED.format(bad=len(bad), count=len(tiled.tiles), worst=worst)
    grey = LEVELS * image.pixels[:, ::thin, ::thin].mean(0)
    page.picture(heat(grey, "grey levels", limit=LEVELS, boxes=boxes), words)


def add_confidence(page: Page, expected: Tensor) -> None:
    """The error to be expected."""
    page.heading("How sure the result is")
    values = LEVELS * expected[0, 0].numpy()
    thin = thinning(values)
    limit = max(1.0, math.ceil(float(np.quantile(values, 0.995))))
    page.picture(heat(values[::thin, ::thin], "grey levels", limit=limit), CONFIDENCE.format(every=every(thin)))


def add_iteration(page: Page, subject: Subject) -> None:
    """One window solved again, stopped early for its pictures and in full for its residuals."""
    part = Excerpt.richest(subject)
    page.heading("How the solve goes")
    frames = [(part.start(), "the start")]
    whole = part.restore(trace=True)
    steps, count = int(whole.solution.steps.max()), 2
    while 1.5 * count < steps:
        frames.append((part.restore(max_steps=count).image, f"{count} steps"))
        count *= 2
    frames.append((whole.image, f"{steps} steps"))

    page.row([(part.shown(image), caption) for image, caption in frames], width=TRACED)
    page.paragraph(ITERATES.format(**part.window._asdict()))
    add_residuals(page, whole)


def add_residuals(page: Page, whole: Restoration) -> None:
    """The residuals of a traced solve, and its objective where it has one."""
    trail = whole.solution.trace
    assert trail is not None
    numbers = list(range(1, len(trail.residual) + 1))
    residual, value = trail.residual.amax(1), trail.value.sum(1)  # (T, K), (T,)
    curves = [
        Curve(name, numbers, residual[:, i].tolist(), COLOURS.get(name, "#555555"))
        for i, name in enumerate(whole.solution.blocks)
    ]
    panels: list[tuple[str, str, list[Curve]]] = [("Residuals", "root mean square", curves)]
    words = RESIDUALS

    # A plain equilibrium has none.
    if bool(torch.isfinite(value).any()):
        apart = (value - value[torch.isfinite(value)][-1]).abs().tolist()
        panels.append(("Objective", "distance from its last value", [Curve("objective", numbers, apart, COLOURS["x"])]))
        words += OBJECTIVE
    page.picture(plot(panels, "step"), words)


@dataclass(frozen=True, eq=False)
class Excerpt:
    """A window of a picture, as a restoration of its own."""

    subject: Subject
    window: Window
    y: Tensor
    operator: LinearMap

    @classmethod
    def richest(cls, subject: Subject) -> Excerpt:
        """The window with most detail."""
        job = subject.done.job
        side = TRACED + job.damage.overlap - OVERLAP  # a window smaller than the kernel of a blur measures nothing
        shape = job.operator.start(job.y).shape[2:]
        pixels = subject.done.picture.pixels
        found = richest(local_contrast(pixels), (min(side, pixels.shape[1]), min(side, pixels.shape[2])))
        assert found is not None
        height, width = (min(side, n) for n in shape)
        window = Window(min(found.top, shape[0] - height), min(found.left, shape[1] - width), height, width)
        y = job.operator.window_of(job.y, *window).to(subject.device)
        return cls(subject, window, y, job.operator.window(*window))

    def start(self) -> Tensor:
        """Where the solve begins."""
        return self.operator.start(self.y)

    def restore(self, **settings: Any) -> Restoration:
        """Solve the window alone."""
        options = {"on_failure": "ignore"} | self.subject.settings | settings
        with torch.no_grad():
            return self.subject.restorer.restore(self.y, self.operator, **options)

    def shown(self, image: Tensor) -> bytes:
        """An iterate (B, C, H, W) as PNG."""
        image = image.cpu() if image.shape[0] == 1 else image.cpu().transpose(0, 1)
        return shown(dataclasses.replace(self.subject.done.picture, pixels=image[0].numpy()), 1)


def numbers(subject: Subject) -> dict[str, str]:
    """What was measured, one row each."""
    done, job = subject.done, subject.done.job
    height, width = done.picture.pixels.shape[1:]
    tiled, steps = done.tiled, [tile.steps for tile in done.tiled.tiles]

    return {
        "picture": f"{width} x {height}, {subject.before.kind}",
        "noise": f"{job.sigma * LEVELS:.2f} grey levels, {'estimated' if job.estimated else 'given'}",
        "damage": job.damage.words,
        "weights": plain(subject.weights),
        "device": str(subject.device),
        "seconds": f"{done.seconds:.1f}",
        "evaluations of the network": f"{tiled.evaluations:,}",
        "vector-Jacobian products": f"{tiled.vjps:,}",
        "tiles": f"{len(tiled.tiles)} of up to {max(max(t.window[2:]) for t in tiled.tiles)} pixels to a side",
        "tiles converged": f"{tiled.converged} ({tiled.converged / len(tiled.tiles):.0%})",
        "steps of a tile": f"{min(steps)} to {max(steps)}" if min(steps) < max(steps) else str(steps[0]),
        "largest residual": f"{max(tile.residual for tile in tiled.tiles):.1e}",
    }
