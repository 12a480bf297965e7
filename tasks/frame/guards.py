"""Reading what strangers made: limits before anything is decoded, and decoders whose troubles become a sentence."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from jiio.checks import JiioError, fail

# What decoders run into in damaged files; RuntimeError, LookupError, TypeError and AttributeError are slips of theirs.
DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, OverflowError, MemoryError),
    *(RuntimeError, LookupError, TypeError, AttributeError),
)


class InputError(JiioError, ValueError):
    """A file or a folder that cannot be used."""


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


class Silence:
    """Standard error leads nowhere while anybody is inside; it belongs to the whole process, so the threads count."""

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.held = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self._begin()

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.held.close()

    def _begin(self) -> None:
        """Remember the descriptor, and what Python would warn of, and turn both away."""
        self.held.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        with contextlib.suppress(OSError, ValueError):  # there may be no standard error
            if sys.stderr is not None:
                sys.stderr.flush()
            before = os.dup(2)
            self.held.callback(os.close, before)
            self.held.callback(os.dup2, before, 2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            self.held.callback(os.close, nowhere)
            os.dup2(nowhere, 2)


SILENCE = Silence()


def muted() -> Silence:
    """What C libraries (libtiff, libjpeg) print on standard error within, and warnings of Python, are thrown away."""
    return SILENCE


@contextlib.contextmanager
def decoding(argument: str, path: Path) -> Iterator[None]:
    """What Pillow's decoders raise within becomes one sentence; their warnings are thrown away."""
    from PIL import Image

    try:
        with muted():
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


def reason(error: BaseException) -> str:
    """Why, in a few words on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
