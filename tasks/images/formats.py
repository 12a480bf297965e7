"""The kinds of files that are read, as far as the installed Pillow and its plugins know them."""

from __future__ import annotations

import contextlib
import functools
import importlib
from pathlib import Path
from typing import NamedTuple

from jiio.checks import fail
from jiio.tasks.frame.files import InputError

# Pillow's word for a kind -> the suffixes of its files. TGA is none of them: any rubbish passes for one.
SUFFIXES_OF = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "DIB": (),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".hif", ".heics", ".heifs"),
    "JXL": (".jxl",),
}


class Plugin(NamedTuple):
    """A module that teaches Pillow a kind. name: of the kind. start: of its function; None where the import is enough.
    how: to install it.
    """

    name: str
    module: str
    start: str | None
    how: str


PLUGINS = {
    "HEIF": Plugin("HEIC", "pillow_heif", "register_heif_opener", "pip install 'jiio[heif]'"),
    "JXL": Plugin("JPEG XL", "pillow_jxl", None, "pip install pillow-jxl-plugin"),
}
KINDS = "a PNG, JPEG, TIFF, WebP, AVIF, BMP, GIF, JPEG 2000, PGM or PPM picture"


@functools.cache
def formats() -> tuple[str, ...]:
    """Pillow's words for the kinds that can be read here; the plugins that are installed are started."""
    from PIL import Image

    Image.init()
    for kind, plugin in PLUGINS.items():
        if kind not in Image.OPEN:
            with contextlib.suppress(ImportError):
                module = importlib.import_module(plugin.module)
                if plugin.start is not None:
                    getattr(module, plugin.start)()
    return tuple(kind for kind in SUFFIXES_OF if kind in Image.OPEN)


@functools.cache
def suffixes() -> frozenset[str]:
    """Of the files that can be read here."""
    return frozenset(suffix for kind in formats() for suffix in SUFFIXES_OF[kind])


def refuse_unknown(argument: str, path: Path) -> None:
    """A file that none of the kinds is; where a plugin would read it, its name is told."""
    came = f"{path}, which is none of them or is damaged"
    remedy = "Convert it to PNG first, if it is a picture of another kind (SVG, PDF)."
    for kind, plugin in PLUGINS.items():
        if kind not in formats() and (path.suffix.lower() in SUFFIXES_OF[kind] or looks_like(kind, path)):
            came, remedy = (
                f"{path}, a {plugin.name} picture that cannot be read here",
                f"To read it, {plugin.how}; or save it as PNG.",
            )
    fail(argument, KINDS, came, remedy, InputError)


def looks_like(kind: str, path: Path) -> bool:
    """By its first bytes."""
    with path.open("rb") as stream:
        head = stream.read(16)
    heif = head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"heim", b"heis", b"hevc")
    jxl = head[:2] == b"\xff\x0a" or head[4:8] == b"JXL "
    return {"HEIF": heif, "JXL": jxl}[kind]
