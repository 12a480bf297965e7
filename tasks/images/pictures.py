"""Pictures that a person has, read for restoring: the pixels as numbers, and beside them all that is only passed on.

Pillow decodes, but keeps no more than 8 bits of colour; TIFF files beyond that are read in :mod:`..frame.scans`. Of a
PNG with 16-bit colours Pillow takes the first byte of each number; read again as if the two bytes stood the other way
round, it gives the second byte. So both are read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jiio.checks import fail
from jiio.tasks.frame.files import InputError, check_file, check_pixels, decoding
from jiio.tasks.frame.pixels import Span, upright, used_span
from jiio.tasks.frame.scans import CAMERA_TAG, Scan, is_tiff, read_scan, which_page

from .formats import KINDS, formats, refuse_unknown
from .jpeg import Rounding
from .notes import Image, Notes, dots, kept_exif, read_notes, tiff_notes

if TYPE_CHECKING:
    from PIL.Image import Exif

MAX_PICTURE_BYTES = 1 << 30
MAX_PICTURE_PIXELS = 100_000_000
MIN_SIDE = 8
NARROW = {"L;2": 85, "L;4": 17}  # Pillow's word for greys of few bits -> a step of theirs among 8 bits
# Pillow's word for how the bytes of one pixel lie -> the word under which the other byte of each number comes out.
OTHER_BYTE = {
    f"{colours};16{order}": f"{colours};16{other}"
    for colours in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B"))
}
REMEDIES = {"CMYK": "Convert it to RGB first, by its colour profile.", "LAB": "Convert it to RGB first."}
CAMERA = frozenset((".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".raf", ".rw2", ".pef", ".srw"))
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262
# MPO: a photograph with a preview or a second view behind it; of a TIFF thumbnails are told from pages by tifffile.
SEVERAL = frozenset(("MPO", "TIFF"))


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture in memory.

    path: where it came from. pixels: (C, H, W) float32, upright, 0 for black and 1 for white; C is 1 for grey, 3 for
    colour. alpha: (H, W) uint8 or uint16, or None. bits: of a stored number. tripled: the file has colours, but all
    are greys, so C is 1; they are written as colours again. format: Pillow's word for the kind of file. exif: without
    orientation and thumbnail. icc: the colour profile. dpi: pixels per inch. notes: what else stands in the file.
    span: which stored numbers are black and white; None for all that unsigned numbers of so many bits can be. rounding:
    what a JPEG file has lost.
    """

    path: Path
    pixels: np.ndarray
    alpha: np.ndarray | None = None
    bits: int = 8
    tripled: bool = False
    format: str = "PNG"
    exif: Exif | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    notes: Notes = field(default_factory=Notes)
    span: Span | None = None
    rounding: Rounding | None = None

    @property
    def kind(self) -> str:
        """Such as ``colour, 16 bit, alpha``."""
        sort = "" if self.span is None else {"f": " float", "i": " signed"}.get(np.dtype(self.span.dtype).kind, "")
        words = ["grey" if len(self.pixels) == 1 else "colour", f"{self.bits} bit{sort}"]
        return ", ".join(words if self.alpha is None else [*words, "alpha"])


def read_picture(argument: str, path: Path, *, min_side: int = MIN_SIDE) -> Picture:
    """A picture of any of the :data:`.formats.SUFFIXES_OF`: one frame, grey or colour, with 1 to 64 bits.

    A palette becomes colours, one bit becomes grey, and a colour that stands for transparency becomes alpha. Colours
    that are all greys count as grey: noise that is the same in three channels is not what a colour prior expects.

    Errors: InputError where the file is none of these, is damaged, or has a side shorter than ``min_side`` or far too
    many pixels.
    """
    check_file(argument, path, KINDS, MAX_PICTURE_BYTES)
    if path.suffix.lower() in CAMERA:
        refuse_camera(argument, path)
    with decoding(argument, path):
        scan = read_scan(argument, path, MAX_PICTURE_PIXELS)
        if scan is not None:
            return scanned(argument, path, scan, min_side)
        return decoded(argument, path, min_side)


