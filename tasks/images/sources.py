"""The files of each image family, and how they are read.

They are looked for in the folder that ``--data-root`` or the environment variable JIIO_DATA names; what is missing, and
what to do about it, is said in one sentence.
"""

from __future__ import annotations

import gzip
import math
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jiio.checks import fail
from jiio.tasks.frame.files import InputError, read_bytes, read_image, reason

from .batches import fit
from .config import DataConfig

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


def load_faces(config: DataConfig, data_root: Path | None) -> Raw:
    from skimage.data import lfw_subset

    faces = torch.from_numpy(lfw_subset()[:100, :24, :24]).float()[:, None]  # the other 100 are not faces; 25 x 25
    return faces[:80], faces[80:], None, None


def load_celeba(config: DataConfig, data_root: Path | None) -> Raw:
    folder = find_data(data_root, "celeba_1000/img", "the CelebA images")
    images = _read_folder(folder, config, limit=1000)
    return images[:-100], images[-100:], None, None


def load_folder(folder: Path, config: DataConfig) -> Raw:
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


def load_mnist(config: DataConfig, data_root: Path | None) -> Raw:
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


def load_cifar10(config: DataConfig, data_root: Path | None) -> Raw:
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
