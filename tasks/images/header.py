"""What the header of a picture tells: the kind of file, how many numbers a pixel has, and of how many bits.

So the place of a result is known before any picture is decoded. It says of a file what :func:`.pictures.read_picture`
will find in it; what that refuses has no header here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jiio.checks import JiioError
from jiio.tasks.frame.files import check_file, decoding
from jiio.tasks.frame.scans import read_layout

from .formats import KINDS
from .pictures import MAX_PICTURE_BYTES, deep, opened, wide


@dataclass(frozen=True)
class Header:
    """format: Pillow's word for the kind of file. numbers: per pixel, alpha included. bits: per number."""

    path: Path
    format: str
    numbers: int
    bits: int

    @property
    def alpha(self) -> bool:
        """Whether some of it is transparent."""
        return self.numbers in (2, 4)


def read_header(path: Path) -> Header | None:
    """The header of a picture; None where there is none to be read."""
    try:
        check_file("pictures", path, KINDS, MAX_PICTURE_BYTES)
        with decoding("pictures", path):
            scan = read_layout("pictures", path)
            if scan is not None:
                return Header(path, "TIFF", *scan)
        with decoding("pictures", path), opened("pictures", path) as image:
            numbers, bits = layout(image)
            kind = "JPEG" if image.format == "MPO" else str(image.format)
    except JiioError:
        return None
    return Header(path, kind, numbers, bits)


def layout(image: Any) -> tuple[int, int]:
    """(numbers per pixel, bits per number) of an open picture once it is decoded."""
    words = [tile[3] if isinstance(tile[3], str) else str(tile[3][0]) for tile in image.tile if tile[3]]
    mode, clear = image.mode, "transparency" in image.info

    # 16 bits: a colour that is called transparent becomes alpha there as well.
    if mode in ("RGB", "RGBA") and deep(image, words):
        grey = set(words) == {"LA;16B"}
        return (2 if grey else len(mode) + clear), 16
    if wide(image):
        return 1 + clear, 16 if mode.startswith("I;16") or (image.format in ("PNG", "PPM") and mode == "I") else 32

    clear = clear or mode in ("LA", "La", "PA", "RGBA", "RGBa")
    return (1 if mode in ("1", "L", "LA", "La") else 3) + clear, 8
