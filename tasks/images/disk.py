"""Images that are read when they are needed: a training on more pictures than the memory holds."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from jiio.checks import fail
from jiio.tasks.frame.files import InputError

from .config import DataConfig
from .sources import ImageSet, image_files, read_square

CACHE = 1 << 30  # bytes of small images that are kept: a set that fits is read once
MEAN_OF = 512  # images that a mean is taken over, evenly through the set


class OnDisk:
    """Pictures in files as images (N, C, size, size) float32 in [0, 1], of which any part can be had as a tensor."""

    def __init__(self, paths: Sequence[Path], size: int, channels: int) -> None:
        self.paths, self.image = list(paths), (channels, size, size)
        self.room = max(1, CACHE // (4 * channels * size * size))
        self.read: OrderedDict[Path, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, places: slice | Tensor) -> Tensor:
        """The images at these places, (n, C, size, size).

        Errors: InputError for a file that is no picture any more.
        """
        chosen = self.paths[places] if isinstance(places, slice) else [self.paths[i] for i in places.tolist()]
        return torch.cat([self._one(path) for path in chosen]) if chosen else torch.empty(0, *self.image)

    def subset(self, places: Tensor) -> OnDisk:
        """The images at these places, still on the disk."""
        return OnDisk([self.paths[i] for i in places.tolist()], self.image[1], self.image[0])

    def mean(self, dim: int = 0) -> Tensor:
        """The mean image (C, size, size)."""
        step = max(1, math.ceil(len(self) / MEAN_OF))
        return torch.stack([self._one(path)[0] for path in self.paths[::step]]).mean(0)

    def _one(self, path: Path) -> Tensor:
        """(1, C, size, size)."""
        if path not in self.read:
            self.read[path] = read_square(path, self.image[1], self.image[0])
            if len(self.read) > self.room:
                self.read.popitem(last=False)
        return self.read[path]


def on_disk(folder: Path, config: DataConfig) -> ImageSet:
    """The pictures in a folder and in those inside it, in the order of their names; the last ones for testing.

    The first one is read at once, so that a folder of something else is found out before a training begins.

    Errors: InputError.
    """
    paths = image_files("data.family", folder)
    kept = len(paths) - math.ceil(config.test_share * len(paths))
    parts = ((paths[:kept], config.train_limit), (paths[kept:], config.test_limit))
    train, test = (OnDisk(part[:limit], config.size, config.channels) for part, limit in parts)
    for part in (train, test):
        part[:1]
    return ImageSet(train, test)  # type: ignore[arg-type]


def classes_on_disk(root: Path, config: DataConfig, classes: int) -> ImageSet:
    """Pictures in one folder for each class, ``train/CLASS`` and ``val/CLASS``, the layout of ImageNet; the classes are
    numbered in the order of their names.

    Errors: InputError where a folder is missing, holds no picture, or there are more classes than ``classes``.
    """
    sets, labels, names = [], [], list[str]()
    for part, limit in (("train", config.train_limit), ("val", config.test_limit)):
        folder = root / part
        if not folder.is_dir():
            fail("data.family", f"a folder {part} with a folder for each class", f"no {folder}", error=InputError)
        names = names or sorted(path.name for path in folder.iterdir() if path.is_dir())
        if not 1 < len(names) <= classes:
            came = f"{len(names)} in {folder}"
            fail("data.family", f"at least 2 and at most {classes} folders, one for each class", came, error=InputError)

        # By class and then by name; a limit takes from everywhere.
        found = [(path, k) for k, name in enumerate(names) for path in image_files("data.family", folder / name)]
        if limit is not None and limit < len(found):
            found = [found[i * len(found) // limit] for i in range(limit)]
        sets.append(OnDisk([path for path, _ in found], config.size, config.channels))
        labels.append(torch.tensor([k for _, k in found], device="cpu"))
    return ImageSet(sets[0], sets[1], labels[0], labels[1])  # type: ignore[arg-type]
