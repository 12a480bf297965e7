"""What happened to a picture, as its owner puts it: noise, missing pixels, a blur, too few pixels; always with noise.

A damage knows the measurement in the picture's pixels and the linear map that explains it.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jiio.checks import fail
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.terminal import plain
from jiio.tasks.images.pictures import MAX_PICTURE_PIXELS, Picture, read_picture
from jiio.tasks.maps.base import Denoise, Inpaint, LinearMap
from jiio.tasks.maps.convolution import blur, downsample
from jiio.tasks.maps.kernels import MAX_SIDE, gaussian_kernel, given_kernel, motion_kernel

from ..tiles import OVERLAP, STEP
from .scratches import find_scratches

# --blur KIND:NUMBERS -> how it is written, the kernel of the numbers.
BLURS = {"gaussian": ("gaussian:WIDTH", gaussian_kernel), "motion": ("motion:LENGTH,ANGLE", motion_kernel)}
KEEP = 0.5  # a mask is white, at least so bright, where a pixel is kept


class AbstractDamage(ABC):
    """One kind of damage."""

    words: str
    factor: int = 1
    overlap: int = OVERLAP

    def check(self, picture: Picture) -> None:
        """InputError where the damage cannot be this picture's."""
        return None

    def known(self, picture: Picture) -> Tensor | None:
        """(1, 1, H, W), 1 where a pixel of the picture was measured; None where all were."""
        return None

    def measurement(self, picture: Picture, sigma: float = 0.0) -> Tensor:
        """(1, C, h, w), sharing the picture's memory where nothing is missing. sigma: as in :meth:`operator`."""
        return torch.from_numpy(picture.pixels)[None]

    @abstractmethod
    def operator(self, picture: Picture, sigma: float) -> LinearMap:
        """The map from the whole picture to the measurement."""

    def finish(self, picture: Picture, image: Tensor) -> Tensor:
        """The part of the restored image (B, C, H, W) that the picture shows."""
        return image


@dataclass(frozen=True)
class Noise(AbstractDamage):
    """Nothing but noise."""

    words = "nothing but noise"

    def operator(self, picture: Picture, sigma: float) -> Denoise:
        return Denoise(sigma)


class AbstractHoles(AbstractDamage):
    """Some pixels are missing."""

    @abstractmethod
    def mask(self, picture: Picture) -> np.ndarray:
        """(H, W) of truth values: which pixels are kept."""

    def known(self, picture: Picture) -> Tensor:
        return torch.from_numpy(self.mask(picture))[None, None].float()

    def measurement(self, picture: Picture, sigma: float = 0.0) -> Tensor:
        return torch.from_numpy(picture.pixels * self.mask(picture))[None]

    def operator(self, picture: Picture, sigma: float) -> Inpaint:
        return Inpaint(self.known(picture), sigma)


@dataclass(frozen=True, eq=False)
class Masked(AbstractHoles):
    """The pixels where a mask picture is dark are missing.

    path: of the mask. keep: (H, W) of truth values.
    """

    path: Path
    keep: np.ndarray

    words = "missing pixels (mask)"

    @classmethod
    def read(cls, path: Path) -> Masked:
        """Errors: InputError where the file is no picture, or all of it is dark, or none."""
        keep = read_picture("--mask", path).pixels.mean(0) >= KEEP
        if not keep.any():
            remedy = "White means keep, black means missing; is it the other way round?"
            fail("--mask", "a picture with white parts", f"{path}, in which every pixel is missing", remedy, InputError)
        if keep.all():
            remedy = "White means keep, black means missing."
            fail("--mask", "a picture with black parts", f"{path}, in which no pixel is missing", remedy, InputError)
        return cls(path, keep)

    def check(self, picture: Picture) -> None:
        height, width = picture.pixels.shape[1:]
        if self.keep.shape != (height, width):
            came = f"{self.path} with {self.keep.shape[1]} x {self.keep.shape[0]}"
            fail("--mask", f"a mask as large as {picture.path} ({width} x {height})", came, error=InputError)

    def mask(self, picture: Picture) -> np.ndarray:
        return self.keep


@dataclass(frozen=True)
class Marked(AbstractHoles):
    """The pixels of one colour, with which somebody painted them over, are missing.

    colour: red, green and blue from 0 to 255.
    """

    colour: tuple[int, int, int]

    words = "missing pixels (colour)"

    def check(self, picture: Picture) -> None:
        keep = self.mask(picture)
        named = "#" + "".join(f"{value:02x}" for value in self.colour)
        if not keep.any():
            fail("--missing", "a colour that some pixels have not", f"{named}, which all have", error=InputError)
        if keep.all():
            fail("--missing", f"a colour that occurs in {picture.path}", f"{named}, which does not", error=InputError)

    def mask(self, picture: Picture) -> np.ndarray:
        colour = np.array(self.colour, np.float32)[:, None, None] / 255
        return np.any(np.abs(picture.pixels - colour) > 0.5 / 255, axis=0)


