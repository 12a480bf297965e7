"""What the owner of a picture says of its noise, as the scale in which it is the same everywhere."""

from __future__ import annotations

from jiio.checks import check_choice, fail
from jiio.tasks.frame.files import InputError
from jiio.tasks.images.pictures import Picture

from ..stabilise import Stabiliser
from ..tone import AbstractTone, LinearTone, PhotographTone
from .damage import AbstractDamage, Noise

# --noise -> how the numbers of the picture follow the light in which the noise arose; None for noise that is white.
TONES: dict[str, AbstractTone | None] = {"white": None, "poisson": LinearTone(), "low-light": PhotographTone()}


def stabiliser(picture: Picture, noise: str, damage: AbstractDamage) -> Stabiliser | None:
    """The scale in which the noise is the same everywhere; None where it is in the picture's own.

    Errors: InputError where the picture is too small to tell, and for other damages: their maps are of the picture.
    """
    tone = TONES[check_choice("noise", noise, TONES)]
    if tone is None:
        return None
    if not isinstance(damage, Noise):
        fail("--noise", "white for anything but noise", f"{noise} for {damage.words}", error=InputError)
    found = Stabiliser.of(picture.pixels, tone)
    if found is None:
        size = f"{picture.pixels.shape[2]} x {picture.pixels.shape[1]}"
        wanted = "a picture with enough patches to read the noise of each brightness off"
        fail("--noise", wanted, f"{picture.path} ({size})", error=InputError)
    return found
