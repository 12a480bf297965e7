"""Pictures that a person has, read for restoring: the pixels as numbers, and beside them all that is only passed on.

Pillow decodes, but keeps no more than 8 bits of colour. Of a picture with 16-bit colours it takes the first byte of
each number; read again as if the two bytes stood the other way round, it gives the second byte. So both are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jiio.checks import fail
from jiio.tasks.frame.files import InputError, check_file, check_pixels, decoding

if TYPE_CHECKING:
    from PIL.Image import Exif

Image = Any  # an open picture of Pillow; its types differ from release to release

MAX_PICTURE_BYTES = 1 << 30
MAX_PICTURE_PIXELS = 100_000_000
MIN_SIDE = 8
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
KINDS = "a PNG, JPEG, TIFF, WebP, BMP, GIF, PGM or PPM picture"
SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".mpo", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".pgm", ".ppm", ".pbm", ".pnm")
)
# Pillow's word for how the bytes of one pixel lie -> the word under which the other byte of each number comes out.
OTHER_BYTE = {
    f"{colours};16{order}": f"{colours};16{other}"
    for colours in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B"))
}
REMEDIES = {
    "CMYK": "Convert it to RGB first, by its colour profile.",
    "LAB": "Convert it to RGB first.",
    "F": "It holds floating-point values (HDR): tone-map it, or save it with 16 bits, first.",
    "I": "It holds 32-bit numbers: save it with 16 bits first.",
}
CAMERA = frozenset((".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".raf", ".rw2", ".pef", ".srw"))
DNG_VERSION, BITS_PER_SAMPLE, EXIF_FOLDER, GPS_FOLDER, ORIENTATION = 50706, 258, 0x8769, 0x8825, 0x0112
# ImageDescription, Make, Model, Software, DateTime, Artist, Copyright: true of the restored picture as well.
KEPT_TAGS = (270, 271, 272, 305, 306, 315, 33432)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture in memory.

    path: where it came from. pixels: (C, H, W) float32 in [0, 1], upright; C is 1 for grey, 3 for colour. alpha: (H, W)
    uint8 or uint16 as it stood in the file, or None. bits: 8 or 16, per number. tripled: the file has colours, but all
    are greys, so C is 1; they are written as colours again. format: Pillow's word for the kind of file. exif: without
    orientation and thumbnail. icc: the colour profile. dpi: pixels per inch.
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

    @property
    def kind(self) -> str:
        """Such as ``colour, 16 bit, alpha``."""
        words = ["grey" if len(self.pixels) == 1 else "colour", f"{self.bits} bit"]
        return ", ".join(words if self.alpha is None else [*words, "alpha"])


def read_picture(argument: str, path: Path, *, min_side: int = MIN_SIDE) -> Picture:
    """A picture of any of the :data:`FORMATS`: one frame, grey or colour, with 1 to 16 bits.

    A palette becomes colours, one bit becomes grey, and a colour that stands for transparency becomes alpha. Colours
    that are all greys count as grey: noise that is the same in three channels is not what a colour prior expects.

    Errors: InputError where the file is none of these, is damaged, or has a side shorter than ``min_side`` or far too
    many pixels.
    """
    check_file(argument, path, KINDS, MAX_PICTURE_BYTES)
    if path.suffix.lower() in CAMERA:
        refuse_camera(argument, path)

    # Everything that needs Pillow's decoders; the orientation is asked for last, see :func:`kept_exif`.
    with decoding(argument, path), opened(argument, path) as image:
        check_header(argument, path, image, min_side)
        raw = decode(argument, path, image)
        exif, turn = kept_exif(image)
        icc, dpi, kind = image.info.get("icc_profile"), image.info.get("dpi"), str(image.format)

    # What is restored, and beside it what is only passed on.
    raw = upright(raw, turn)
    pixels, tripled = planes(raw)
    alpha = np.ascontiguousarray(raw[:, :, -1]) if raw.shape[2] in (2, 4) else None
    if dpi is not None:
        dpi = (float(dpi[0]), float(dpi[1])) if turn < 5 else (float(dpi[1]), float(dpi[0]))
    kind = "JPEG" if kind == "MPO" else kind
    return Picture(path, pixels, alpha, 8 * raw.itemsize, tripled, kind, exif, icc or None, dpi)


def opened(argument: str, path: Path) -> Image:
    """The picture, not yet decoded; to be closed."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        remedy = "Convert it to PNG first, if it is a picture of another kind (HEIC, AVIF, SVG, PDF)."
        fail(argument, KINDS, f"{path}, which is none of them or is damaged", remedy, InputError)


