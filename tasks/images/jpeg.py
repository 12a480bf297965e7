"""What a JPEG file has lost: the steps to whose multiples the frequencies of its blocks were rounded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

SIDE = 8  # of a block
COARSE = {0: (1, 1), 1: (1, 2), 2: (2, 2)}  # Pillow's number -> pixels of chroma along rows and columns
LEVELS = 64  # steps in a table
# The tables of the standard (annex K), which most encoders scale by their quality.
LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29),
    *(51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121),
    *(120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66),
    *(99,) * 38,
)


@dataclass(frozen=True)
class Rounding:
    """luma, chroma: 64 steps each, in grey levels, row by row. coarse: pixels of chroma along rows and columns."""

    luma: tuple[int, ...]
    chroma: tuple[int, ...]
    coarse: tuple[int, int] = (1, 1)

    @classmethod
    def of(cls, image: Any) -> Rounding | None:
        """Of an open picture of Pillow; None where it is no JPEG file, or one with tables that cannot be."""
        if image.format not in ("JPEG", "MPO"):
            return None
        from PIL.JpegImagePlugin import get_sampling

        tables = getattr(image, "quantization", {})
        luma = tuple(tables.get(0, ()))
        chroma = tuple(tables.get(1, luma))
        if any(len(table) != LEVELS or min(table) < 1 for table in (luma, chroma)):
            return None
        return cls(luma, chroma, COARSE.get(get_sampling(image), (1, 1)))

    @classmethod
    def at(cls, quality: int, coarse: tuple[int, int] = (2, 2)) -> Rounding:
        """By the usual scale from 1 to 100 (of the Independent JPEG Group)."""
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        luma, chroma = (tuple(min(255, max(1, (n * scale + 50) // 100)) for n in table) for table in (LUMA, CHROMA))
        return cls(luma, chroma, coarse)

    @property
    def quality(self) -> int:
        """The quality whose table of luma is nearest."""
        far = lambda q: sum(abs(a - b) for a, b in zip(self.at(q).luma, self.luma, strict=True))  # noqa: E731
        return min(range(1, 101), key=far)

    def turned(self, turn: int, size: tuple[int, int]) -> Rounding | None:
        """Of the picture turned as EXIF's number ``turn`` says; size: before. None where its blocks would no longer
        begin at the corner.
        """
        if turn == 1:
            return self
        if any(side % (SIDE * step) for side, step in zip(size, self.coarse, strict=True)):
            return None
        if turn < 5:
            return self
        luma, chroma = (
            tuple(table[SIDE * column + row] for row in range(SIDE) for column in range(SIDE))
            for table in (self.luma, self.chroma)
        )
        return replace(self, luma=luma, chroma=chroma, coarse=self.coarse[::-1])
