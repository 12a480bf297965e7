"""The pictures of :mod:`benchmarks.restore.snapshots`, and what happened to each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from benchmarks.restore.photos import PATH, Damaged, in_jpeg, sides, stored
from jiio.tasks.frame.files import read_image
from jiio.tasks.images.sources import find_data
from jiio.tasks.maps.convolution import blur, downsample
from jiio.tasks.maps.kernels import gaussian_kernel, motion_kernel
from jiio.tasks.restore.photos.damage import Blurred, Coarse, Masked, Noise, Scratched
from jiio.tasks.restore.photos.rounded import by_the_file
from jiio.tasks.restore.photos.several import Several
from jiio.tasks.restore.photos.unknown import Unknown

GAMMA = 2.2
Damage = Callable[[np.ndarray, np.random.Generator], Damaged]


@dataclass(frozen=True)
class Snapshot:
    """name: what happened. source: of scikit-image, or a file of CBSD68. side: of the square that is cut from its
    middle, 0 for all of it. damage: from the clean picture. part: ``first``, ``tuned on`` or ``kept out``. faded:
    whether contrast does not count.
    """

    name: str
    source: str
    side: int
    damage: Damage
    part: str = "first"
    faded: bool = False
    seed: int = 0

    def clean(self, data_root: Path | None) -> np.ndarray:
        """(C, H, W) in [0, 1]."""
        values = self._values(data_root)
        side = self.side or max(values.shape)
        top, left = ((length - min(side, length)) // 2 for length in values.shape[:2])
        return np.ascontiguousarray(values[top : top + side, left : left + side].transpose(2, 0, 1), np.float32)

    def _values(self, data_root: Path | None) -> np.ndarray:
        import skimage.data

        if self.source.endswith(".png"):
            folder = find_data(data_root, "denoising/CBSD68", "the pictures of CBSD68", argument="--data-root")
            return read_image("--data-root", folder / self.source, channels=3)
        values = np.asarray(getattr(skimage.data, self.source)())
        return (values[:, :, None] if values.ndim == 2 else values[:, :, :3]) / np.float32(255)


def low_light(photons: float, read: float, gamma: float = GAMMA, quality: int | None = None) -> Damage:
    """Few photons and the noise of reading them, in linear light; then the curve of a camera, and perhaps JPEG."""

    def damage(clean: np.ndarray, draw: np.random.Generator) -> Damaged:
        light = draw.poisson(photons * clean.astype(np.float64) ** gamma) / photons
        light += read * draw.standard_normal(clean.shape)
        values = light.clip(0, 1) ** (1 / gamma)
        found = Damaged(stored(values), Noise(), "noise") if quality is None else in_jpeg(0, quality, values, draw)
        return dataclasses.replace(found, noise="poisson" if gamma == 1.0 else "low-light")

    return damage


def moved(length: float, angle: float, noise: float, *, known: bool) -> Damage:
    """A camera that moved; noise in grey levels."""
    return blurred(motion_kernel(length, angle), noise, known=known)


def blurred(kernel: torch.Tensor, noise: float, *, known: bool = True) -> Damage:
    """A scene blurred; what lies beyond the border is its mirror image."""

    def damage(clean: np.ndarray, draw: np.random.Generator) -> Damaged:
        operator = blur(kernel, sides(clean), boundary="symmetric")
        y = operator.A(torch.from_numpy(clean)[None])[0].numpy() + noise / 255 * draw.standard_normal(clean.shape)
        how = Blurred("the kernel", kernel) if known else Unknown()
        return Damaged(stored(y), how, "blur", kernel=kernel.numpy())

    return damage


def scratched(lines: int, width: float, noise: float) -> Damage:
    """White lines in all directions, with a mask; noise in grey levels."""

    def damage(clean: np.ndarray, draw: np.random.Generator) -> Damaged:
        keep = ~drawn(sides(clean), lines, width, draw)
        y = clean + noise / 255 * draw.standard_normal(clean.shape)
        return Damaged(stored(np.where(keep, y, 1.0)), Masked(PATH, keep), "holes", keep)

    return damage


def drawn(shape: tuple[int, int], lines: int, width: float, draw: np.random.Generator) -> np.ndarray:
    """(H, W) of truth values, where straight lines are."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    found = np.zeros(shape, bool)
    for _ in range(lines):
        angle = draw.uniform(0, np.pi)
        row, column = (draw.uniform(0.1, 0.9) * length for length in shape)
        found |= np.abs((rows - row) * np.cos(angle) + (columns - column) * np.sin(angle)) < width / 2
    return found