@dataclass(frozen=True)
class Scratched(AbstractHoles):
    """Dust and scratches, as far as they can be found."""

    words = "dust and scratches (found)"

    def check(self, picture: Picture) -> None:
        if self.mask(picture).all():
            remedy = "Draw a --mask by hand, if there are some."
            fail("--find-scratches", "dust or scratches", f"{picture.path} with none to be found", remedy, InputError)

    def mask(self, picture: Picture) -> np.ndarray:
        return ~scratches_of(picture)


@functools.lru_cache(maxsize=1)
def scratches_of(picture: Picture) -> np.ndarray:
    """(H, W), looked for once a picture."""
    return find_scratches(picture.pixels)


@dataclass(frozen=True, eq=False)
class Blurred(AbstractDamage):
    """A blur of the whole scene; what lay beyond the border of the picture blurred into it and is not known.

    So the unknown is the scene, larger than the picture by the kernel, and the picture is cut out of it.
    """

    words: str
    kernel: Tensor

    @property
    def overlap(self) -> int:
        """Half a kernel at each cut edge explains fewer measured pixels than the rest."""
        return OVERLAP + -(-max(self.kernel.shape) // STEP) * STEP

    def check(self, picture: Picture) -> None:
        height, width = picture.pixels.shape[1:]
        rows, columns = self.kernel.shape
        if height < rows or width < columns:
            came = f"{columns} x {rows} pixels for {picture.path} ({width} x {height})"
            fail("--blur", "a kernel no larger than the picture", came, error=InputError)

    def operator(self, picture: Picture, sigma: float) -> LinearMap:
        height, width = picture.pixels.shape[1:]
        size = (height + self.kernel.shape[0] - 1, width + self.kernel.shape[1] - 1)
        return blur(self.kernel, size, boundary="valid", sigma=sigma)

    def finish(self, picture: Picture, image: Tensor) -> Tensor:
        height, width = picture.pixels.shape[1:]
        top, left = ((side - 1) // 2 for side in self.kernel.shape)
        return image[:, :, top : top + height, left : left + width]


@dataclass(frozen=True)
class Coarse(AbstractDamage):
    """Too few pixels: the picture is a bicubic reduction of a larger one."""

    factor: int

    @property
    def words(self) -> str:
        return f"too few pixels (x{self.factor})"

    def check(self, picture: Picture) -> None:
        pixels = picture.pixels[0].size * self.factor**2
        if pixels > MAX_PICTURE_PIXELS:
            came = f"{pixels:,} for {picture.path}"
            fail("--upscale", f"at most {MAX_PICTURE_PIXELS:,} pixels in the result", came, error=InputError)

    def operator(self, picture: Picture, sigma: float) -> LinearMap:
        height, width = picture.pixels.shape[1:]
        return downsample(self.factor, (self.factor * height, self.factor * width), sigma=sigma)


def parse_blur(text: str) -> Blurred:
    """``gaussian:WIDTH`` in pixels, ``motion:LENGTH,ANGLE`` in pixels and degrees, or the path of a kernel picture."""
    kind, _, numbers = text.partition(":")
    if kind not in BLURS:
        return read_blur(text)
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError:
        values = []
    wanted, kernel = BLURS[kind]
    if len(values) != wanted.count(",") + 1:
        fail("--blur", wanted, text, "Width and length are in pixels, the angle in degrees.", InputError)
    return Blurred(f"blur ({text})", kernel(*values))


def read_blur(text: str) -> Blurred:
    """The picture of a kernel."""
    path = Path(text)
    if not path.exists():
        wanted = "gaussian:WIDTH, motion:LENGTH,ANGLE, blind, or a picture of the kernel"
        fail("--blur", wanted, f"{text}, which is no file either", error=InputError)
    picture = read_picture("--blur", path, min_side=1)
    height, width = picture.pixels.shape[1:]

    # A kernel is divided by its sum, and every pixel of it costs.
    if max(height, width) > MAX_SIDE:
        fail("--blur", f"a kernel of at most {MAX_SIDE} x {MAX_SIDE} pixels", f"{path} with {width} x {height}")
    if not picture.pixels.any():
        fail("--blur", "a kernel with bright pixels", f"{path}, which is all black", error=InputError)
    return Blurred(f"blur ({plain(path.name)})", given_kernel(torch.from_numpy(picture.pixels.mean(0))))


def parse_colour(text: str) -> Marked:
    """``#rrggbb``, or one grey level from 0 to 255."""
    digits = text.removeprefix("#")
    try:
        if text.startswith("#") and len(digits) == 6:
            value = int(digits, 16)
            return Marked((value >> 16, value >> 8 & 255, value & 255))
        if not text.startswith("#") and 0 <= int(text) <= 255:
            return Marked((int(text), int(text), int(text)))
    except ValueError:
        pass  # int() of what is no number
    wanted = "a colour such as '#ff00ff', or a grey level from 0 to 255"
    fail("--missing", wanted, repr(text), error=InputError)
