"""Image families as float32 tensors (N, C, H, W) in [0, 1], and batches that are pure functions of (seed, step).

`faces` and `patches` ship with scikit-image and need nothing. The others are looked for in the folder that
``--data-root`` or the environment variable JIIO_DATA names; what is missing, and what to do about it, is said in one
sentence.
"""

from __future__ import annotations

import functools
import gzip
import math
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio.checks import fail
from tasks.config import FAMILIES, DataConfig
from tasks.files import InputError, read_bytes, read_image, reason
from tasks.seeds import generator

if TYPE_CHECKING:
    import numpy as np

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
OFFLINE = "or use the faces, which ship with scikit-image."


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one family.

    train, test: (N, C, H, W) float32 in [0, 1]. The labels (N,) are None where the family has none.
    """

    train: Tensor
    test: Tensor
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None


Raw = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


def find_data(data_root: Path | None, inside: str, what: str, *, argument: str = "data.family") -> Path:
    """The file or folder ``inside`` the data root: ``data_root`` first, then JIIO_DATA. argument: for messages."""
    named = data_root or (Path(os.environ["JIIO_DATA"]) if os.environ.get("JIIO_DATA") else None)
    if named is None:
        came = "no folder to look in"
        fail(argument, f"{what} in {inside}", came, f"Pass --data-root or set JIIO_DATA, {OFFLINE}", InputError)
    path = named / inside
    if not path.exists():
        remedy = f"Put the data there, name another folder by --data-root or JIIO_DATA, {OFFLINE}"
        fail(argument, what, f"no {path}", remedy, InputError)
    return path


def load_images(config: DataConfig, *, data_root: Path | None = None) -> ImageSet:
    """The family that the configuration names, at its size and number of channels.

    Errors: InputError where the data are missing or damaged.
    """
    if config.family.startswith("folder:"):
        raw = _load_folder(Path(config.family.removeprefix("folder:")), config)
    else:
        loaders: dict[str, Callable[[DataConfig, Path | None], Raw]] = {
            "faces": _load_faces,
            "celeba": _load_celeba,
            "mnist": _load_mnist,
            "cifar10": _load_cifar10,
            "patches": _load_patches,
        }
        assert set(loaders) == set(FAMILIES)
        raw = loaders[config.family](config, data_root)
    train, test, train_labels, test_labels = raw
    a, b = config.train_limit, config.test_limit  # None keeps all
    return ImageSet(
        fit(train[:a], config.size, config.channels),
        fit(test[:b], config.size, config.channels),
        None if train_labels is None else train_labels[:a],
        None if test_labels is None else test_labels[:b],
    )


def fit(images: Tensor, size: int, channels: int) -> Tensor:
    """Images (N, c, h, w) resized to size x size (bicubic, antialiased) with the given number of channels."""
    if channels == 1 and images.shape[1] == 3:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # ITU-R BT.601, as Pillow's own grey
        images = (images * weights).sum(1, keepdim=True)
    if images.shape[2:] != (size, size):
        images = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp(0.0, 1.0)
    return images.expand(-1, channels, -1, -1).contiguous()


def _load_faces(config: DataConfig, data_root: Path | None) -> Raw:
    from skimage.data import lfw_subset

    faces = torch.from_numpy(lfw_subset()[:100, :24, :24]).float()[:, None]  # the other 100 are not faces; 25 x 25
    return faces[:80], faces[80:], None, None


def _load_patches(config: DataConfig, data_root: Path | None) -> Raw:
    """Squares cut from the photographs that scikit-image ships; the test ones from a photograph of their own."""
    from tasks.patches import PHOTOS, draw_patches, load_pictures

    pictures = load_pictures("photos", config.channels)
    held = PHOTOS[config.channels].index("chelsea")
    sets = [[p for i, p in enumerate(pictures) if (i == held) is kept] for kept in (False, True)]
    shape = {"channels": config.channels, "size": config.size, "seed": 0}
    train, test = (draw_patches([s], batch=n, step=0, **shape) for s, n in zip(sets, (6000, 500), strict=True))
    return train, test, None, None


def _load_celeba(config: DataConfig, data_root: Path | None) -> Raw:
    folder = find_data(data_root, "celeba_1000/img", "the CelebA images")
    images = _read_folder(folder, config, limit=1000)
    return images[:-100], images[-100:], None, None


def _load_folder(folder: Path, config: DataConfig) -> Raw:
    """The images in the order of their names, the last ones (``test_share``) for testing."""
    images = _read_folder(folder, config)
    kept = len(images) - math.ceil(config.test_share * len(images))
    return images[:kept], images[kept:], None, None


def image_files(argument: str, folder: Path) -> list[Path]:
    """The pictures directly inside a folder, by name; hidden files are left alone.

    Errors: InputError where there are none.
    """
    if not folder.is_dir():
        fail(argument, "a folder of pictures", f"{folder}, which is not a folder", error=InputError)
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    if not paths:
        fail(argument, "a folder with pictures", f"{folder} without any", f"Fill it, {OFFLINE}", InputError)
    return paths


def _read_folder(folder: Path, config: DataConfig, limit: int | None = None) -> Tensor:
    images = []
    for path in image_files("data.family", folder)[:limit]:
        pixels = torch.from_numpy(read_image("data.family", path, channels=config.channels)).permute(2, 0, 1)[None]
        side = min(pixels.shape[2:])
        top, left = (pixels.shape[2] - side) // 2, (pixels.shape[3] - side) // 2
        images.append(fit(pixels[:, :, top : top + side, left : left + side], config.size, config.channels))
    return torch.cat(images)


def _load_mnist(config: DataConfig, data_root: Path | None) -> Raw:
    folder = find_data(data_root, "MNIST/raw", "the four MNIST files")
    train, train_labels = _read_idx(folder / "train-images-idx3-ubyte"), _read_idx(folder / "train-labels-idx1-ubyte")
    test, test_labels = _read_idx(folder / "t10k-images-idx3-ubyte"), _read_idx(folder / "t10k-labels-idx1-ubyte")
    return _unit(train[:, None]), _unit(test[:, None]), _long(train_labels), _long(test_labels)


def _read_idx(path: Path) -> np.ndarray:
    """An array in LeCun's idx format, packed with gzip or not."""
    import numpy as np

    packed = path.with_name(path.name + ".gz")
    path = packed if packed.exists() else path
    data = read_bytes("data.family", path, "an MNIST file", 100 << 20)
    try:
        data = gzip.decompress(data) if path == packed else data
        dimensions = data[3]
        shape = np.frombuffer(data, ">i4", dimensions, 4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise InputError(f"data.family: {path} is not a whole MNIST file ({reason(error)}). Fetch it again.") from error


def _load_cifar10(config: DataConfig, data_root: Path | None) -> Raw:
    """One npz file of images stored as differences modulo 256, which plain zip compression packs well."""
    import numpy as np

    path = find_data(data_root, "cifar10/cifar10_20k_10k.npz", "the CIFAR-10 images")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            parts = {k: file[k] for k in ("train_delta", "train_label", "test_delta", "test_label")}
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"data.family: {path} is not a whole CIFAR-10 file ({reason(error)}).") from error
    images = []
    for key in ("train_delta", "test_delta"):
        x = parts[key].cumsum(2, dtype=np.uint8).cumsum(3, dtype=np.uint8)
        x[:, ::2] += x[:, 1:2]
        images.append(_unit(x))
    return images[0], images[1], _long(parts["train_label"]), _long(parts["test_label"])


