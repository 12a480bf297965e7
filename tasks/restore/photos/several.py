"""Several damages of one picture, in the order in which they happen: the scene is blurred, or reduced; pixels go
missing; the rest becomes a JPEG file. Noise goes with all of them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from jiio.checks import fail
from jiio.tasks.frame.files import InputError
from jiio.tasks.images.pictures import Picture
from jiio.tasks.maps.base import LinearMap
from jiio.tasks.maps.several import Composed

from ..blind.find import FoundBlur
from .damage import AbstractDamage, AbstractHoles, Blurred, Coarse, Noise
from .rounded import Rounded
from .unknown import Unknown


@dataclass(frozen=True)
class Several(AbstractDamage):
    """first: what happened to the scene. then: what happened to the picture of it."""

    first: Blurred | Coarse
    then: AbstractHoles | Rounded

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"{self.first.words} and {self.then.words}"

    @property
    def factor(self) -> int:  # type: ignore[override]
        return self.first.factor

    @property
    def overlap(self) -> int:  # type: ignore[override]
        return max(self.first.overlap, self.then.overlap)

    def check(self, picture: Picture) -> None:
        self.first.check(picture)
        self.then.check(picture)

    def known(self, picture: Picture) -> Tensor | None:
        return self.then.known(picture)

    def measurement(self, picture: Picture, sigma: float = 0.0) -> Tensor:
        return self.then.measurement(picture, sigma)

    def operator(self, picture: Picture, sigma: float) -> LinearMap:
        then = self.then.operator(picture, sigma)
        return Composed(self.first.operator(picture, sigma), then, then.sigma)

    def finish(self, picture: Picture, image: Tensor) -> Tensor:
        return self.first.finish(picture, image)


def together(damages: dict[str, AbstractDamage]) -> AbstractDamage | None:
    """The damages that were named, by their options, as one; None where there is none.

    Errors: InputError where they cannot be restored together.
    """
    scene = [name for name, damage in damages.items() if isinstance(damage, Blurred | Coarse | Unknown)]
    later = [name for name in damages if name not in scene]
    for names, remedy in (
        (scene, "Which came first? Mend one in each run."),
        (later, "Blocks with a hole in them are not what was there before. Mend one in each run."),
    ):
        if len(names) > 1:
            came = " and ".join(names)
            fail("damage", "at most one blur or reduction, and one of holes or --jpeg", came, remedy, InputError)
    if scene and later:
        return both(damages[scene[0]], damages[later[0]])
    return damages[(scene + later)[0]] if damages else None


def both(first: AbstractDamage, then: AbstractDamage) -> AbstractDamage:
    """Errors: InputError for a blur that would have to be found in a picture with holes."""
    if isinstance(first, Unknown):
        if not isinstance(then, Rounded):
            came = f"blind, for a picture with {then.words}"
            fail("--blur", "a blur that is known, where pixels are missing", came, "Mend the holes first.", InputError)
        return dataclasses.replace(first, then=then)
    return Several(first, then)  # type: ignore[arg-type]


def in_a_file(damage: AbstractDamage, rounded: Rounded | None) -> AbstractDamage:
    """The damage that was named, of a picture that a JPEG file holds; where pixels of the file are missing, its
    artefacts are left: the blocks were rounded with something in the holes.
    """
    if rounded is None or isinstance(damage, AbstractHoles | Several | Rounded):
        return damage
    return rounded if isinstance(damage, Noise) else both(damage, rounded)


def found_out(unknown: Unknown, found: FoundBlur) -> AbstractDamage:
    """The damage once its blur is known."""
    blurred = unknown.known_by(found)
    if unknown.then is None:
        return blurred
    return unknown.then if isinstance(blurred, Noise) else Several(blurred, unknown.then)