def decoded(argument: str, path: Path, min_side: int) -> Picture:
    """A picture that Pillow decodes; the orientation is asked for last, see :func:`.notes.kept_exif`."""
    with opened(argument, path) as image:
        check_header(argument, path, image, min_side)
        raw = decode(argument, path, image)
        exif, turn = kept_exif(image)
        notes, icc, kind = read_notes(image), image.info.get("icc_profile"), str(image.format)
        dpi, rounding = dots(image.info.get("dpi"), turn), Rounding.of(image)

    # What is restored, and beside it what is only passed on.
    rounding = None if rounding is None else rounding.turned(turn, raw.shape[:2])
    raw = upright(raw, turn)
    alpha = np.ascontiguousarray(raw[:, :, -1]) if raw.shape[2] in (2, 4) else None
    pixels, span, tripled = planes(argument, path, raw[:, :, : 3 if raw.shape[2] >= 3 else 1])
    kind = "JPEG" if kind == "MPO" else kind
    return Picture(path, pixels, alpha, 8 * raw.itemsize, tripled, kind, exif, icc or None, dpi, notes, span, rounding)


def scanned(argument: str, path: Path, scan: Scan, min_side: int) -> Picture:
    """A TIFF beyond 8 bits."""
    check_sides(argument, path, scan.values.shape[1], scan.values.shape[0], min_side)
    exif, icc, dpi, notes = tiff_notes(path, scan.turn)
    pixels, span, tripled = planes(argument, path, upright(scan.values, scan.turn), scan.span)
    alpha = None if scan.alpha is None else opacity(upright(scan.alpha[:, :, None], scan.turn)[:, :, 0])
    return Picture(path, pixels, alpha, 8 * scan.values.itemsize, tripled, "TIFF", exif, icc, dpi, notes, span)


def opacity(alpha: np.ndarray) -> np.ndarray:
    """Alpha of any type as uint8 or uint16."""
    if alpha.dtype in (np.uint8, np.uint16):
        return np.ascontiguousarray(alpha)
    full = 1.0 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max
    return np.rint((alpha / full).clip(0, 1) * 65535).astype(np.uint16)


def opened(argument: str, path: Path) -> Image:
    """The picture, not yet decoded; to be closed. Of a TIFF with a thumbnail the picture itself."""
    from PIL import Image, UnidentifiedImageError

    page = which_page(argument, path) if is_tiff(path) else 0
    try:
        image = Image.open(path, formats=formats())
    except UnidentifiedImageError:
        refuse_unknown(argument, path)
    if page:
        image.seek(page)
    return image


def planes(
    argument: str, path: Path, raw: np.ndarray, span: Span | None = None
) -> tuple[np.ndarray, Span | None, bool]:
    """Stored colours (H, W, 1 or 3) as (C, H, W), 0 black and 1 white; their range, None where it is the whole one; and
    whether three equal channels became one.
    """
    span = span or used_span(argument, path, raw)
    tripled = raw.shape[2] == 3 and bool((raw[:, :, :1] == raw[:, :, 1:]).all())
    colours = 1 if tripled else raw.shape[2]
    pixels = np.empty((colours, *raw.shape[:2]), np.float32)
    for channel in range(colours):
        pixels[channel] = span.unit(raw[:, :, channel])
    return pixels, None if span.whole else span, tripled


def refuse_camera(argument: str, path: Path) -> None:
    """A raw file would open as the small preview that is inside."""
    remedy = "Develop it to a PNG or TIFF picture first."
    fail(argument, KINDS, f"{path}, the raw file of a camera", remedy, InputError)


def check_header(argument: str, path: Path, image: Image, min_side: int) -> None:
    """What the header can tell before anything is decoded."""
    check_sides(argument, path, image.width, image.height, min_side)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in SEVERAL:
        remedy = "Save the one that you want as a picture of its own."
        fail(argument, "a single picture", f"{path} with {frames} frames", remedy, InputError)
    if CAMERA_TAG in tags(image):
        refuse_camera(argument, path)


def check_sides(argument: str, path: Path, width: int, height: int, min_side: int) -> None:
    """Neither too many pixels nor too few."""
    check_pixels(argument, path, width, height, MAX_PICTURE_PIXELS)
    if min(width, height) < min_side:
        came = f"{path} with {width} x {height}"
        fail(argument, f"a picture of at least {min_side} x {min_side} pixels", came, error=InputError)


def tags(image: Image) -> Any:
    """The tags of a TIFF file; of any other none."""
    return getattr(image, "tag_v2", {})


