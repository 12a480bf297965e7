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
from jiio.tasks.frame.files import InputError, muted, reason
from jiio.tasks.frame.outputs import write_new

from .header import Header
from .pictures import KEPT_TAGS, Picture

ROWS = 256  # compressed at a time, so that no second copy of a large picture is made


@dataclass(frozen=True)
class FileKind:
    """A kind of file that can be written.

    name: Pillow's word. suffixes: of its files, the usual one first. alpha: whether it can have transparency. deep: the
    numbers per pixel (with alpha) that it can store with 16 bits. options: of Pillow's writer.
    """

    name: str
    suffixes: tuple[str, ...]
    alpha: bool = False
    deep: frozenset[int] = frozenset()
    options: dict[str, Any] = field(default_factory=dict)

    def bits(self, picture: Picture) -> int:
        """Per number, when the picture is written as this kind."""
        return self.depth(picture.bits, bands(picture))

    def depth(self, bits: int, numbers: int) -> int:
        """Bits that are written where a picture has so many, and so many numbers per pixel."""
        return bits if numbers in self.deep else 8


WRITTEN = (
    FileKind("PNG", (".png",), alpha=True, deep=frozenset((1, 2, 3, 4))),
    FileKind("JPEG", (".jpg", ".jpeg"), options={"quality": 95, "subsampling": 0}),
    FileKind("TIFF", (".tif", ".tiff"), alpha=True, deep=frozenset((1, 3, 4))),
    # exact: the colours below full transparency stay as well
    FileKind("WEBP", (".webp",), alpha=True, options={"quality": 95, "exact": True}),
    FileKind("BMP", (".bmp",)),
    FileKind("PPM", (".ppm", ".pgm", ".pnm"), deep=frozenset((1,))),
)
BY_SUFFIX = {suffix: kind for kind in WRITTEN for suffix in kind.suffixes}


def bands(picture: Picture) -> int:
    """Numbers per pixel, alpha included."""
    return (3 if picture.tripled else len(picture.pixels)) + (picture.alpha is not None)


def natural_suffix(picture: Picture) -> str:
    """Of the file that the restored picture goes to unless told otherwise: of the kind that it came from, or PNG where
    that kind cannot be written (GIF).
    """
    return suffix_of(Header(picture.path, picture.format, bands(picture), picture.bits))


def suffix_of(header: Header) -> str:
    """:func:`natural_suffix`, of a picture that is not read yet."""
    own = header.path.suffix
    for kind in WRITTEN:
        if kind.name == header.format and kind.depth(header.bits, header.numbers) == header.bits:
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
    values = stored(picture, kind.bits(picture))
    if kind.name == "TIFF":
        return tiff(values, picture)
    if values.dtype == np.uint16:
        return {"PNG": deep_png, "PPM": deep_pgm}[kind.name](values, picture)
    from PIL import Image

    about = {"icc_profile": picture.icc, "exif": picture.exif, "dpi": picture.dpi}
    buffer = io.BytesIO()
    image = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    image.save(buffer, kind.name, **kind.options, **{key: value for key, value in about.items() if value is not None})
    return buffer.getvalue()


def stored(picture: Picture, bits: int) -> np.ndarray:
    """The numbers of a file, (H, W, K) uint8 or uint16, rounded to the nearest."""
    full = 2**bits - 1
    values = np.empty((*picture.pixels.shape[1:], bands(picture)), np.uint8 if bits == 8 else np.uint16)
    for channel, plane in enumerate(picture.pixels):
        rounded = np.rint(np.clip(plane, 0.0, 1.0) * full)
        values[:, :, 0 if picture.tripled else channel : 3 if picture.tripled else channel + 1] = rounded[:, :, None]
    if picture.alpha is not None:
        own = np.iinfo(picture.alpha.dtype).max
        values[:, :, -1] = picture.alpha if own == full else np.rint(picture.alpha * (full / own))
    return values


def deep_png(values: np.ndarray, picture: Picture) -> bytes:
    """A PNG with 16 bits per number, which Pillow cannot write (W3C PNG specification, third edition).

    Every row is stored as its difference to the row above (filter 2), which packs photographs well.
    """
    height, width, numbers = values.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[numbers]
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))]
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
    """A compressed TIFF of either depth. Of the EXIF data the plain tags are kept, the folders inside are not: Pillow
    cannot write them into a compressed TIFF, nor 16-bit colours, and tifffile has no word for them.
    """
    import tifffile

    numbers = values.shape[2]
    # Plain tags are text: (tag, type 2, any length, value, once).
    text = [] if picture.exif is None else [(tag, 2, None, str(value), True) for tag, value in picture.exif.items()]
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        values[:, :, 0] if numbers == 1 else values,
        photometric="minisblack" if numbers < 3 else "rgb",
        planarconfig=None if numbers == 1 else "contig",
        extrasamples=["unassalpha"] if numbers in (2, 4) else None,
        compression="zlib",
        predictor=2,
        resolution=picture.dpi,
        resolutionunit=None if picture.dpi is None else "INCH",
        iccprofile=picture.icc,
        extratags=[tag for tag in text if tag[0] in KEPT_TAGS],
        metadata=None,
        software=False,
    )
    return buffer.getvalue()


def deep_pgm(values: np.ndarray, picture: Picture) -> bytes:
    """A binary PGM with 16 bits per number, the first byte first."""
    height, width, _ = values.shape
    return b"P5\n%d %d\n65535\n" % (width, height) + values.astype(">u2").tobytes()
