"""What stands in a picture's file beside its pixels and is true of the restored picture too.

EXIF, colour profile and density; XMP and IPTC (captions, rights, ratings); what the numbers of a PNG mean where there
is no profile (gAMA, cHRM, sRGB), and its texts; the comment of a JPEG.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Exif

Image = Any  # an open picture of Pillow; its types differ from release to release

EXIF_FOLDER, GPS_FOLDER, ORIENTATION, XMP_TAG, IPTC_TAG = 0x8769, 0x8825, 0x0112, 700, 33723
RESOLUTION_TAGS, UNIT_TAG, PROFILE_TAG = (282, 283), 296, 34675
# ImageDescription, Make, Model, Software, DateTime, Artist, Copyright.
KEPT_TAGS = (270, 271, 272, 305, 306, 315, 33432)
XMP_KEYWORD = "XML:com.adobe.xmp"
OLD_XMP = "Raw profile type xmp"
PHOTOSHOP, IPTC_RESOURCE = b"Photoshop 3.0\0", 0x0404
MOST = 1 << 20  # bytes of a note; a JPEG holds 64 KiB of XMP, and texts can be bombs
MOST_PROFILE = 64 << 20  # bytes
MOST_DOTS = 1e6  # pixels per inch
MOST_SEGMENT = 65_000  # bytes of one segment of a JPEG


@dataclass(frozen=True)
class Notes:
    """xmp, iptc: as they stand in the file. comment: of a JPEG. texts: keyword -> text. meaning: name -> data of the
    chunks of a PNG that say what its numbers mean.
    """

    xmp: bytes | None = None
    iptc: bytes | None = None
    comment: bytes | None = None
    texts: dict[str, str] = field(default_factory=dict)
    meaning: dict[bytes, bytes] = field(default_factory=dict)

    def chunks(self) -> list[tuple[bytes, bytes]]:
        """As pieces of a PNG file, (name, data)."""
        told = list(self.meaning.items())
        told += [(b"iTXt", international(keyword, text)) for keyword, text in self.texts.items()]
        if self.xmp is not None:
            told.append((b"iTXt", XMP_KEYWORD.encode() + b"\0\0\0\0\0" + self.xmp))
        return told

    def segments(self) -> bytes:
        """The IPTC data as a segment of a JPEG file."""
        if self.iptc is None or len(self.iptc) > MOST_SEGMENT:
            return b""
        block = (
            b"8BIM" + struct.pack(">HHI", IPTC_RESOURCE, 0, len(self.iptc)) + self.iptc + b"\0" * (len(self.iptc) % 2)
        )
        return b"\xff\xed" + struct.pack(">H", 2 + len(PHOTOSHOP) + len(block)) + PHOTOSHOP + block


def international(keyword: str, text: str) -> bytes:
    """The data of a compressed text of a PNG, in UTF-8 (W3C PNG specification, 11.3.3.4)."""
    return keyword.encode("latin-1", "replace")[:79] + b"\0\1\0\0\0" + zlib.compress(text.encode())


def read_notes(image: Image) -> Notes:
    """The notes of a picture that is decoded; broken ones are dropped."""
    info, tags = image.info, getattr(image, "tag_v2", {})
    texts = {str(k): str(v) for k, v in getattr(image, "text", {}).items() if k not in (XMP_KEYWORD, OLD_XMP)}
    resources = info.get("photoshop")
    iptc = resources.get(IPTC_RESOURCE) if isinstance(resources, dict) else tags.get(IPTC_TAG)
    return Notes(
        upright_xmp(kept_bytes(info.get("xmp", tags.get(XMP_TAG)))),
        kept_bytes(iptc),
        kept_bytes(info.get("comment")) if image.format in ("JPEG", "MPO") else None,
        {keyword: text for keyword, text in texts.items() if len(text) <= MOST},
        meaning(info) if image.format == "PNG" else {},
    )


def kept_bytes(value: Any, most: int = MOST) -> bytes | None:
    """The bytes of a note of reasonable size; of any other None."""
    value = value.encode() if isinstance(value, str) else value
    return bytes(value) if isinstance(value, (bytes, bytearray)) and 0 < len(value) <= most else None


def upright_xmp(xmp: bytes | None) -> bytes | None:
    """XMP in which the picture need not be turned any more."""
    if xmp is None:
        return None
    xmp = re.sub(rb"(tiff:Orientation\s*=\s*[\"'])[2-8]([\"'])", rb"\g<1>1\2", xmp)
    return re.sub(rb"(<tiff:Orientation>\s*)[2-8](\s*</tiff:Orientation>)", rb"\g<1>1\2", xmp)


def meaning(info: dict[str, Any]) -> dict[bytes, bytes]:
    """gAMA, cHRM and sRGB, from what Pillow makes of them; values that make no sense are dropped."""
    found = {}
    try:
        if "gamma" in info:
            found[b"gAMA"] = struct.pack(">I", round(info["gamma"] * 100_000))
        if "chromaticity" in info:
            found[b"cHRM"] = struct.pack(">8I", *(round(value * 100_000) for value in info["chromaticity"]))
        if "srgb" in info:
            found[b"sRGB"] = struct.pack(">B", info["srgb"])
    except (struct.error, TypeError, ValueError):
        return {}
    return found


def kept_exif(image: Image) -> tuple[Exif | None, int]:
    """What of the EXIF data is true of a restored picture too, or None; and the orientation, 1 to 8.

    Asked after decoding: by then Pillow has turned a TIFF picture itself. A broken block is dropped.
    """
    try:
        return exif_of(image.getexif())
    except Exception:  # whatever a broken block brings up
        return None, 1


def exif_of(found: Exif) -> tuple[Exif | None, int]:
    """The part of EXIF data that is kept, and the orientation."""
    from PIL import Image as Pillow

    turn = found.get(ORIENTATION, 1)

    # The plain tags that stay true, and the folders of the camera and of the place.
    kept = Pillow.Exif()
    kept.update({tag: found[tag] for tag in KEPT_TAGS if tag in found})
    for folder in (EXIF_FOLDER, GPS_FOLDER):
        if inside := found.get_ifd(folder):
            kept.get_ifd(folder).update(inside)
            kept[folder] = inside
    kept.tobytes()  # or it could not be written
    return (kept if len(kept) else None), turn if turn in range(1, 9) else 1


def tiff_notes(path: Path, turn: int) -> tuple[Exif | None, bytes | None, tuple[float, float] | None, Notes]:
    """EXIF, profile, density and notes of a TIFF whose pixels Pillow cannot read; broken ones are dropped."""
    from PIL import Image as Pillow

    found = Pillow.Exif()
    try:
        with path.open("rb") as stream:
            found.load_from_fp(stream)
            exif, _ = exif_of(found)
            unit = {2: 1.0, 3: 2.54}.get(found.get(UNIT_TAG, 2))
            inch = None if unit is None else [float(found[tag]) * unit for tag in RESOLUTION_TAGS if tag in found]
            notes = Notes(upright_xmp(kept_bytes(found.get(XMP_TAG))), kept_bytes(found.get(IPTC_TAG)))
            return exif, kept_bytes(found.get(PROFILE_TAG), MOST_PROFILE), dots(inch, turn), notes
    except Exception:  # whatever a broken block brings up
        return None, None, None, Notes()


def dots(inch: Any, turn: int) -> tuple[float, float] | None:
    """Pixels per inch of a picture that was turned; None where they make no sense."""
    try:
        across, down = float(inch[0]), float(inch[1])
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return None
    if not (0 < across < MOST_DOTS and 0 < down < MOST_DOTS):
        return None
    return (across, down) if turn < 5 else (down, across)