def scanned(fade: float, soft: float, grain: float, level: float, *, find: bool = False) -> Damage:
    """An old print on a scanner: contrast lost, soft, coarse grain of ``level`` grey levels, dust and a hair."""

    def damage(clean: np.ndarray, draw: np.random.Generator) -> Damaged:
        y = 0.15 + fade * gaussian_filter(clean, (0, soft, soft))
        noise = gaussian_filter(draw.standard_normal(clean.shape[1:]), grain)  # silver has no colour
        y = y + level / 255 * noise / noise.std()
        rows, columns = np.mgrid[: clean.shape[1], : clean.shape[2]]
        for _ in range(clean[0].size // 3000):
            row, column = (draw.uniform(0, length) for length in clean.shape[1:])
            y = np.where(np.hypot(rows - row, columns - column) < draw.uniform(0.8, 2), 1.0, y)
        y = np.where(drawn(sides(clean), 3, 1.6, draw), 1.0, y)
        return Damaged(stored(y), Scratched() if find else Noise(), "noise")

    return damage


def reduced(factor: int, quality: int | None = None) -> Damage:
    """Too small, by a bicubic reduction, and perhaps a JPEG file since."""

    def damage(clean: np.ndarray, draw: np.random.Generator) -> Damaged:
        small = downsample(factor, sides(clean)).A(torch.from_numpy(clean)[None])[0].numpy()
        if quality is None:
            return Damaged(stored(small), Coarse(factor), "size", factor=factor)
        found = in_jpeg(0, quality, small, draw)
        rounded = by_the_file(found.picture)
        how = Coarse(factor) if rounded is None else Several(Coarse(factor), rounded)
        return dataclasses.replace(found, damage=how, tools="size", factor=factor)

    return damage


def noise_in_jpeg(sigma: float, quality: int) -> Damage:
    """White noise, then JPEG."""
    return lambda clean, draw: in_jpeg(sigma, quality, clean, draw)


FIRST = (
    Snapshot("noise 12, JPEG 50: astronaut", "astronaut", 320, noise_in_jpeg(12, 50)),
    Snapshot("low light, 20 photons: cat", "chelsea", 280, low_light(20, 0.02)),
    Snapshot("motion 13, known: coffee", "coffee", 320, moved(13, 25, 1, known=True)),
    Snapshot("motion 13, unknown: coffee", "coffee", 320, moved(13, 25, 1, known=False)),
    Snapshot("scratches, mask: astronaut", "astronaut", 0, scratched(12, 4, 0)),
    Snapshot("scratches, mask: cat", "chelsea", 0, scratched(12, 4, 0)),
    Snapshot("scratches, mask: cameraman", "camera", 0, scratched(12, 4, 0)),
    Snapshot("old scan: astronaut", "astronaut", 256, scanned(0.6, 0.8, 0.8, 10, find=True), faded=True),
    Snapshot("4 times too small: coffee", "coffee", 320, reduced(4)),
)
OWN = (
    Snapshot("street at night", "148089.png", 224, low_light(40, 0.02), "tuned on", seed=1),
    Snapshot("JPEG of a forum", "119082.png", 224, noise_in_jpeg(0, 20), "tuned on", seed=2),
    Snapshot("faded slide with dust", "24077.png", 224, scanned(0.7, 0.5, 0.9, 8, find=True), "tuned on", faded=True),
    Snapshot("page out of focus", "page", 190, blurred(gaussian_kernel(1.5), 2), "tuned on", seed=4),
    Snapshot("microscope, 30 photons", "immunohistochemistry", 224, low_light(30, 0.01, 1.0), "tuned on", seed=5),
    Snapshot("phone indoors", "189080.png", 224, low_light(80, 0.01, quality=85), "kept out", seed=6),
    Snapshot("shaky hand", "102061.png", 224, moved(11, 70, 2, known=True), "kept out", seed=7),
    Snapshot("torn print, noisy", "302008.png", 224, scratched(8, 3, 5), "kept out", seed=8),
    Snapshot("small picture of the web", "223061.png", 224, reduced(2, 75), "kept out", seed=9),
    Snapshot("telescope, 50 photons", "hubble_deep_field", 224, low_light(50, 0.02, 1.0), "kept out", seed=10),
)
SNAPSHOTS = FIRST + OWN