def planes(raw: np.ndarray) -> tuple[np.ndarray, bool]:
    """Stored numbers (H, W, K) as (C, H, W) in [0, 1] without alpha, and whether three equal channels became one."""
    full = np.iinfo(raw.dtype).max
    tripled = raw.shape[2] >= 3 and bool((raw[:, :, :1] == raw[:, :, 1:3]).all())
    colours = 1 if tripled or raw.shape[2] < 3 else 3
    pixels = np.empty((colours, *raw.shape[:2]), np.float32)
    for channel in range(colours):
        np.divide(raw[:, :, channel], full, out=pixels[channel], dtype=np.float32)
    return pixels, tripled


def refuse_camera(argument: str, path: Path) -> None:
    """A raw file would open as the small preview that is inside."""
    remedy = "Develop it to a PNG or TIFF picture first."
    fail(argument, KINDS, f"{path}, the raw file of a camera", remedy, InputError)


def check_header(argument: str, path: Path, image: Image, min_side: int) -> None:
    """What the header can tell before anything is decoded."""
    check_pixels(argument, path, image.width, image.height, MAX_PICTURE_PIXELS)
    if min(image.size) < min_side:
        came = f"{path} with {image.width} x {image.height}"
        fail(argument, f"a picture of at least {min_side} x {min_side} pixels", came, error=InputError)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # MPO: a photograph with a preview or a second view behind it
        word = "pages" if image.format == "TIFF" else "frames"
        remedy = "Save the one that you want as a picture of its own."
        fail(argument, "a single picture", f"{path} with {frames} {word}", remedy, InputError)
    if DNG_VERSION in tags(image):
        refuse_camera(argument, path)


def tags(image: Image) -> Any:
    """The tags of a TIFF file; of any other none."""
    return getattr(image, "tag_v2", {})


def decode(argument: str, path: Path, image: Image) -> np.ndarray:
    """The stored numbers (H, W, K), uint8 or uint16; K: 1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha."""
    words = [tile[3] if isinstance(tile[3], str) else str(tile[3][0]) for tile in image.tile if tile[3]]
    if image.mode in ("RGB", "RGBA") and deep(image, words):
        return decode_deep(argument, path, image, words)

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        raw = np.asarray(image).astype(np.uint16)[:, :, None]  # grey, of which Pillow keeps all 16 bits
        return with_alpha(raw, image.info.get("transparency"))
    return decode_plain(argument, path, image)


def decode_plain(argument: str, path: Path, image: Image) -> np.ndarray:
    """Numbers of 8 bits; palettes, single bits and premultiplied colours become plain ones."""
    mode = image.mode
    if mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "YCbCr"):
        came = f"{path} with the colours {mode}"
        fail(argument, "a grey or RGB picture", came, REMEDIES.get(mode, "Convert it to RGB first."), InputError)

    clear = "transparency" in image.info or mode in ("PA", "RGBA", "RGBa")
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
    with Pillow.open(path, formats=FORMATS) as again:
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


def kept_exif(image: Image) -> tuple[Exif | None, int]:
    """What of the EXIF data is true of a restored picture too, or None; and the orientation, 1 to 8.

    Asked after decoding: by then Pillow has turned a TIFF picture itself. A broken block is dropped.
    """
    from PIL import Image as Pillow

    try:
        found = image.getexif()
        turn = found.get(ORIENTATION, 1)

        # The plain tags that stay true, and the folders of the camera and of the place.
        kept = Pillow.Exif()
        kept.update({tag: found[tag] for tag in KEPT_TAGS if tag in found})
        for folder in (EXIF_FOLDER, GPS_FOLDER):
            if inside := found.get_ifd(folder):
                kept.get_ifd(folder).update(inside)
                kept[folder] = inside
        kept.tobytes()  # or it could not be written
    except Exception:  # whatever a broken block brings up
        return None, 1
    return (kept if len(kept) else None), turn if turn in range(1, 9) else 1


def upright(raw: np.ndarray, turn: int) -> np.ndarray:
    """(H, W, K) turned as the EXIF orientation asks (TIFF/EP, tag 274)."""
    raw = raw.swapaxes(0, 1) if turn >= 5 else raw
    rows, columns = (slice(None, None, -1 if turn in flips else 1) for flips in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return raw[rows, columns]
