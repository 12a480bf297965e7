"""Files: outputs that appear whole or not at all, inputs that are read with limits.

Everything wrong with a file is one sentence in an :class:`InputError`, never a traceback from a decoder.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jiio.checks import JiioError, fail

if TYPE_CHECKING:
    import numpy as np

MAX_TEXT_BYTES = 1 << 20
MAX_IMAGE_BYTES = 256 << 20
MAX_IMAGE_PIXELS = 50_000_000
# What decoders run into in damaged files; RuntimeError, LookupError, TypeError and AttributeError are slips of theirs.
DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, OverflowError, MemoryError),
    *(RuntimeError, LookupError, TypeError, AttributeError),
)


class InputError(JiioError, ValueError):
    """A file or a folder that cannot be used."""


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


def check_file(argument: str, path: Path, what: str, max_bytes: int) -> Path:
    """An ordinary, readable, non-empty file of at most ``max_bytes``; pipes and devices could block for ever."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        fail(argument, what, f"{path}, which cannot be opened ({reason(error)})", "Check the path.", InputError)
    if stat.S_ISDIR(status.st_mode):
        fail(argument, what, f"the folder {path}", error=InputError)
    if not stat.S_ISREG(status.st_mode):
        fail(argument, what, f"{path}, which is not an ordinary file", error=InputError)
    if status.st_size == 0:
        fail(argument, what, f"{path}, which is empty (zero bytes)", error=InputError)
    if status.st_size > max_bytes:
        fail(argument, f"{what} of at most {max_bytes:,} bytes", f"{path} with {status.st_size:,}", error=InputError)
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


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """What C libraries (libtiff, libjpeg) themselves print on standard error within is thrown away."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, ValueError):  # there may be no standard error
            sys.stderr.flush()
            before = os.dup(2)
            stack.callback(os.close, before)
            stack.callback(os.dup2, before, 2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, nowhere)
            os.dup2(nowhere, 2)
        yield


@contextlib.contextmanager
def decoding(argument: str, path: Path) -> Iterator[None]:
    """What Pillow's decoders raise within becomes one sentence; their warnings are thrown away."""
    from PIL import Image

    try:
        with muted(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Image.DecompressionBombError as error:
        raise InputError(f"{argument}: {path} unfolds to too many pixels for an image. Shrink it first.") from error
    except JiioError:
        raise
    except DECODER_ERRORS as error:
        raise InputError(f"{argument}: {path} is not an image that can be read ({reason(error)}).") from error


def check_pixels(argument: str, path: Path, width: int, height: int, limit: int) -> None:
    """No more pixels than ``limit``; asked of the header, before anything is decoded."""
    if width * height > limit:
        came = f"{path} with {width} x {height}"
        fail(argument, f"an image of at most {limit:,} pixels", came, "Shrink it first.", InputError)


def read_image(argument: str, path: Path, *, channels: int, max_pixels: int = MAX_IMAGE_PIXELS) -> np.ndarray:
    """An image file as float32 values in [0, 1], of shape (height, width, channels); 1 channel is grey, 3 are colour.

    The number of pixels is read from the header and limited before anything is decoded, so that a small file that
    unfolds to gigabytes is refused and not opened.
    """
    import numpy as np
    from PIL import Image, ImageOps

    check_file(argument, path, "an image file", MAX_IMAGE_BYTES)
    with decoding(argument, path), Image.open(path) as image:
        check_pixels(argument, path, image.width, image.height, max_pixels)
        image.load()

        # Pictures of 16 bits keep them; cameras turn a picture by a mark beside it.
        image = ImageOps.exif_transpose(image)
        depth = 65535.0 if image.mode.startswith("I") else 255.0
        if depth == 255.0:
            image = image.convert("L" if channels == 1 else "RGB")
        pixels = np.asarray(image, dtype=np.float32) / depth
    pixels = np.clip(pixels, 0.0, 1.0)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], channels, axis=2)
    return pixels


def reason(error: BaseException) -> str:
    """Why, in a few words on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
