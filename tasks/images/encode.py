"""Pictures written as files: the same kind, depth, alpha, profile and EXIF data as the one that was read."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jiio.checks import fail
from jiio.tasks.frame.files import InputError, reason
from jiio.tasks.frame.guards import muted
from jiio.tasks.frame.outputs import write_new
from jiio.tasks.frame.pixels import Span

from .header import Header
from .notes import IPTC_TAG, KEPT_TAGS, XMP_TAG
from .pictures import Picture

ROWS = 256  # compressed at a time, so that no second copy of a large picture is made


@dataclass(frozen=True)
class FileKind:
    """A kind of file that can be written.

    name: Pillow's word. suffixes: of its files, the usual one first. alpha: whether it can have transparency. deep: the
    numbers per pixel (with alpha) that it can store with 16 bits. any_type: whether it can store signed, longer and
    floating-point numbers as well. options: of Pillow's writer.
    """

    name: str
    suffixes: tuple[str, ...]
    alpha: bool = False
    deep: frozenset[int] = frozenset()
    any_type: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def bits(self, picture: Picture) -> int:
        """Per number, when the picture is written as this kind."""
        bits = self.depth(picture.bits, bands(picture))
        signed = picture.span is not None and np.dtype(picture.span.dtype).kind == "i"
        return 16 if signed and not self.any_type and bands(picture) in self.deep else bits

    def depth(self, bits: int, numbers: int) -> int:
        """Bits that are written where a picture has so many, and so many numbers per pixel."""
        if numbers not in self.deep:
            return 8
        return bits if bits <= 16 or (self.any_type and numbers in (1, 3)) else 16

    def span(self, picture: Picture) -> Span:
        """The numbers that are written as this kind: those of the picture's own file where it can hold them."""
        own, bits = picture.span, self.bits(picture)
        if own is not None and bits == picture.bits:
            plain = np.dtype(own.dtype).kind == "u" and bits <= 16
            if plain or (self.any_type and picture.alpha is None):
                return own
        return full_span(min(bits, 16))


