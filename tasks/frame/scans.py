"""TIFF files beyond 8 bits: the numbers of microscopes, scanners and other instruments, of which Pillow keeps few.

Pillow reads signed, 32-bit and floating-point numbers as black, white-is-zero ones as the negative, and of 16-bit
colours the first byte. tifffile reads them all, but not every compression; where it cannot, Pillow may.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jiio.checks import JiioError, fail

from .guards import DECODER_ERRORS, InputError, check_pixels
from .pixels import Span, used_span

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
REDUCED, MASK = 1, 4  # bits of NewSubfileType: a smaller copy of another page; the transparency of another page
CAMERA_TAG, NEW_SUBFILE, OLD_SUBFILE, ORIENTATION = 50706, 254, 255, 274
COLOURS = {0: 1, 1: 1, 2: 3}  # photometric interpretation -> numbers that are no transparency
PLAIN = frozenset((1, 8, 32773, 32946))  # compressions: none, deflate and its older number, PackBits
ASSOCIATED, UNASSOCIATED = 1, 2  # what an extra number of a pixel is: the colours are multiplied by it, or not


@dataclass(frozen=True, eq=False)
class Scan:
    """The numbers in a TIFF.

    values: (H, W, 1 or 3), as they are stored, but 0 is black. span: their range. alpha: (H, W), of the same type,
    or None. turn: the orientation, 1 to 8.
    """

    values: np.ndarray
    span: Span
    alpha: np.ndarray | None
    turn: int


@dataclass(frozen=True)
class Sheet:
    """What the header of a TIFF says of its one picture. index: of its page in the file."""

    index: int
    page: Any

    @property
    def beyond_pillow(self) -> bool:
        """Whether Pillow would lose some of it, and tifffile might not."""
        kind = self.page.dtype
        return kind is not None and kind.kind != "b" and (kind.itemsize > 1 or kind.kind != "u")

    @property
    def readable(self) -> bool:
        """Whether tifffile alone can undo the compression; what is in LZW, for one, Pillow has to read."""
        return int(self.page.compression) in PLAIN and CAMERA_TAG not in self.page.tags

    @property
    def colours(self) -> int:
        """1 or 3; 0 where it is none of those (CMYK, LAB, the mosaic of a camera)."""
        return COLOURS.get(int(self.page.photometric), 0)

    @property
    def alpha(self) -> int:
        """What the number behind the colours means; 0 where it is no transparency."""
        kinds = [int(kind) for kind in self.page.extrasamples or ()]
        return kinds[0] if len(kinds) == 1 and kinds[0] in (ASSOCIATED, UNASSOCIATED) else 0


def is_tiff(path: Path) -> bool:
    """By its first bytes, whatever it is called."""
    with path.open("rb") as stream:
        return stream.read(4) in STARTS


def read_page(argument: str, path: Path, file: Any) -> Sheet:
    """The one picture of an open file, beside which smaller copies of it may lie.

    Errors: InputError where there are several.
    """
    pages = [(i, page) for i, page in enumerate(islice(file.pages, 64)) if not _copy(page)]
    if len(pages) != 1:
        remedy = "Save the one that you want as a picture of its own."
        fail(argument, "a single picture", f"{path} with {len(pages)} pages", remedy, InputError)
    return Sheet(*pages[0])


def _copy(page: Any) -> bool:
    """Whether a page is a thumbnail, or the transparency of another."""
    new, old = (page.tags.valueof(tag, 0) for tag in (NEW_SUBFILE, OLD_SUBFILE))
    return bool(int(new) & (REDUCED | MASK)) or int(old) == 2


def read_scan(argument: str, path: Path, limit: int) -> Scan | None:
    """The numbers of a TIFF that Pillow would lose some of; None where the file is another one, or better read by
    Pillow. At most ``limit`` pixels.

    Errors: InputError where there are several pages, too many pixels, or numbers that are no picture.
    """
    if not is_tiff(path):
        return None
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it has to say is said by us, or nowhere
    try:
        with tifffile.TiffFile(path) as file:
            page = read_page(argument, path, file)
            if not page.beyond_pillow or not page.readable:
                return None
            check_pixels(argument, path, page.page.imagewidth, page.page.imagelength, limit)
            return _scan(argument, path, page)
    except JiioError:
        raise
    except DECODER_ERRORS:
        return None


def read_layout(argument: str, path: Path) -> tuple[int, int] | None:
    """(numbers per pixel with alpha, bits per number) of what :func:`read_scan` will find, from the header alone."""
    if not is_tiff(path):
        return None
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = read_page(argument, path, file)
            if not page.beyond_pillow or not page.readable or not page.colours:
                return None
            return page.colours + bool(page.alpha), 8 * page.page.dtype.itemsize
    except JiioError:
        raise
    except DECODER_ERRORS:
        return None


def which_page(argument: str, path: Path) -> int:
    """The number of the page that is the picture, in a TIFF that Pillow reads; 0 where tifffile does not know.

    Errors: InputError where there are several.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            return read_page(argument, path, file).index
    except JiioError:
        raise
    except DECODER_ERRORS:
        return 0


def _scan(argument: str, path: Path, found: Sheet) -> Scan:
    """The numbers of a page."""
    page = found.page
    if any(
        start + size > path.stat().st_size for start, size in zip(page.dataoffsets, page.databytecounts, strict=True)
    ):
        raise ValueError("the file is cut off")  # tifffile would fill up with zeros
    values = _planes(page)
    colours = found.colours
    if not colours or values.shape[2] < colours or (colours == 1 and values.shape[2] > 1 and not found.alpha):
        came = f"{path} with {values.shape[2]} numbers per pixel, {page.photometric.name}"
        fail(argument, "a grey or RGB picture", came, "Convert it to RGB first.", InputError)

    # The range is found among the colours, before white and black change places.
    colour, alpha = values[:, :, :colours], values[:, :, colours] if found.alpha else None
    if found.alpha == ASSOCIATED and alpha is not None:
        colour = _apart(colour, alpha)
    span = used_span(argument, path, colour)
    if int(page.photometric) == 0:
        colour, span = span.flipped(colour)
    turn = int(page.tags.valueof(ORIENTATION, 1))
    return Scan(colour, span, alpha, turn if turn in range(1, 9) else 1)


def _planes(page: Any) -> np.ndarray:
    """(H, W, K), however they lie in the file."""
    values, axes = page.asarray(), page.axes
    if set(axes) - set("YXS"):
        raise ValueError("a volume")
    if "S" not in axes:
        return values[:, :, None]
    return np.moveaxis(values, axes.index("S"), 2)


def _apart(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours that were multiplied by their opacity, divided by it again."""
    full = 1.0 if alpha.dtype.kind == "f" else float(np.iinfo(alpha.dtype).max)
    share = alpha[:, :, None].astype(np.float64) / full
    divided = np.divide(colour, share, out=np.zeros(colour.shape), where=share > 0).clip(0, full)
    return divided.astype(colour.dtype) if colour.dtype.kind == "f" else np.rint(divided).astype(colour.dtype)
