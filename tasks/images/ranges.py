"""The range of the numbers of a picture, as a person may correct it: which of them is black and which white."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from jiio.tasks.frame.pixels import Span, used_span

from .encode import full_span
from .pictures import Picture


@dataclass(frozen=True)
class Stretch:
    """Pixels of a picture, relative to another range than that of its ``span``.

    offset, gain: black and the distance to white, in units of its pixels. span: the range. given: whether a person said
    so.
    """

    offset: float
    gain: float
    span: Span
    given: bool

    @classmethod
    def of(cls, picture: Picture, given: tuple[float, float] | None = None) -> Stretch:
        """given: the stored numbers that are black and white; None for the range that is used. Whoever read a file has
        looked already; a 16-bit picture made in memory may hold data of 12 bits.
        """
        own = picture.span or full_span(min(picture.bits, 16))
        span = own if given is None else Span(*given, own.dtype)
        if given is None and picture.span is None and own.dtype == "uint16":
            span = used_span("picture", picture.path, own.stored(picture.pixels))
        width = own.high - own.low
        return cls((span.low - own.low) / width, (span.high - span.low) / width, span, given is not None)

    def apply(self, picture: Picture) -> Picture:
        """The picture with pixels relative to this range."""
        if (self.offset, self.gain) == (0.0, 1.0):
            return picture
        return dataclasses.replace(picture, pixels=(picture.pixels - np.float32(self.offset)) / np.float32(self.gain))

    def undo(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels relative to this range as the picture has them."""
        if (self.offset, self.gain) == (0.0, 1.0):
            return pixels
        return np.float32(self.offset) + np.float32(self.gain) * pixels

    @property
    def words(self) -> str:
        """Such as ``range 0 to 4095 (used)``; nothing for all that 8 or 16 bits can be."""
        return "" if self.span.whole else f"range {self.span.words()} ({'given' if self.given else 'used'})"