def decode(argument: str, path: Path, image: Image) -> np.ndarray:
    """The stored numbers (H, W, K); K: 1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha."""
    words = [tile[3] if isinstance(tile[3], str) else str(tile[3][0]) for tile in image.tile if tile[3]]
    if image.mode in ("RGB", "RGBA") and deep(image, words):
        return decode_deep(argument, path, image, words)
    if not wide(image):
        return decode_plain(argument, path, image, words)

    # Grey beyond 8 bits, of which Pillow keeps all, but not that white can be zero.
    raw = np.asarray(image)
    raw = raw.astype(
        np.uint16 if raw.dtype.kind in "iu" and image.format in ("PNG", "PPM") else raw.dtype.newbyteorder("=")
    )
    if tags(image).get(PHOTOMETRIC) == 0:
        raw, _ = used_span(argument, path, raw).flipped(raw)
    return with_alpha(raw[:, :, None], image.info.get("transparency"))


def wide(image: Image) -> bool:
    """Whether an open picture is one grey of more than 8 bits, or of floating-point numbers."""
    return image.mode == "F" or image.mode.startswith("I")


def decode_plain(argument: str, path: Path, image: Image, words: list[str]) -> np.ndarray:
    """Numbers of 8 bits; palettes, single bits and premultiplied colours become plain ones."""
    mode = image.mode
    if mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "YCbCr"):
        came = f"{path} with the colours {mode}"
        fail(argument, "a grey or RGB picture", came, REMEDIES.get(mode, "Convert it to RGB first."), InputError)

    # Pillow widens greys of 2 and 4 bits, but not the one of them that stands for transparency.
    clear = "transparency" in image.info or mode in ("PA", "RGBA", "RGBa")
    if words and words[0] in NARROW and isinstance(image.info.get("transparency"), int):
        image.info["transparency"] *= NARROW[words[0]]
    if mode in ("1", "L"):
        image = image.convert("LA" if clear else "L")
    elif mode == "La":
        image = image.convert("LA")
    elif mode != "LA":
        image = image.convert("RGBA" if clear else "RGB")

    # Pillow gives grey without its axis of channels.
    raw = np.asarray(image)
    return raw if raw.ndim == 3 else raw[:, :, None]


def deep(image: Image, words: list[str]) -> bool:
    """Whether the file has more than 8 bits of colour, of which Pillow would keep 8."""
    bits = tags(image).get(BITS_PER_SAMPLE, (8,))
    decoder = image.tile[0][0] if image.tile else ""
    many = decoder in ("ppm", "ppm_plain") and int(image.tile[0][3][1]) > 255
    return max(bits) > 8 or any(";16" in word for word in words) or many


def decode_deep(argument: str, path: Path, image: Image, words: list[str]) -> np.ndarray:
    """16-bit colours, or grey with alpha, from two readings of the file."""
    from PIL import Image as Pillow

    if set(words) == {"LA;16B"}:  # two bytes of grey and two of alpha lie as four bytes of colour do
        image.tile = retold(image, {"LA;16B": "RGBA"})
        pairs = np.asarray(image).astype(np.uint16)  # (H, W, 4)
        return pairs[:, :, ::2] << 8 | pairs[:, :, 1::2]

    if not words or not set(words) <= OTHER_BYTE.keys():
        came = f"{path}, whose 16-bit colours lie in an order that is not known"
        fail(argument, KINDS, came, "Save it as a PNG, or as a plain TIFF, first.", InputError)

    # The second reading gives the low bytes, the first one, already open, the high ones.
    transparent = image.info.get("transparency")
    with Pillow.open(path, formats=formats()) as again:
        again.tile = retold(again, OTHER_BYTE)
        raw = np.asarray(again).astype(np.uint16)
    raw |= np.asarray(image).astype(np.uint16) << 8
    return with_alpha(raw, transparent)


def retold(image: Image, words: dict[str, str]) -> list:
    """The pieces of the file, with another word for how their bytes lie."""
    pieces = []
    for piece in image.tile:  # a plain tuple up to Pillow 10, a named one since
        args = words[piece[3]] if isinstance(piece[3], str) else (words[piece[3][0]], *piece[3][1:])
        pieces.append(tuple.__new__(type(piece), (*piece[:3], args)))
    return pieces


def with_alpha(raw: np.ndarray, transparent: Any) -> np.ndarray:
    """Alpha 0 where a 16-bit picture has the one colour that its file calls transparent."""
    if not isinstance(transparent, (int, tuple)):
        return raw
    opaque = (raw != np.array(transparent)).any(2, keepdims=True)
    return np.concatenate([raw, opaque.astype(np.uint16) * np.uint16(65535)], axis=2)