def _unit(pixels: np.ndarray) -> Tensor:
    return torch.tensor(pixels).float().div_(255.0)


def _long(labels: np.ndarray) -> Tensor:
    return torch.tensor(labels).long()


@functools.lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, "order", epoch))


def batch_indices(count: int, batch_size: int, *, seed: int, step: int) -> Tensor:
    """Which of ``count`` images make up the batch of this step: (batch_size,), a pure function of (seed, step).

    Every epoch is a fresh permutation of all images; a batch may begin in one epoch and end in the next.
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    return torch.stack([_order(count, seed, place // count)[place % count] for place in places])


def training_batch(images: Tensor, config: DataConfig, *, seed: int, step: int) -> Tensor:
    """The images (B, C, H, W) of one training step, mirrored and shifted at random as the configuration asks."""
    if len(images) == 0:
        fail("data", "at least one training image", "none", "Lower data.test_share.", InputError)
    chosen = images[batch_indices(len(images), config.batch_size, seed=seed, step=step)]
    return augment(chosen, config, generator=generator(seed, "augment", step))


def augment(images: Tensor, config: DataConfig, *, generator: torch.Generator) -> Tensor:
    """Each image mirrored with chance one half and shifted by up to ``config.shift`` pixels, its edge repeated."""
    batch, _, height, width = images.shape
    if config.mirror:
        flip = torch.rand(batch, 1, 1, 1, generator=generator) < 0.5
        images = torch.where(flip, images.flip(3), images)
    if config.shift > 0:
        moves = torch.randint(2 * config.shift + 1, (batch, 2), generator=generator).tolist()
        padded = F.pad(images, (config.shift,) * 4, mode="replicate")
        images = torch.stack([one[:, y : y + height, x : x + width] for one, (y, x) in zip(padded, moves, strict=True)])
    return images
