"""Pictures of random values, and an oracle that writes 16-bit PNG, for the tests of reading and writing pictures."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from jiio.tasks.images.pictures import Picture

HEIGHT, WIDTH = 9, 12


def numbers(count: int, bits: int, shape: tuple[int, int] = (HEIGHT, WIDTH), seed: int = 0) -> np.ndarray:
    """Random values (H, W, K) that are no greys."""
    draw = np.random.default_rng(seed)
    return draw.integers(0, 2**bits, (*shape, count)).astype(np.uint8 if bits == 8 else np.uint16)


def picture_of(values: np.ndarray, path: str = "a.png", **more) -> Picture:
    """The picture of values (H, W, K), with alpha where K is 2 or 4."""
    count = values.shape[2]
    colours = count - (count in (2, 4))
    pixels = np.moveaxis(values[:, :, :colours], 2, 0) / np.float32(np.iinfo(values.dtype).max)
    alpha = values[:, :, -1].copy() if count > colours else None
    return Picture(Path(path), pixels.astype(np.float32), alpha, 8 * values.itemsize, **more)


def png(values: np.ndarray, *, chunks: dict[bytes, bytes] | None = None, bits: int = 16) -> bytes:
    """A plain PNG by the letter of the specification; an oracle that shares nothing with what it tests.

    bits: 16, or fewer for greys whose bits fill whole bytes.
    """
    height, width, count = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[count]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    if bits < 16:  # several in a byte, the first in the highest bits
        each = np.arange(bits - 1, -1, -1)
        values = np.packbits((values[:, :, 0, None] >> each & 1).reshape(height, -1).astype(np.uint8), axis=1)
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else np.uint8).tobytes() for row in values)
    more = b"".join(chunk(name, data) for name, data in (chunks or {}).items())
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def saved(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path
