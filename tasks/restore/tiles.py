"""Large pictures in overlapping tiles: the memory of a solve does not grow with the picture.

Every tile is a window of the image with the map restricted to it, solved on its own. Near the cut edges of a window the
restoration misses what lies beyond, so a margin of each is thrown away; where two windows then meet, they are blended
over a short ramp. Windows begin at multiples of 8 pixels, so that a network that halves its grid up to three times sees
the same grid whatever the tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jiio.checks import check_integer, fail
from jiio.tasks.maps.base import LinearMap

from .base import AbstractRestorer, Restoration

STEP = 8  # windows begin at its multiples
TILE, OVERLAP = 384, 64


class Window(NamedTuple):
    """A rectangle of the image, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Tile:
    """What is known of the solve of one window.

    residual: the largest over the blocks; infinite where the solve broke down. steps: of the solve.
    """

    window: Window
    converged: bool
    residual: float
    steps: int

    @classmethod
    def worst(cls, records: list[Tile]) -> Tile:
        """What is true of a window in all pictures of a batch."""
        converged = all(record.converged for record in records)
        return cls(records[0].window, converged, max(r.residual for r in records), max(r.steps for r in records))


@dataclass(frozen=True, eq=False)
class TiledRestoration:
    """A restored picture and an account of its tiles.

    image: (B, C, H, W) on the CPU, not clipped. evaluations, vjps: calls of the cell, summed over the tiles.
    """

    image: Tensor
    tiles: tuple[Tile, ...]
    evaluations: int
    vjps: int

    @property
    def converged(self) -> int:
        """How many tiles met the tolerance."""
        return sum(tile.converged for tile in self.tiles)


@dataclass(frozen=True)
class Strip:
    """A window along one axis, and how much each of its pixels counts.

    start, length: of the window. first, last: the part that counts at all, in pixels of the window. weight:
    (last - first,); over all windows of the axis the weights of a pixel sum to 1.
    """

    start: int
    length: int
    first: int
    last: int
    weight: Tensor

    @property
    def inside(self) -> slice:
        """The part that counts, in pixels of the window."""
        return slice(self.first, self.last)

    @property
    def place(self) -> slice:
        """The part that counts, in pixels of the picture."""
        return slice(self.start + self.first, self.start + self.last)


