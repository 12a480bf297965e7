"""A blur of which nobody knows the kernel: found in the picture, and from there on a blur as any other."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch

from jiio.checks import ArgumentError, fail
from jiio.tasks.frame.files import InputError
from jiio.tasks.images.pictures import Picture
from jiio.tasks.maps.base import LinearMap

from ..base import AbstractRestorer
from ..blind.find import Blind, FoundBlur, find_blur
from ..noise import noise_level
from .damage import AbstractDamage, Blurred, Noise
from .rounded import Rounded, by_the_file

IN_A_FILE = "a JPEG file has rounded away much of what tells of a blur, so the one that was found may be none"


@dataclass(frozen=True)
class Unknown(AbstractDamage):
    """Some blur of the whole scene. then: that the picture of it became a JPEG file."""

    blind: Blind = field(default_factory=Blind)
    then: Rounded | None = None

    words = "a blur that nobody knows"

    def operator(self, picture: Picture, sigma: float) -> LinearMap:
        """Errors: InputError, always: the kernel comes first."""
        fail("damage", "a blur that is known by now", self.words, "Ask find_out for it.", InputError)

    def find(self, picture: Picture, sigma: float | None, restorer: AbstractRestorer) -> FoundBlur:
        """sigma: None for an estimate.

        Errors: InputError where the picture is too small to tell.
        """
        y = torch.from_numpy(picture.pixels)[None]
        try:
            level = noise_level(y).sigma if sigma is None else sigma
            found = find_blur(y, max(level, 1 / 255 / 12**0.5), restorer, self.blind)
        except ArgumentError as error:
            raise InputError(f"--blur: the blur of {picture.path} cannot be found; {error}") from error
        if by_the_file(picture) is None:
            return found
        return dataclasses.replace(found, doubts=(*found.doubts, IN_A_FILE))

    def known_by(self, found: FoundBlur) -> Blurred | Noise:
        """What was found, as a damage."""
        return Noise() if found.none else Blurred(f"blur ({found.words})", found.kernel)
