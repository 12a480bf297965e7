"""One picture restored: what its owner says of the damage, a restorer, tiles, and an account in a line."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jiio.checks import JiioError, fail
from jiio.tasks.frame.files import InputError
from jiio.tasks.images.encode import FileKind
from jiio.tasks.images.pictures import Picture
from jiio.tasks.images.ranges import Stretch
from jiio.tasks.maps.base import LinearMap, crop

from ..base import AbstractRestorer
from ..blind.find import FoundBlur
from ..confidence import expected_error
from ..noise import WHITE, NoiseLevel, noise_level
from ..stabilise import Stabiliser
from ..tiles import TILE, Tile, TiledRestoration, Window, grid, restore_tiled
from .damage import AbstractDamage, AbstractHoles, Masked, Noise
from .doubts import SMALLEST, doubt_the_blur, doubt_the_level, unchanged
from .rounded import Rounded, artefacts_left
from .several import Several, found_out
from .stable import stabiliser
from .thin import QUIET, fill_thin
from .unknown import Unknown

LEVELS = 255.0  # sigma is told to people in 8-bit grey levels, as in the literature


@dataclass(frozen=True, eq=False)
class Job:
    """A picture with its damage, as a measurement and a linear map.

    sigma: of the noise, on the image range [0, 1]. estimated: whether nobody said so. level: what the picture says of
    its noise; None where it cannot be estimated.
    """

    picture: Picture
    damage: AbstractDamage
    y: Tensor
    operator: LinearMap
    sigma: float
    estimated: bool
    level: NoiseLevel | None = None

    @classmethod
    def of(cls, picture: Picture, damage: AbstractDamage, sigma: float | None, channels: int) -> Job:
        """sigma: None for an estimate. channels: that the restorer works on; a colour picture becomes three grey ones
        for a grey restorer.

        Errors: InputError where damage or restorer do not fit the picture.
        """
        damage.check(picture)
        if channels > len(picture.pixels):
            remedy = "Choose weights for grey pictures."
            fail("--weights", "weights that fit the picture", f"a colour prior for {picture.path}", remedy, InputError)

        seen = torch.from_numpy(picture.pixels)[None]  # (1, C, h, w)
        told = sigma
        try:
            level = noise_level(seen, visible(picture, damage), steps=steps_of(picture))
        except JiioError as error:
            if told is None:
                words = f"--sigma: the noise in {picture.path} cannot be estimated; {error}"
                raise InputError(words) from error
            level = None
        rounding = 1.0 / (2 ** min(picture.bits, 16) - 1) / 12**0.5  # whole numbers carry so much noise at least
        found = rounding if level is None else max(level.sigma, rounding)
        believed = found if told is None else told

        y = damage.measurement(picture, believed)
        mixed = isinstance(damage, Rounded) or (isinstance(damage, Several) and isinstance(damage.then, Rounded))
        y = y.transpose(0, 1) if channels < len(picture.pixels) and not mixed else y
        return cls(picture, damage, y, damage.operator(picture, believed), believed, told is None, level)

    @property
    def whole(self) -> bool:
        """Whether no hole is left, and there is too little noise to be worth a solve."""
        return isinstance(self.damage, Masked) and bool(self.damage.keep.all())

    @property
    def told(self) -> str:
        """How the level of the noise was found."""
        if not self.estimated:
            return "given"
        return (
            "estimated" if self.level is None or self.level.believed == WHITE else f"estimated: {self.level.believed}"
        )

    def image(self, restored: Tensor) -> Tensor:
        """(1, C, H, W) as the picture shows it, from the batch that a restorer gives."""
        image = self.damage.finish(self.picture, self.operator.keep(self.y, restored))
        return image if image.shape[0] == 1 else image.transpose(0, 1)


def steps_of(picture: Picture) -> tuple[int, ...] | None:
    """Of the luma of a JPEG file."""
    return None if picture.rounding is None else picture.rounding.luma


def visible(picture: Picture, damage: AbstractDamage) -> Tensor | None:
    """(1, 1, H, W), 1 where a pixel was measured and can be seen: what lies below transparency was drawn; None where
    all were.
    """
    known = damage.known(picture)
    if picture.alpha is None or not bool((picture.alpha > 0).any()):
        return known
    seen = torch.from_numpy(picture.alpha > 0)[None, None].float()
    return seen if known is None else seen * known


@dataclass(frozen=True, eq=False)
class Restored:
    """A restored picture, ready to be written, and how it came about.

    seconds: of the solve, estimate of the noise included. stretch: the range of its numbers. stable: the scale in
    which the noise is the same everywhere, where it was solved in that. doubts: sentences on why the result may not be
    what was wanted. blind: the blur that was found, where nobody knew it.
    """

    picture: Picture
    job: Job
    tiled: TiledRestoration
    seconds: float
    stretch: Stretch
    stable: Stabiliser | None = None
    doubts: tuple[str, ...] = ()
    blind: FoundBlur | None = None

    @property
    def unchanged(self) -> bool:
        """Whether hardly anything was done."""
        if isinstance(self.job.damage, AbstractHoles) or self.job.damage.factor > 1:
            return False
        return unchanged(torch.from_numpy(self.job.picture.pixels)[None], self.job.image(self.tiled.image))

    @property
    def noise_words(self) -> str:
        """The level of the noise, in grey levels."""
        if self.stable is None:
            return f"sigma {self.job.sigma * LEVELS:.1f} ({self.job.told})"
        low, high = (LEVELS * level for level in self.stable.range)
        return f"sigma {low:.1f} to {high:.1f} (estimated, by brightness)"

    def expected_error(self, restorer: AbstractRestorer, *, tile: int = TILE, **options: Any) -> Tensor:
        """(1, 1, H, W), the error to be expected of each pixel; options as in :mod:`jiio.tasks.restore.confidence`."""
        damage, job = self.job.damage, self.job
        tile, overlap = max(tile, 2 * damage.overlap), damage.overlap
        values = expected_error(restorer, self.tiled.image, job.operator, tile=tile, overlap=overlap, **options)
        return damage.finish(self.job.picture, values)

    def line(self, kind: FileKind) -> str:
        """The account, for a file of this kind."""
        height, width = self.picture.pixels.shape[1:]
        bits = kind.bits(self.picture)
        less = f" (written with {bits}: {kind.name})" if bits < self.picture.bits else ""
        parts = (
            f"{width} x {height}, {self.picture.kind}{less}",
            self.stretch.words,
            *((self.job.damage.told(self.job.picture),) if isinstance(self.job.damage, Rounded) else ()),
            *(() if self.blind is None else (f"blur: {self.blind.words}",)),
            artefacts_left(self.job.damage, self.job.picture),
            self.noise_words,
            f"{self.seconds:.1f} s",
            f"{self.tiled.evaluations} evaluations, {self.tiled.vjps} VJPs",
            f"{self.tiled.converged} of {len(self.tiled.tiles)} tiles converged",
            "nearly unchanged, because hardly any noise was found: --sigma tells of it" if self.unchanged else "",
        )
        return "; ".join(part for part in parts if part)


def restore_photo(
    picture: Picture,
    restorer: AbstractRestorer,
    *,
    damage: AbstractDamage = Noise(),  # noqa: B008 (a frozen record)
    sigma: float | None = None,
    noise: str = "white",
    span: tuple[float, float] | None = None,
    tile: int = TILE,
    device: torch.device | str = "cpu",
    progress: Callable[[Tile, int], object] | None = None,
    **settings: Any,
) -> Restored:
    """Restore a picture.

    Args:
        restorer: on ``device``; a grey one restores the channels of a colour picture one by one.
        damage: what happened to the picture besides noise.
        sigma: of the noise, on the range of the picture's numbers as [0, 1]; None to estimate it.
        noise: ``white``; ``poisson`` where it depends on brightness, its levels are read off the picture; ``low-light``
            for the same in a photograph, whose tone curve came after the noise.
        span: the stored numbers that are black and white; None for the range that they use (12 bits in a file of 16).
        tile: side of the windows of a large picture, pixels; enlarged where a blur needs it.
        progress: called after every tile, with the number of tiles.
        settings: of :func:`jiio.solve`.

    Errors: InputError where picture, damage and restorer do not fit together.
    """
    begin = time.perf_counter()
    stretch = Stretch.of(picture, span)
    plain = stretch.apply(picture)
    stable = stabiliser(plain, noise, damage)
    if stable is not None:
        plain = dataclasses.replace(plain, pixels=stable.forth(plain.pixels), rounding=None)
    blind = None
    if isinstance(damage, Unknown):
        blind = damage.find(plain, sigma, restorer)
        damage = found_out(damage, blind)
    job = Job.of(plain, damage, sigma, restorer.channels)
    tile = max(tile, 2 * damage.overlap)  # or a window would be all margin
    options = {"tile": tile, "overlap": damage.overlap, "device": device, "progress": progress}
    job = without_thin_holes(job)
    tiled = as_it_is(job) if job.whole else None
    if tiled is None:
        check_holes(job, tile)
        tiled = restore_tiled(restorer, job.y, job.operator, **options, **settings)

    pixels = job.image(tiled.image)[0].numpy()
    pixels = stretch.undo(pixels if stable is None else stable.back(pixels))
    alpha = None if picture.alpha is None else enlarged(picture.alpha, damage.factor)
    restored = dataclasses.replace(picture, pixels=pixels, alpha=alpha)
    doubts = doubts_of(job, tiled, blind)
    return Restored(restored, job, tiled, time.perf_counter() - begin, stretch, stable, doubts, blind)


def without_thin_holes(job: Job) -> Job:
    """The job with scratches continued from their neighbours, as long as these are not noisy."""
    known = job.damage.known(job.picture)
    if (
        not isinstance(job.damage, AbstractHoles)
        or known is None
        or max(job.sigma, 0.0 if job.level is None else job.level.sigma) > QUIET
    ):
        return job
    keep = known[0, 0].numpy() > 0
    pixels, now = fill_thin(job.picture.pixels, keep)
    if (now == keep).all():
        return job

    picture, damage = dataclasses.replace(job.picture, pixels=pixels), Masked(job.picture.path, now)
    y = damage.measurement(picture)
    y = y if job.y.shape[0] == 1 else y.transpose(0, 1)
    return dataclasses.replace(job, picture=picture, damage=damage, y=y, operator=damage.operator(picture, job.sigma))


def as_it_is(job: Job) -> TiledRestoration:
    """The account of a picture in which nothing is left to be restored."""
    whole = Window(0, 0, job.y.shape[2], job.y.shape[3])
    return TiledRestoration(job.y, (Tile(whole, True, 0.0, 0),), 0, 0)


def doubts_of(job: Job, tiled: TiledRestoration, blind: FoundBlur | None) -> tuple[str, ...]:
    """Reasons to doubt that the damage and the level that were named, or the blur that was found, are right."""
    parts = (job.operator, tiled.image, job.y, job.sigma)
    found = [] if blind else [doubt_the_blur(job.damage, job.picture, *parts)]
    if not job.estimated and job.level is not None and job.y[0, 0].numel() >= SMALLEST:
        found.append(doubt_the_level(job.sigma, job.level.sigma))
    return (*(() if blind is None else blind.doubts), *(words for words in found if words is not None))


def check_holes(job: Job, tile: int) -> None:
    """Every window has a known pixel; the middle of a hole larger than a window would be invented from nothing."""
    known = job.damage.known(job.picture)
    if known is None or not isinstance(job.damage, AbstractHoles):
        return
    for row, column in grid(known.shape[2], known.shape[3], tile, job.damage.overlap):
        window = Window(row.start, column.start, row.length, column.length)
        if not bool(crop(known, *window).any()):
            came = f"{tile} pixels, and nothing known of {job.picture.path} from row {row.start}, column {column.start}"
            fail("--tile", "windows larger than the holes", came, "Pass a larger --tile.", InputError)


def enlarged(alpha: np.ndarray, factor: int) -> np.ndarray:
    """Alpha (H, W) for a picture that became larger by a whole factor, by bilinear interpolation."""
    if factor == 1:
        return alpha
    values = torch.from_numpy(alpha.astype(np.float32))[None, None]
    return F.interpolate(values, scale_factor=factor, mode="bilinear")[0, 0].round().numpy().astype(alpha.dtype)