def strips(size: int, tile: int, overlap: int) -> list[Strip]:
    """Windows that cover an axis of ``size`` pixels, evenly spaced, as few as will do and no longer than needed.

    All have the same length, ``tile`` at most, but the last, which is up to 7 pixels longer, because all begin at
    multiples of 8. Neighbours share at least ``overlap`` pixels; in their middle, over a quarter of them, the weight of
    the one falls from 1 to 0.
    """
    if size < tile + STEP:
        return [Strip(0, size, 0, size, torch.ones(size))]
    count = math.ceil((size - tile) / (tile - overlap)) + 1
    tile = math.ceil((size + (count - 1) * overlap) / count / STEP) * STEP
    starts = [(size - tile) * i // (count - 1) // STEP * STEP for i in range(count)]
    ends = [start + tile for start in starts[:-1]] + [size]

    # Neighbours hand over in the middle of what they share, half a ramp on either side of it.
    half = overlap // 8
    middles = [(start + end) / 2 for start, end in zip(starts[1:], ends[:-1], strict=True)]
    found = []
    for start, end, before, after in zip(starts, ends, [None, *middles], [*middles, None], strict=True):
        first = start if before is None else math.floor(before) - half
        last = end if after is None else math.ceil(after) + half
        weight = _weight(torch.arange(first, last) + 0.5, before, after, 2 * half)
        found.append(Strip(start, end - start, first - start, last - start, weight))
    return found


def _weight(places: Tensor, before: float | None, after: float | None, ramp: int) -> Tensor:
    """How much pixels at ``places`` count: rising over ``ramp`` pixels around ``before``, falling around ``after``."""
    weight = torch.ones(len(places))
    if before is not None:
        weight *= ((places - before) / ramp + 0.5).clamp(0, 1)
    if after is not None:
        weight *= (0.5 - (places - after) / ramp).clamp(0, 1)
    return weight


def grid(height: int, width: int, tile: int, overlap: int) -> list[tuple[Strip, Strip]]:
    """The windows of a picture, row by row."""
    return [(row, column) for row in strips(height, tile, overlap) for column in strips(width, tile, overlap)]


def check_tile(argument: str, value: int, low: int = 2 * OVERLAP) -> int:
    """A length that is a multiple of 8 pixels."""
    if check_integer(argument, value, low) % STEP:
        fail(argument, f"a multiple of {STEP}", value)
    return value


def check_tiles(tile: int, overlap: int) -> None:
    """Windows that share at most half of their pixels along an axis."""
    check_tile("tile", tile, 4 * STEP)
    if 2 * check_tile("overlap", overlap, STEP) > tile:
        fail("overlap", f"at most half of the tile ({tile})", overlap)


def restore_tiled(
    restorer: AbstractRestorer,
    y: Tensor,
    operator: LinearMap,
    *,
    tile: int = TILE,
    overlap: int = OVERLAP,
    device: torch.device | str = "cpu",
    progress: Callable[[Tile, int], object] | None = None,
    **settings: Any,
) -> TiledRestoration:
    """The picture behind a measurement, tile by tile.

    Args:
        restorer: on ``device``.
        y: (B, ...) on the CPU, measurements of whole pictures by one map.
        operator: a map that acts locally (it has ``window``), also on the CPU.
        tile: side of a window, a multiple of 8. Pictures with fewer than 8 pixels more than this are restored at once.
        overlap: pixels that neighbours share at least; a quarter of it blends, the rest is thrown away.
        progress: called after every tile, with the number of tiles.
        settings: of :func:`jiio.solve`.

    Where the solve of a window breaks down (NaN, infinity), its starting point stands in its place, and the tile counts
    as not converged.

    Errors: ArgumentError where the map does not act locally and there is more than one tile.
    """
    check_tiles(tile, overlap)
    shape = operator.start(y).shape
    places = grid(shape[2], shape[3], tile, overlap)
    image, tiles, evaluations, vjps = y.new_zeros(shape), [], 0, 0

    for row, column in places:
        window = Window(row.start, column.start, row.length, column.length)
        part = operator if len(places) == 1 else operator.window(*window)
        measured = (y if len(places) == 1 else operator.window_of(y, *window)).to(device)
        weight = row.weight[:, None] * column.weight
        records = []
        for i in range(len(y)):  # one by one: a batch would take that much more memory and no less time
            restored, patch = restore_window(restorer, measured[i : i + 1], part, settings)
            patch = patch[:, row.inside, column.inside].to(image)
            image[i, :, row.place, column.place] += patch * weight
            records.append(account(window, restored))
            evaluations, vjps = evaluations + restored.evaluations, vjps + restored.vjps

        tiles.append(Tile.worst(records))
        if progress is not None:
            progress(tiles[-1], len(places))
    return TiledRestoration(image, tuple(tiles), evaluations, vjps)


@torch.no_grad()
def restore_window(
    restorer: AbstractRestorer, y: Tensor, operator: LinearMap, settings: Mapping[str, Any]
) -> tuple[Restoration, Tensor]:
    """The restoration of one window from its measurement y (1, ...), and the pixels (C, h, w) that are shown of it:
    where the solve broke down, those that it started from.
    """
    restored = restorer.restore(y, operator, on_failure="ignore", **settings)
    shown = restored.image if math.isfinite(residual_of(restored)) else operator.start(y)
    return restored, shown[0]


def residual_of(restored: Restoration) -> float:
    """The largest of the batch; infinite where a pixel is not finite."""
    whole = bool(torch.isfinite(restored.image).all())
    return float(restored.residual.max()) if whole else math.inf


def account(window: Window, restored: Restoration) -> Tile:
    """The record of one window."""
    whole = bool(torch.isfinite(restored.image).all())
    converged = whole and bool(restored.converged.all())
    return Tile(window, converged, residual_of(restored), int(restored.solution.steps.max()))
