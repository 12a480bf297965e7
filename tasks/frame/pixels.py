"""What the stored numbers of a picture mean: which one is black, which one white, and which way up they lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jiio.checks import fail

from .guards import InputError

DEPTHS = (8, 10, 12, 14, 16, 24, 32, 64)  # bits that cameras, microscopes and scanners make
FULLS = (1.0, *(float(2**bits - 1) for bits in (8, 10, 12, 14, 16)))  # what floating-point pictures go up to
SLACK = 0.25  # by so much of its range the noise of a floating-point picture goes beyond it
LEAST = 0.25  # a floating-point picture fills so much of a range, or it is of another one


@dataclass(frozen=True)
class Span:
    """The range of the stored numbers.

    low, high: the numbers that are black and white. dtype: numpy's name for the type of the stored numbers.
    """

    low: float
    high: float
    dtype: str

    @property
    def whole(self) -> bool:
        """Whether it is all that numbers of 8 or 16 bits can be, so that there is nothing to say about it."""
        kind = np.dtype(self.dtype)
        return kind.kind == "u" and kind.itemsize <= 2 and (self.low, self.high) == (0, np.iinfo(kind).max)

    def unit(self, values: np.ndarray) -> np.ndarray:
        """Stored numbers as float32, 0 for black and 1 for white."""
        wide = values.dtype.kind == "f" or values.dtype.itemsize > 2
        difference = values.astype(np.float64 if wide else np.float32) - self.low
        return (difference / (self.high - self.low)).astype(np.float32)

    def stored(self, pixels: np.ndarray) -> np.ndarray:
        """The way back: whole numbers are rounded, and cut off at black and white."""
        kind = np.dtype(self.dtype)
        values = self.low + pixels.astype(np.float64) * (self.high - self.low)
        return values.astype(kind) if kind.kind == "f" else np.rint(values.clip(self.low, self.high)).astype(kind)

    def flipped(self, values: np.ndarray) -> tuple[np.ndarray, Span]:
        """Numbers that mean the opposite (white is zero), and their range, put right."""
        kind = np.dtype(self.dtype)
        full = np.iinfo(kind).max if kind.kind == "u" else kind.type(self.low + self.high)
        return full - values, Span(float(full) - self.high, float(full) - self.low, self.dtype)

    def words(self) -> str:
        """Such as ``0 to 4095``."""
        return f"{self.low:g} to {self.high:g}"


def used_span(argument: str, path: Path, values: np.ndarray) -> Span:
    """The range that the stored numbers of a picture are from.

    Few files say so. Of whole numbers it is the least of 8, 10, 12, 14, 16, ... bits that holds all of them; of
    floating-point ones 0 to 1, to 255, to 4095, ..., as long as they fill a quarter of it. Where neither fits, negative
    numbers for example, it goes from the least number to the greatest.

    Errors: InputError where a number is not finite, or complex.
    """
    kind = values.dtype
    if kind == np.uint8:
        return Span(0.0, 255.0, kind.name)
    if kind.kind not in "iuf":
        fail(argument, "a picture of real numbers", f"{path}, whose numbers are {kind.name}", error=InputError)
    if not np.isfinite(values).all():
        came = f"{path}, in which some are infinite or no numbers (NaN)"
        fail(argument, "finite pixels", came, "Replace them first.", InputError)
    least, most = float(values.min()), float(values.max())

    # Nothing but zeros says nothing of the range.
    if kind.kind == "f":
        fitting = (full for full in FULLS if most <= (1 + SLACK) * full)
        full = next(fitting, 0.0)
        if least >= -SLACK * most and most >= LEAST * full:
            return Span(0.0, full, kind.name)
    elif least >= 0:
        bits = next(bits for bits in DEPTHS if most < 2**bits)
        return Span(0.0, float(2 ** min(bits, 8 * kind.itemsize) - 1 if most else np.iinfo(kind).max), kind.name)
    return Span(least, most if most > least else least + 1.0, kind.name)


def upright(raw: np.ndarray, turn: int) -> np.ndarray:
    """(H, W, K) turned as the EXIF orientation asks (TIFF/EP, tag 274)."""
    raw = raw.swapaxes(0, 1) if turn >= 5 else raw
    rows, columns = (slice(None, None, -1 if turn in flips else 1) for flips in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return raw[rows, columns]