WRITTEN = (
    FileKind("PNG", (".png",), alpha=True, deep=frozenset((1, 2, 3, 4))),
    FileKind("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), options={"quality": 95, "subsampling": 0}),
    FileKind("TIFF", (".tif", ".tiff"), alpha=True, deep=frozenset((1, 3, 4)), any_type=True),
    # exact: the colours below full transparency stay as well
    FileKind("WEBP", (".webp",), alpha=True, options={"quality": 95, "exact": True}),
    FileKind("AVIF", (".avif",), options={"quality": 90, "subsampling": "4:4:4"}),  # alpha would lose some of its bits
    FileKind("JPEG2000", (".jp2", ".j2k"), alpha=True),
    FileKind("BMP", (".bmp",)),
    FileKind("PPM", (".ppm", ".pgm", ".pnm"), deep=frozenset((1,))),
)
BY_SUFFIX = {suffix: kind for kind in WRITTEN for suffix in kind.suffixes}


def bands(picture: Picture) -> int:
    """Numbers per pixel, alpha included."""
    return (3 if picture.tripled else len(picture.pixels)) + (picture.alpha is not None)


def full_span(bits: int) -> Span:
    """All that unsigned numbers of 8 or 16 bits can be."""
    return Span(0.0, float(2**bits - 1), f"uint{bits}")


def natural_suffix(picture: Picture) -> str:
    """Of the file that the restored picture goes to unless told otherwise: of the kind that it came from, or PNG where
    that kind cannot be written (GIF).
    """
    return suffix_of(Header(picture.path, picture.format, bands(picture), picture.bits))


def suffix_of(header: Header) -> str:
    """:func:`natural_suffix`, of a picture that is not read yet."""
    own = header.path.suffix
    for kind in WRITTEN:
        fits = kind.depth(header.bits, header.numbers) == header.bits and (kind.alpha or not header.alpha)
        if kind.name == header.format and fits:
            if kind.name == "PPM":
                return ".pgm" if header.numbers == 1 else ".ppm"
            return own if own.lower() in kind.suffixes else kind.suffixes[0]
    return ".png"


def check_suffix(argument: str, path: Path) -> FileKind:
    """The kind of file that a name asks for."""
    kind = BY_SUFFIX.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(BY_SUFFIX)
        fail(argument, f"a name that ends in one of {known}", str(path), error=InputError)
    return kind


def check_fits(argument: str, path: Path, picture: Picture | Header) -> FileKind:
    """The kind of file that a name asks for, if it can hold the picture; 16 bits may become 8, alpha may not go."""
    kind = check_suffix(argument, path)
    clear = picture.alpha if isinstance(picture, Header) else picture.alpha is not None
    if clear and not kind.alpha:
        came = f"{path} for {picture.path}, which has transparency that {kind.name} cannot keep"
        fail(argument, "the name of a PNG, TIFF or WebP file", came, error=InputError)
    return kind


def write_picture(argument: str, path: Path, picture: Picture, *, replace: bool = True) -> None:
    """Write the picture as the kind of file that the suffix says; whole, or not at all.

    replace: whether there may be a file of that name by now.

    Errors: InputError where it cannot be written as that kind; OutputError where nothing can be written there, for
    example because the disk is full.
    """
    kind = check_fits(argument, path, picture)
    try:
        with muted():
            data = encode(picture, kind)
    except (OSError, ValueError, struct.error) as error:  # 65,535 pixels are too wide for JPEG, 16,383 for WebP
        raise InputError(f"{argument}: {path} cannot be written as {kind.name} ({reason(error)}).") from error
    write_new(argument, path, data, replace=replace)


def encode(picture: Picture, kind: FileKind) -> bytes:
    """The bytes of the file."""
    values = stored(picture, kind.span(picture))
    if kind.name == "TIFF":
        return tiff(values, picture)
    if values.dtype == np.uint16:
        return {"PNG": deep_png, "PPM": deep_pgm}[kind.name](values, picture)
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    about = {key: value for key, value in beside(picture, kind).items() if value}
    image.save(buffer, kind.name, **kind.options, **about)
    return buffer.getvalue()


def beside(picture: Picture, kind: FileKind) -> dict[str, Any]:
    """What Pillow's writer is told of the picture besides its pixels."""
    notes = picture.notes
    about: dict[str, Any] = {"icc_profile": picture.icc, "exif": picture.exif, "dpi": picture.dpi}
    if kind.name == "PNG":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        for name, data in notes.chunks():
            info.add(name, data)
        return about | {"pnginfo": info}
    if kind.name == "JPEG":
        return about | {"xmp": notes.xmp, "comment": notes.comment, "extra": notes.segments()}
    return about | ({"xmp": notes.xmp} if kind.name in ("WEBP", "AVIF") else {})


def stored(picture: Picture, span: Span | int) -> np.ndarray:
    """The numbers of a file, (H, W, K), in a range, or in the whole one of 8 or 16 bits."""
    span = full_span(span) if isinstance(span, int) else span
    values = np.empty((*picture.pixels.shape[1:], bands(picture)), span.dtype)
    for channel, plane in enumerate(picture.pixels):
        numbers = span.stored(plane)
        values[:, :, 0 if picture.tripled else channel : 3 if picture.tripled else channel + 1] = numbers[:, :, None]
    if picture.alpha is not None:
        own, full = (np.iinfo(kind).max for kind in (picture.alpha.dtype, values.dtype))
        values[:, :, -1] = picture.alpha if own == full else np.rint(picture.alpha * (full / own))
    return values


def deep_png(values: np.ndarray, picture: Picture) -> bytes:
    """A PNG with 16 bits per number, which Pillow cannot write (W3C PNG specification, third edition).

    Every row is stored as its difference to the row above (filter 2), which packs photographs well.
    """
    height, width, numbers = values.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[numbers]
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))]
    parts += [chunk(name, data) for name, data in picture.notes.chunks()]
    if picture.icc is not None:
        parts.append(chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(picture.icc)))
    if picture.dpi is not None:
        x, y = (round(inch / 0.0254) for inch in picture.dpi)
        parts.append(chunk(b"pHYs", struct.pack(">IIB", x, y, 1)))
    if picture.exif is not None:
        parts.append(chunk(b"eXIf", picture.exif.tobytes().removeprefix(b"Exif\0\0")))

    # Some rows at a time: values are big-endian, and each row is stored minus the one above.
    packer = zlib.compressobj()
    above = np.zeros(2 * numbers * width, np.uint8)
    for top in range(0, height, ROWS):
        rows = values[top : top + ROWS].astype(">u2").view(np.uint8).reshape(-1, len(above))
        lines = np.full((len(rows), len(above) + 1), 2, np.uint8)
        lines[:, 1:] = rows - np.concatenate([above[None], rows[:-1]])  # modulo 256
        above = rows[-1]
        parts.append(chunk(b"IDAT", packer.compress(lines.tobytes())))
    parts.append(chunk(b"IDAT", packer.flush()))
    return b"".join([*parts, chunk(b"IEND", b"")])


def chunk(name: bytes, data: bytes) -> bytes:
    """A piece of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff(values: np.ndarray, picture: Picture) -> bytes:
    """A compressed TIFF of any type of numbers. Of the EXIF data the plain tags are kept, the folders inside are not:
    Pillow cannot write them into a compressed TIFF, nor 16-bit colours, and tifffile has no word for them.
    """
    import tifffile

    numbers = values.shape[2]
    # Plain tags are text: (tag, type 2, any length, value, once); XMP and IPTC are bytes.
    text = [] if picture.exif is None else [(tag, 2, None, str(value), True) for tag, value in picture.exif.items()]
    blocks = ((XMP_TAG, 1, picture.notes.xmp), (IPTC_TAG, 7, picture.notes.iptc))
    more = [(tag, kind, len(data), data, True) for tag, kind, data in blocks if data is not None]
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        values[:, :, 0] if numbers == 1 else values,
        photometric="minisblack" if numbers < 3 else "rgb",
        planarconfig=None if numbers == 1 else "contig",
        extrasamples=["unassalpha"] if numbers in (2, 4) else None,
        compression="zlib",
        predictor=2 if values.dtype.kind in "iu" else None,
        resolution=picture.dpi,
        resolutionunit=None if picture.dpi is None else "INCH",
        iccprofile=picture.icc,
        extratags=[*(tag for tag in text if tag[0] in KEPT_TAGS), *more],
        metadata=None,
        software=False,
    )
    return buffer.getvalue()


def deep_pgm(values: np.ndarray, picture: Picture) -> bytes:
    """A binary PGM with 16 bits per number, the first byte first."""
    height, width, _ = values.shape
    return b"P5\n%d %d\n65535\n" % (width, height) + values.astype(">u2").tobytes()
