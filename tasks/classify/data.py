"""Labelled images for classification, float32 in [0, 1], and the batches of a training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from jiio.checks import check_integer, describe, fail
from jiio.outputs.seeds import derive, generator
from jiio.outputs.shares import rows
from jiio.tasks.frame.config import whole
from jiio.tasks.frame.load import ConfigError, nearest
from jiio.tasks.images.batches import augment, batch_indices, resident, resized
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.disk import classes_on_disk
from jiio.tasks.images.families import load_images
from jiio.tasks.images.sources import find_data

CLASSES = {"faces": 2, "mnist": 10, "cifar10": 10, "cifar10-full": 10, "imagenet": 1000, "usps": 10}
KEPT = 30  # of either kind of the 200 small pictures, for testing


@dataclass(frozen=True)
class ClassifyDataConfig:
    """Labelled images.

    Args:
        family: faces (faces and other pictures, offline), mnist, usps, cifar10 (a part), cifar10-full, imagenet
        size: height and width in pixels after resizing
        channels: 1 (grey) or 3 (colour)
        batch_size: images per training step
        mirror: mirror training images at random
        shift: shift training images by up to so many pixels
        train_limit: use only the first so many training images
        test_limit: use only the first so many test images
        labels: only the first so many training images have a label; the others are seen without, by what can use them
    """

    family: str = "faces"
    size: int = 24
    channels: int = 1
    batch_size: int = 32
    mirror: bool = False
    shift: int = 0
    train_limit: int | None = None
    test_limit: int | None = None
    labels: int | None = None

    def __post_init__(self) -> None:
        if self.family not in CLASSES:
            remedy = nearest(self.family, CLASSES)
            fail("data.family", "a family of labelled images", describe(self.family), remedy, ConfigError)
        whole("data.batch_size", self.batch_size, 1, 65_536)
        for name in ("train_limit", "test_limit", "labels"):
            if getattr(self, name) is not None:
                check_integer(f"data.{name}", getattr(self, name), 1)
        self.images()

    def images(self) -> DataConfig:
        """The same settings for :func:`jiio.tasks.images.families.load_images`."""
        return DataConfig(
            family="faces" if self.family == "imagenet" else self.family,  # the one that no other task has
            size=self.size,
            channels=self.channels,
            batch_size=self.batch_size,
            mirror=self.mirror,
            shift=self.shift,
            train_limit=self.train_limit,
            test_limit=self.test_limit,
        )

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return CLASSES[self.family]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: channels, height, width."""
        return self.channels, self.size, self.size


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images (N, C, H, W) with labels (N,) int64, for training and testing."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    def part(self, chosen: Tensor) -> Labelled:
        """With these of the training images alone, by their numbers (n,)."""
        there = chosen.to(self.train_labels.device)
        subset = getattr(self.train, "subset", None)  # of pictures that stay on the disk
        train = self.train[there] if subset is None else subset(chosen)
        return dataclasses.replace(self, train=train, train_labels=self.train_labels[there])

    def near(self, device: torch.device) -> Labelled:
        """With the training images on that device, where they are few enough: batches are made where they lie."""
        train = resident(self.train, device)
        there = train.device if isinstance(train, Tensor) else torch.device("cpu")
        return dataclasses.replace(self, train=train, train_labels=self.train_labels.to(there))


def load_labelled(config: ClassifyDataConfig, *, data_root: Path | None = None) -> Labelled:
    """The family that the configuration names.

    Errors: InputError where the data are missing or damaged.
    """
    if config.family == "faces":
        return _checked(_faces(config), config)
    if config.family == "imagenet":
        images = classes_on_disk(
            find_data(data_root, "imagenet", "ImageNet's folders"), config.images(), config.classes
        )
    else:
        images = load_images(config.images(), data_root=data_root)
    assert images.train_labels is not None and images.test_labels is not None
    return _checked(Labelled(images.train, images.train_labels, images.test, images.test_labels), config)


def _checked(data: Labelled, config: ClassifyDataConfig) -> Labelled:
    if config.labels is not None and config.labels >= len(data.train):
        remedy = "Leave it out where every image has a label."
        fail("data.labels", f"fewer than the {len(data.train)} training images", config.labels, remedy, ConfigError)
    return data


def _faces(config: ClassifyDataConfig) -> Labelled:
    """scikit-image's ``lfw_subset``: 100 faces (label 1), then 100 other pictures (label 0), 25 x 25.

    The two kinds alternate, so that any first part of them is balanced.
    """
    from skimage.data import lfw_subset

    pictures = torch.from_numpy(lfw_subset()).float()[:, None]
    pairs = torch.stack((pictures[:100], pictures[100:]), dim=1)  # (100, 2, 1, 25, 25)
    images = resized(pairs.flatten(0, 1), config.size, config.channels)
    labels = torch.tensor([1, 0]).repeat(100)
    cut, a, b = 200 - 2 * KEPT, config.train_limit, config.test_limit
    return Labelled(images[:cut][:a], labels[:cut][:a], images[cut:][:b], labels[cut:][:b])


def labelled_batch(data: Labelled, config: ClassifyDataConfig, *, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) and labels (B,) of one training step, a pure function of (seed, step)."""
    count = len(data.train) if config.labels is None else config.labels
    chosen = batch_indices(count, config.batch_size, seed=seed, step=step)[rows(config.batch_size)]
    images = augment(data.train[chosen], config.images(), generator=generator(seed, "augment", step))
    return images, data.train_labels[chosen]


def unlabelled_batch(
    data: Labelled, config: ClassifyDataConfig, *, seed: int, step: int, device: torch.device
) -> Tensor | None:
    """As many images whose labels nobody looks at; None where all have one."""
    if config.labels is None:
        return None
    rest = len(data.train) - config.labels
    own = derive(seed, "unlabelled")
    chosen = config.labels + batch_indices(rest, config.batch_size, seed=own, step=step)[rows(config.batch_size)]
    return augment(data.train[chosen], config.images(), generator=generator(own, "augment", step)).to(device)


def in_batches(data: Labelled, size: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """The test images in order, in parts of at most ``size``."""
    places = range(0, len(data.test), size)
    parts = ((data.test[i : i + size], data.test_labels[i : i + size]) for i in places)
    return [(x.to(device), y.to(device)) for x, y in parts]
