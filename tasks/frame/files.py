"""Files: outputs that appear whole or not at all, inputs that are read with limits.

Everything wrong with a file is one sentence in an :class:`InputError`, never a traceback from a decoder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from jiio.checks import fail

from .guards import InputError, check_file, check_pixels, decoding, reason

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

__all__ = [
    "InputError",
    "as_path",
    "check_file",
    "check_output_file",
    "check_output_folder",
    "check_pixels",
    "decoding",
    "read_bytes",
    "read_image",
    "read_text",
    "reason",
]

MAX_TEXT_BYTES = 1 << 20
MAX_IMAGE_BYTES = 256 << 20
MAX_IMAGE_PIXELS = 50_000_000


def as_path(argument: str, path: str | Path) -> Path:
    """A path of a caller in Python, as text or not. Errors: InputError for anything else."""
    if not isinstance(path, (str, Path)) or not str(path):
        fail(argument, "a path, as text or pathlib.Path", repr(path), error=InputError)
    return Path(path)


def check_output_folder(argument: str, folder: Path) -> Path:
    """A folder that exists and is writable, or that can be made; nothing is written to find out."""
    remedy = "Name a folder that you may write to."
    try:
        # The nearest folder above that exists is where the others will be made.
        existing = folder
        while not existing.exists() and not existing.is_symlink():
            if existing == existing.parent:
                break
            existing = existing.parent

        if not existing.is_dir():
            kind = "a file" if existing.exists() else "a link that leads nowhere"
            fail(argument, "a folder", f"{folder}, where {existing} is {kind}", remedy, InputError)
        if not os.access(existing, os.W_OK | os.X_OK):
            fail(argument, "a writable folder", f"{folder}, where {existing} is not writable", remedy, InputError)
    except (OSError, ValueError) as error:
        raise InputError(f"{argument}: cannot use {str(folder)!r} ({reason(error)}). {remedy}") from error
    return folder


def check_output_file(argument: str, path: Path) -> Path:
    """A file that can be written, or written anew."""
    check_output_folder(argument, path.parent)
    if path.is_dir():
        fail(argument, "the name of a file", f"the folder {path}", error=InputError)
    return path


def read_bytes(argument: str, path: Path, what: str, max_bytes: int) -> bytes:
    """The bytes of an ordinary file, with a limit."""
    check_file(argument, path, what, max_bytes)
    try:
        return path.read_bytes()
    except OSError as error:
        fail(argument, what, f"{path}, which cannot be read ({reason(error)})", error=InputError)


def read_text(argument: str, path: Path, what: str) -> str:
    """The text of a small UTF-8 file."""
    try:
        return read_bytes(argument, path, what, MAX_TEXT_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        fail(argument, f"{what} in UTF-8", f"{path}, which is not text", error=InputError)


def read_image(argument: str, path: Path, *, channels: int, max_pixels: int = MAX_IMAGE_PIXELS) -> np.ndarray:
    """An image file as float32 values in [0, 1], of shape (height, width, channels); 1 channel is grey, 3 are colour.

    Of pictures beyond 8 bits black and white are the ends of the range that they use: :func:`.pixels.used_span`.

    The number of pixels is read from the header and limited before anything is decoded, so that a small file that
    unfolds to gigabytes is refused and not opened.
    """
    from .pixels import upright
    from .scans import read_scan

    check_file(argument, path, "an image file", MAX_IMAGE_BYTES)
    with decoding(argument, path):
        scan = read_scan(argument, path, max_pixels)
        if scan is None:
            return _in_channels(_decoded(argument, path, channels, max_pixels), channels)
    return _in_channels(upright(scan.span.unit(scan.values), scan.turn).clip(0.0, 1.0), channels)


def _decoded(argument: str, path: Path, channels: int, max_pixels: int) -> np.ndarray:
    """(H, W, K) by Pillow's decoders, turned upright."""
    import numpy as np
    from PIL import Image, ImageOps

    from .pixels import used_span

    with Image.open(path) as image:
        check_pixels(argument, path, image.width, image.height, max_pixels)
        image.load()

        # Numbers of more than 8 bits stay; cameras turn a picture by a mark beside it.
        wide = image.mode.startswith(("I", "F"))
        white_is_zero = _white_is_zero(image)
        image = ImageOps.exif_transpose(image)
        values = np.asarray(image if wide else image.convert("L" if channels == 1 else "RGB"))
    span = used_span(argument, path, values)
    values, span = span.flipped(values) if wide and white_is_zero else (values, span)
    return span.unit(values if values.ndim == 3 else values[:, :, None]).clip(0.0, 1.0)


def _white_is_zero(image: Image) -> bool:
    """Whether a TIFF says that its least number is white, which Pillow obeys up to 8 bits only."""
    return getattr(image, "tag_v2", {}).get(262) == 0


def _in_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """(H, W, 1 or 3) with as many channels as are wanted; grey is the luma of Rec. 601, as in Pillow."""
    import numpy as np

    if pixels.shape[2] == 3 and channels == 1:
        return (pixels @ np.array([0.299, 0.587, 0.114], np.float32))[:, :, None]
    return np.repeat(pixels, channels, axis=2) if pixels.shape[2] < channels else pixels
