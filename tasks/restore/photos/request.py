"""How pictures are to be restored: what the options mean, the weights that they name, loaded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from jiio.checks import JiioError, check_choice, fail
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.machine import check_device
from jiio.tasks.frame.precision import PRECISIONS
from jiio.tasks.images.pictures import Picture
from jiio.tasks.maps.kernels import MAX_SIDE

from .. import load
from ..base import AbstractRestorer
from ..blind.find import Blind
from ..imagespace import FAST, DirectRestorer, ImageRestorer
from ..symmetries import SymmetricRestorer, check_symmetries
from ..tiles import TILE, check_tile
from .damage import AbstractDamage, Coarse, Masked, Noise, Scratched, parse_blur, parse_colour
from .one import LEVELS, Restored, restore_photo
from .options import FAMILIES, RestoreOptions
from .rounded import by_the_file, parse_jpeg
from .several import in_a_file, together
from .unknown import Unknown

UPSCALES = (2, 3, 4)


class WeightsError(InputError):
    """Weights that cannot be loaded, so that there is no use in going on with the next picture."""


@dataclass(frozen=True)
class Request:
    """How to restore. sigma: on the image range [0, 1], None to estimate it. settings: of the solve. symmetries: that
    the result is averaged over. files_speak: whether a JPEG file is taken for what it is. span: the stored numbers that
    are black and white. noise: one of NOISES. precision: of the prior."""

    damage: AbstractDamage
    sigma: float | None
    weights: str | None
    family: str
    tile: int
    device: torch.device
    settings: dict[str, Any]
    symmetries: int = 1
    files_speak: bool = False
    span: tuple[float, float] | None = None
    noise: str = "white"
    precision: str = "auto"
    loaded: dict[str, AbstractRestorer] = field(default_factory=dict)

    @classmethod
    def of(cls, options: RestoreOptions) -> Request:
        """Errors: JiioError for options that cannot be, or not together."""
        sigma = None if options.sigma is None else options.sigma / LEVELS
        damage = read_damage(options)
        if sigma == 0.0 and isinstance(damage, Noise):
            remedy = "Say what else is wrong with the picture, by --mask, --missing, --blur, --upscale or --jpeg."
            fail("--sigma", "noise, where nothing else is to be mended", "0", remedy, InputError)
        family = FAMILIES[options.restorer or "image-space"]
        if family == "direct" and not isinstance(damage, Noise):
            remedy = "Leave --restorer away."
            fail("--restorer", "image-space for anything but noise", f"direct for {damage.words}", remedy, InputError)

        if options.noise != "white" and not isinstance(damage, Noise):
            fail("--noise", "white for anything but noise", f"{options.noise} for {damage.words}", error=InputError)

        # What only the machine and the restorers can tell.
        settings = {} if options.max_steps is None else {"max_steps": options.max_steps}
        settings |= {"tolerance": FAST} if options.fast else {}
        check_choice("--precision", options.precision, PRECISIONS)
        tile = check_tile("--tile", TILE if options.tile is None else options.tile)
        device = check_device(options.device)
        symmetries = check_symmetries("--symmetries", options.symmetries)
        speak = options.jpeg is None and options.noise == "white" and family != "direct"
        how = (
            options.weights,
            family,
            tile,
            device,
            settings,
            symmetries,
            speak,
            options.span,
            options.noise,
            options.precision,
        )
        return cls(damage, sigma, *how)

    def name(self, picture: Picture) -> str:
        """Of the weights."""
        return self.weights or f"{self.family}-{'grey' if len(picture.pixels) == 1 else 'colour'}"

    def restorer(self, picture: Picture) -> AbstractRestorer:
        """For grey or for colour; loaded once."""
        name = self.name(picture)
        if name not in self.loaded:
            try:
                restorer = load.load_restorer("--weights", name).to(self.device)
            except JiioError as error:
                raise WeightsError(str(error)) from error
            if isinstance(restorer, ImageRestorer):
                restorer.precision = self.precision
            self.loaded[name] = restorer if self.symmetries == 1 else SymmetricRestorer(restorer, self.symmetries)
        return self.loaded[name]

    def damage_of(self, picture: Picture) -> AbstractDamage:
        """As named, and what a JPEG file itself says besides."""
        if not self.files_speak:
            return self.damage
        restorer = self.restorer(picture)
        inside = restorer.restorer if isinstance(restorer, SymmetricRestorer) else restorer
        return self.damage if isinstance(inside, DirectRestorer) else in_a_file(self.damage, by_the_file(picture))

    def restore(self, picture: Picture, progress: Callable[..., object] | None = None) -> Restored:
        """Restore one picture."""
        options = {
            "damage": self.damage_of(picture),
            "sigma": self.sigma,
            "span": self.span,
            "noise": self.noise,
            "tile": self.tile,
            "device": self.device,
        }
        try:
            return restore_photo(picture, self.restorer(picture), progress=progress, **options, **self.settings)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, JiioError) or "memory" not in str(error):  # torch has no type of its own on a CPU
                raise
            came = f"too little of it for {picture.path}"
            fail("memory", f"enough for tiles of {self.tile} pixels", came, "Pass a smaller --tile.", InputError)

    def expected_error(self, done: Restored, progress: Callable[..., object]) -> Tensor:
        """(1, 1, H, W), the error to be expected of each pixel of a restored picture."""
        restorer, options = self.restorer(done.picture), {"device": self.device, "progress": progress, **self.settings}
        return done.expected_error(restorer, tile=self.tile, **options)


def read_damage(options: RestoreOptions) -> AbstractDamage:
    """What happened to the pictures besides noise."""
    readers: dict[str, Callable[[Any], AbstractDamage | None]] = {
        "mask": Masked.read,
        "missing": parse_colour,
        "blur": lambda text: Unknown(blind_of(options)) if text == "blind" else parse_blur(text),
        "upscale": coarse,
        "find_scratches": lambda _: Scratched(),
        "jpeg": parse_jpeg,
    }
    named = {name: value for name in readers if (value := getattr(options, name)) is not None}
    found = {f"--{name.replace('_', '-')}": readers[name](value) for name, value in named.items()}
    return together({name: damage for name, damage in found.items() if damage is not None}) or Noise()


def blind_of(options: RestoreOptions) -> Blind:
    """How large a kernel is looked for."""
    side = options.kernel_size
    if side is None:
        return Blind()
    if not 3 <= side <= MAX_SIDE or side % 2 == 0:
        fail("--kernel-size", f"an odd number from 3 to {MAX_SIDE}", side, error=InputError)
    return Blind(side)


def coarse(factor: int) -> Coarse:
    """Too few pixels, by one of the factors that the prior is made for."""
    if factor not in UPSCALES:
        fail("--upscale", "2, 3 or 4", str(factor), error=InputError)
    return Coarse(factor)
