"""Galleries: pictures of their own size, larger than the patches that are cut from them, by the name of a gallery."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from jiio.tasks.frame.files import read_image

from .batches import resized
from .config import FOLDER, DataConfig, offered
from .sources import Cifar10, find_data, image_files

# Photographs that come with scikit-image; the names are those of skimage.data.
PHOTOS = {3: ("astronaut", "chelsea", "coffee", "rocket"), 1: ("astronaut", "brick", "chelsea", "coffee", "grass")}
CELEBA_TRAIN = 900  # the rest are the test images of the family


def load_pictures(gallery: str, channels: int, *, data_root: Path | None = None) -> list[Tensor]:
    """The pictures of a gallery as uint8 (C, H, W).

    gallery: photos, train400, celeba, cifar10, ``folder:PATH``, or ``package.module:Name``. A grey one that is asked
    for in colour comes grey, (1, H, W): see :func:`jiio.tasks.images.patches.tint`.

    Errors: InputError where the data are missing or damaged, ConfigError where there is no such gallery.
    """
    if gallery.startswith(FOLDER):
        return read_pictures(Path(gallery.removeprefix(FOLDER)), channels)
    return offered("data.families", gallery, kind="gallery").load(channels, data_root)


def read_pictures(folder: Path, channels: int, *, limit: int | None = None) -> list[Tensor]:
    """The pictures of a folder in the order of their names, uint8 (C, H, W); only the first so many."""
    paths = image_files("data.families", folder)[:limit]
    arrays = [read_image("data.families", path, channels=channels) for path in paths]
    return [torch.from_numpy(a * 255).round().to(torch.uint8).permute(2, 0, 1) for a in arrays]


@dataclass(frozen=True)
class AbstractGallery(ABC):
    """Pictures that belong together; a configuration names one of the classes."""

    @abstractmethod
    def load(self, channels: int, data_root: Path | None) -> list[Tensor]:
        """The pictures as uint8 (C, H, W), grey (1) or in colour (3), to train on.

        Errors: InputError where the data are missing or damaged.
        """


class Photographs(AbstractGallery):
    """A handful that ships with scikit-image."""

    def load(self, channels: int, data_root: Path | None) -> list[Tensor]:
        import skimage.data
        from skimage.color import rgb2gray

        pictures = [getattr(skimage.data, name)() for name in PHOTOS[channels]]
        if channels == 1:
            pictures = [p if p.ndim == 2 else (rgb2gray(p) * 255).round() for p in pictures]
        return [torch.from_numpy(p).to(torch.uint8).view(*p.shape[:2], -1).permute(2, 0, 1) for p in pictures]


class Train400(AbstractGallery):
    """The grey pictures of 180 x 180 that denoisers are trained on in the literature."""

    def load(self, channels: int, data_root: Path | None) -> list[Tensor]:
        return read_pictures(find_data(data_root, "denoising/Train400", "the train400 pictures"), 1)


class CelebAPictures(AbstractGallery):
    """The training images of the family, whole."""

    def load(self, channels: int, data_root: Path | None) -> list[Tensor]:
        folder = find_data(data_root, "celeba_1000/img", "the celeba pictures")
        return read_pictures(folder, channels, limit=CELEBA_TRAIN)


class Cifar10Pictures(AbstractGallery):
    """The training images of the family."""

    def load(self, channels: int, data_root: Path | None) -> list[Tensor]:
        config = DataConfig("cifar10", 32, channels)
        images = resized(Cifar10().load(config, data_root).train, 32, channels)
        return list((images * 255).round().to(torch.uint8))
