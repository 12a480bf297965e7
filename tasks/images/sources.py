"""What a family of images is, the families that are read from files, and where their files are.

They are looked for in the folder that ``--data-root`` or the environment variable JIIO_DATA names; what is missing, and
what to do about it, is said in one sentence.
"""

from __future__ import annotations

import gzip
import math
import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor

from jiio.checks import fail
from jiio.tasks.frame.files import InputError, read_bytes, read_image, reason

from .batches import resized
from .config import DataConfig
from .formats import suffixes

if TYPE_CHECKING:
    import numpy as np

OFFLINE = "or use the faces, which ship with scikit-image."


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one family at one size.

    train, test: (N, C, H, W) float32 in [0, 1]. The labels (N,) are None where the family has none.
    """

    train: Tensor
    test: Tensor
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None

    @property
    def classes(self) -> Tensor:
        """The labels (N,) of the training images, zeros where they have none."""
        none = torch.zeros(len(self.train), dtype=torch.int64, device="cpu")
        return none if self.train_labels is None else self.train_labels

    def part(self, chosen: Tensor) -> ImageSet:
        """With these of the training images alone, by their numbers (n,)."""
        labels = None if self.train_labels is None else self.train_labels[chosen]
        subset = getattr(self.train, "subset", None)  # of pictures that stay on the disk
        return replace(self, train=self.train[chosen] if subset is None else subset(chosen), train_labels=labels)


class Raw(NamedTuple):
    """What a family has, at the size and with the channels that it comes with; otherwise as :class:`ImageSet`."""

    train: Tensor
    test: Tensor
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None


@dataclass(frozen=True)
class AbstractFamily(ABC):
    """Images that belong together, those to train on and those to test on; a configuration names one of the classes.

    labelled: whether every image has a label. apart: whether no class of the test images occurs among the training
    images, as in sets for learning to learn.
    """

    labelled: ClassVar[bool] = False
    apart: ClassVar[bool] = False

    @abstractmethod
    def load(self, config: DataConfig, data_root: Path | None) -> Raw:
        """Read them; what comes is resized afterwards, and only a family that must resize looks at ``config``.

        Errors: InputError where the data are missing or damaged.
        """


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


class Faces(AbstractFamily):
    """100 small grey faces that ship with scikit-image."""

    def load(self, config: DataConfig, data_root: Path | None) -> Raw:
        from skimage.data import lfw_subset

        faces = torch.from_numpy(lfw_subset()[:100, :24, :24]).float()[:, None]  # the other 100 are not faces; 25 x 25
        return Raw(faces[:80], faces[80:])


class CelebA(AbstractFamily):
    """The first 1000 photographs of the set, the last 100 of them for testing."""

    def load(self, config: DataConfig, data_root: Path | None) -> Raw:
        folder = find_data(data_root, "celeba_1000/img", "the CelebA images")
        images = _read_folder(folder, config, limit=1000)
        return Raw(images[:-100], images[-100:])


@dataclass(frozen=True)
class Folder(AbstractFamily):
    """The images of a folder in the order of their names, the last ones (``test_share``) for testing."""

    path: Path

    def load(self, config: DataConfig, data_root: Path | None) -> Raw:
        images = _read_folder(self.path, config)
        kept = len(images) - math.ceil(config.test_share * len(images))
        return Raw(images[:kept], images[kept:])


def image_files(argument: str, folder: Path) -> list[Path]:
    """The pictures in a folder and in the folders inside it, by name; hidden files and folders are left alone.

    Errors: InputError where there are none.
    """
    if not folder.is_dir():
        fail(argument, "a folder of pictures", f"{folder}, which is not a folder", error=InputError)
    inside = (p for p in folder.rglob("*") if p.suffix.lower() in suffixes() and p.is_file())
    paths = sorted(p for p in inside if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    if not paths:
        fail(argument, "a folder with pictures", f"{folder} without any", f"Fill it, {OFFLINE}", InputError)
    return paths


def _read_folder(folder: Path, config: DataConfig, limit: int | None = None) -> Tensor:
    """(N, C, size, size): of every picture the square in the middle, resized at once so that the large ones can go."""
    paths = image_files("data.family", folder)[:limit]
    return torch.cat([read_square(path, config.size, config.channels) for path in paths])


def read_square(path: Path, size: int, channels: int) -> Tensor:
    """The square in the middle of a picture, (1, channels, size, size)."""
    pixels = torch.from_numpy(read_image("data.family", path, channels=channels)).permute(2, 0, 1)[None]
    side = min(pixels.shape[2:])
    top, left = (pixels.shape[2] - side) // 2, (pixels.shape[3] - side) // 2
    return resized(pixels[:, :, top : top + side, left : left + side], size, channels)


class Mnist(AbstractFamily):
    """Handwritten digits, 28 x 28."""

    labelled = True

    def load(self, config: DataConfig, data_root: Path | None) -> Raw:
        folder = find_data(data_root, "MNIST/raw", "the four MNIST files")
        train, test = (_read_idx(folder / f"{part}-images-idx3-ubyte") for part in ("train", "t10k"))
        train_labels, test_labels = (_read_idx(folder / f"{part}-labels-idx1-ubyte") for part in ("train", "t10k"))
        return Raw(_unit(train[:, None]), _unit(test[:, None]), _long(train_labels), _long(test_labels))


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


class Cifar10(AbstractFamily):
    """Small photographs of ten kinds of things, 32 x 32 in colour."""

    labelled = True

    def load(self, config: DataConfig, data_root: Path | None) -> Raw:
        """From one npz file of images stored as differences modulo 256, which plain zip compression packs well."""
        import numpy as np

        path = find_data(data_root, "cifar10/cifar10_20k_10k.npz", "the CIFAR-10 images")
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                parts = {k: file[k] for k in ("train_delta", "train_label", "test_delta", "test_label")}
        except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise InputError(f"data.family: {path} is not a whole CIFAR-10 file ({reason(error)}).") from error

        # Sums along both sides undo the differences; then red and blue, which are stored relative to green.
        images = []
        for key in ("train_delta", "test_delta"):
            x = parts[key].cumsum(2, dtype=np.uint8).cumsum(3, dtype=np.uint8)
            x[:, ::2] += x[:, 1:2]
            images.append(_unit(x))
        return Raw(images[0], images[1], _long(parts["train_label"]), _long(parts["test_label"]))


class Cifar10Full(AbstractFamily):
    """All 60,000 photographs of the set as its authors publish it in binary, ``cifar-10-batches-bin``."""

    labelled = True

    def load(self, config: DataConfig, data_root: Path | None) -> Raw:
        folder = find_data(data_root, "cifar-10-batches-bin", "the six files of CIFAR-10 in binary")
        train = [_cifar_batch(folder / f"data_batch_{i}.bin") for i in range(1, 6)]
        images, labels = (torch.cat(parts) for parts in zip(*train, strict=True))
        test, test_labels = _cifar_batch(folder / "test_batch.bin")
        return Raw(images, test, labels, test_labels)


def _cifar_batch(path: Path) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 32, 32) and labels (n,): records of a label and 3,072 bytes, plane by plane."""
    import numpy as np

    data = np.frombuffer(read_bytes("data.family", path, "a file of CIFAR-10", 100 << 20), np.uint8)
    if not len(data) or len(data) % 3073:
        came = f"{path} with {len(data)} bytes"
        fail("data.family", "a file of records of 3,073 bytes", came, "Fetch it again.", InputError)
    records = data.reshape(-1, 3073)
    if records[:, 0].max() > 9:
        fail("data.family", "labels from 0 to 9", f"{path} with {records[:, 0].max()}", "Fetch it again.", InputError)
    return _unit(records[:, 1:].reshape(-1, 3, 32, 32)), _long(records[:, 0])


def _unit(pixels: np.ndarray) -> Tensor:
    """Bytes as float32 in [0, 1]."""
    return torch.tensor(pixels).float().div_(255.0)


def _long(labels: np.ndarray) -> Tensor:
    """Labels (N,) int64, which losses want."""
    return torch.tensor(labels).long()
