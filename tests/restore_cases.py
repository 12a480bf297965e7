"""A toy in place of the shipped restorers, and photographs to restore, for the tests of ``jiio restore``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from jiio.tasks.images.encode import write_picture
from jiio.tasks.images.pictures import Picture
from jiio.tasks.restore import load as loading
from jiio.tasks.restore.base import AbstractRestorer
from toy_restorer import SmoothRestorer

LOAD = loading.load_restorer


def toy(argument: str, word: str) -> AbstractRestorer:
    """The toy in place of shipped weights; any other word means what it does."""
    if word in ("prior-grey", "prior-colour", "direct-grey", "direct-colour"):
        return SmoothRestorer(1 if word.endswith("grey") else 3)
    return LOAD(argument, word)


def noisy(height: int = 40, width: int = 56, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A smooth picture with noise of 20 grey levels, (C, H, W) in [0, 1]."""
    draw = np.random.default_rng(seed)
    rows, columns = np.linspace(0, 3, height)[:, None], np.linspace(0, 4, width)
    clean = 0.5 + 0.2 * np.sin(rows + np.arange(channels)[:, None, None]) * np.cos(columns)
    return (clean + 20 / 255 * draw.standard_normal((channels, height, width))).astype(np.float32)


def photo(name: str = "a.png", *, alpha: bool = False, bits: int = 8, **options) -> bytes:
    """A noisy photograph in the working folder."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noisy(**options)
    clear = np.full(pixels.shape[1:], 2**bits - 1, np.uint8 if bits == 8 else np.uint16) if alpha else None
    if clear is not None:
        clear[:10] = np.arange(10)[:, None]
    write_picture("test", path, Picture(path, pixels, clear, bits))
    return path.read_bytes()


def write(name: str, content: str | bytes) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def grey(name: str, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.uint8)).save(name)


def snapshot() -> dict[str, bytes | None]:
    """Every file below the working folder."""
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(Path().rglob("*"))}
