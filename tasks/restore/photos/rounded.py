"""A picture that is, or was, a JPEG file: the damage as its file tells it, or its owner, or its frequencies."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from jiio.checks import fail
from jiio.tasks.frame.files import InputError
from jiio.tasks.images.jpeg import Rounding
from jiio.tasks.images.pictures import Picture
from jiio.tasks.maps.base import Denoise
from jiio.tasks.maps.jpeg import Jpeg

from ..rounded import former_quality, told_apart
from .damage import AbstractDamage, AbstractHoles

FINE = 92  # quality from which on a file that nobody complains about counts as it is


@dataclass(frozen=True)
class Rounded(AbstractDamage):
    """The frequencies of its blocks were rounded. quality: as told; None for what file or frequencies say."""

    quality: int | None = None

    words = "JPEG artefacts"

    def check(self, picture: Picture) -> None:
        if rounding_of(picture, self.quality) is None:
            remedy = "Say the quality that it had: --jpeg 40."
            came = f"{picture.path}, which shows no blocks of one"
            fail("--jpeg", "a JPEG file, or a picture that was one", came, remedy, InputError)

    def rounding(self, picture: Picture) -> Rounding:
        """The steps that are believed."""
        found = rounding_of(picture, self.quality)
        assert found is not None  # by check
        return found

    def measurement(self, picture: Picture, sigma: float = 0.0) -> Tensor:
        pixels, operator = torch.from_numpy(picture.pixels)[None], self.operator(picture, sigma)
        return operator.decoded(pixels) if isinstance(operator, Jpeg) else pixels

    def operator(self, picture: Picture, sigma: float) -> Jpeg | Denoise:
        return told_apart(torch.from_numpy(picture.pixels)[None], self.rounding(picture), sigma)

    def told(self, picture: Picture) -> str:
        """What is believed, for the line."""
        source = "given" if self.quality is not None else "estimated" if picture.rounding is None else "as in the file"
        return f"JPEG of quality {self.rounding(picture).quality} ({source})"


@functools.lru_cache(maxsize=2)
def rounding_of(picture: Picture, quality: int | None) -> Rounding | None:
    """The steps as told, else as the file says, else as the frequencies do; None where nothing speaks for any."""
    if quality is None and picture.rounding is not None:
        return picture.rounding
    pixels = torch.from_numpy(picture.pixels)[None]
    found = former_quality(pixels) if quality is None else quality
    return None if found is None else Rounding.at(found)


def by_the_file(picture: Picture) -> Rounded | None:
    """The damage of a JPEG file of which nothing was said, where it can be seen."""
    rounding = picture.rounding
    return None if rounding is None or rounding.quality >= FINE else Rounded()


def artefacts_left(damage: AbstractDamage, picture: Picture) -> str:
    """Words where a JPEG file is restored without what it says of itself; empty where there is nothing to say."""
    rounded = by_the_file(picture) if isinstance(damage, AbstractHoles) else None
    return "" if rounded is None else f"{rounded.told(picture)}: its artefacts are left, because pixels are missing"


def parse_jpeg(text: str) -> Rounded | None:
    """``auto``, a quality from 1 to 100, or ``off`` (None)."""
    if text == "off":
        return None
    if text == "auto":
        return Rounded()
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        fail("--jpeg", "auto, off, or the quality of the file from 1 to 100", repr(text), error=InputError)
    return Rounded(int(text))
