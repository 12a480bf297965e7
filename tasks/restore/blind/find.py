"""The blur of a picture, found: by its spectrum among few shapes first, then value by value where that says more."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from jiio.checks import check_integer, fail
from jiio.models.images.prior import ImagePrior
from jiio.tasks.maps.convolution import blur
from jiio.tasks.maps.kernels import MAX_SIDE
from jiio.tasks.maps.shapes import Shape, gains, likeliest
from jiio.tasks.maps.spectrum import Scene, Spectrum

from ..base import AbstractRestorer
from ..imagespace import ImageRestorer
from ..symmetries import SymmetricRestorer
from .joint import JointBlur, widened

SIDE = 31  # of the kernels that are looked for, where nobody says
WINDOW = 160  # pixels to a side of the image on which kernel and image are solved for
MARGIN = 3  # pixels that a kernel of free form may reach beyond the shape that it begins with
LEAST = 64  # pixels to a side of a picture whose spectrum says enough
PRICE = 3.0  # of each value of a kernel of free form, in the logarithm of the likelihood
COARSE = 0.2  # cycles per pixel; the picture at two fifths of its size
APART, FAR, FLUKE = 0.02, 0.1, 300.0  # of likelihood: a frequency, that of the coarse ones, and what chance brings


@dataclass(frozen=True)
class Blind:
    """Nobody knows the blur. side: of the kernels to look for, an odd number of pixels that a motion may be long."""

    side: int = SIDE

    def __post_init__(self) -> None:
        if check_integer("side", self.side, 3) % 2 == 0 or self.side > MAX_SIDE:
            fail("side", f"an odd number of at most {MAX_SIDE}", self.side)


@dataclass(frozen=True, eq=False)
class FoundBlur:
    """kernel: (k, k), centred. shape: the best of few numbers. free: whether the kernel is another one, found value by
    value. clear: whether it explains the picture clearly better than no blur. doubts: sentences.
    """

    kernel: Tensor
    shape: Shape
    free: bool
    clear: bool
    doubts: tuple[str, ...] = ()

    @property
    def none(self) -> bool:
        """Whether no blur was found."""
        return self.shape.none and not self.free

    @property
    def words(self) -> str:
        """What was found."""
        if self.none:
            return "no blur found"
        return f"kernel found, {len(self.kernel)} x {len(self.kernel)}" if self.free else f"{self.shape.words} found"


def prior_of(restorer: AbstractRestorer) -> ImagePrior | None:
    """The energy behind a restorer, where it has one."""
    inside = restorer.restorer if isinstance(restorer, SymmetricRestorer) else restorer
    return inside.prior if isinstance(inside, ImageRestorer) else None


def find_blur(y: Tensor, sigma: float, restorer: AbstractRestorer, blind: Blind) -> FoundBlur:
    """The blur of a picture y (1, C, H, W) with noise of ``sigma``.

    Errors: ArgumentError where the picture is too small.
    """
    height, width = y.shape[2:]
    if min(height, width) < max(LEAST, 3 * blind.side):
        remedy = "Pass a smaller --kernel-size." if min(height, width) >= LEAST else ""
        fail("picture", f"sides of at least {max(LEAST, 3 * blind.side)} pixels", f"{width} x {height}", remedy)
    spectrum = Spectrum.of(y[0].mean(0))
    level = sigma / y.shape[1] ** 0.5  # of the mean over the channels
    shape, cost, scene = likeliest(spectrum, level, longest=blind.side)
    sharp = float(spectrum.cost(torch.ones(1, len(spectrum.power), dtype=torch.float64), level)[0])

    kernel, free = shape.kernel(), False
    prior = prior_of(restorer)
    if prior is not None:
        refined = refine(y, sigma, restorer, prior, shape, scene, blind)
        price = PRICE * float((refined > 0).sum())
        if float(spectrum.cost(spectrum.gain(refined), level)[0]) + price < cost - PRICE * 2:
            kernel, free = refined, True
            cost = float(spectrum.cost(spectrum.gain(refined), level)[0])
    found = FoundBlur(kernel, shape, free, clearly(sharp - cost, spectrum, APART))
    return dataclasses.replace(found, doubts=doubts(found, spectrum, level, blind))


def clearly(gap: float, spectrum: Spectrum, share: float) -> bool:
    """Whether a gap of likelihood is no matter of chance, nor of scenes that are not quite what is believed of them."""
    return gap > share * float(spectrum.count.sum()) + FLUKE


def refine(
    y: Tensor, sigma: float, restorer: AbstractRestorer, prior: ImagePrior, shape: Shape, scene: Scene, blind: Blind
) -> Tensor:
    """The kernel of free form on the window of most detail, from the one of few numbers."""
    start = shape.kernel()
    reach = shape.length if shape.length else 5 * shape.width
    side = min(2 * (math.ceil(reach / 2) + MARGIN) + 1, blind.side)
    part = busiest(y[:, : prior.config.channels], WINDOW - side + 1)
    weights = next(prior.parameters())
    part = part.to(weights)

    start = widened(start, side)
    size = (part.shape[2] + side - 1, part.shape[3] + side - 1)
    with torch.no_grad():
        operator = blur(start, size, boundary="valid", sigma=sigma)
        image = restorer.restore(part, operator, on_failure="ignore").image
    return JointBlur(prior, part, side, sigma, scene).solve(image, start)[0].cpu()


def busiest(y: Tensor, side: int) -> Tensor:
    """The window of y (1, C, H, W) in which neighbours differ most, of sides that suit the prior's grid."""
    height, width = (min(n, side) - (min(n, side) - side) % 4 for n in y.shape[2:])
    grey = y.mean(1, keepdim=True)
    rough = (grey[..., 1:, :-1] - grey[..., :-1, :-1]).abs() + (grey[..., :-1, 1:] - grey[..., :-1, :-1]).abs()
    sums = torch.nn.functional.avg_pool2d(rough, (height - 1, width - 1), stride=8)[0, 0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return y[..., 8 * top : 8 * top + height, 8 * left : 8 * left + width]


def doubts(found: FoundBlur, spectrum: Spectrum, sigma: float, blind: Blind) -> tuple[str, ...]:
    """What speaks against a blur that was found."""
    if found.none:
        return ("no blur was found in it; only its noise is treated",)
    said = []
    coarse = spectrum.below(COARSE)
    other, best, _ = likeliest(coarse, sigma, longest=blind.side)
    mine = coarse.gain(found.kernel) if found.free else gains([found.shape], coarse)
    if clearly(float(coarse.cost(mine, sigma)[0]) - best, coarse, FAR):
        said.append(f"two scales of it disagree: coarse detail alone speaks for {other.words}")
    if not found.clear:
        said.append("the blur that was found explains it hardly better than none")
    if found.shape.length > 0.9 * blind.side:
        said.append(f"the motion found is as long as was looked for; pass a larger --kernel-size than {blind.side}")
    return tuple(said)


def doubt_by_spectrum(y: Tensor, kernel: Tensor, sigma: float, words: str) -> str | None:
    """A sentence where a picture y (1, C, H, W) speaks clearly for another blur than the kernel that was named."""
    if min(y.shape[2:]) < LEAST:
        return None
    spectrum, level = Spectrum.of(y[0].mean(0)), sigma / y.shape[1] ** 0.5
    shape, best, _ = likeliest(spectrum, level, longest=max(SIDE, len(kernel)))
    if not clearly(float(spectrum.cost(spectrum.gain(kernel), level)[0]) - best, spectrum, APART):
        return None
    other = "no blur at all" if shape.none else f"--blur {shape.words}"
    return f"the {words} given does not explain the picture: its spectrum speaks for {other}"
