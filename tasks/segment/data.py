"""Images with a class for every pixel: which there are, how they are had, and the batches of a training.

A mask has 255 where a pixel has no class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from jiio.checks import check_integer, check_number, describe, fail
from jiio.models.layers import check_sizes
from jiio.outputs.seeds import generator
from jiio.outputs.shares import drawn, rows
from jiio.tasks.frame.config import whole
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.load import ConfigError, nearest
from jiio.tasks.images.batches import batch_indices
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.families import load_images
from jiio.tasks.images.sources import OFFLINE

from .folders import CITYSCAPES, IGNORED, Pair, cityscapes_pairs, folder_pairs, read_pairs
from .scenes import OBJECTS, SHAPES, digits_at, render, shape_at

NAMES = {
    "scenes": ("background", *SHAPES),
    "mnist": ("background", *(str(digit) for digit in range(10))),
    "cityscapes": CITYSCAPES,
}
RENDERED = 4000, 500  # scenes for training and testing
DIGIT = 28


@dataclass(frozen=True)
class SegmentDataConfig:
    """Images and their masks.

    Args:
        family: scenes (rendered shapes, offline), mnist (digits on textures), cityscapes, or folder:PATH with images/
            and masks/ of the same names
        size: height and width in pixels
        channels: 1 (grey) or 3 (colour)
        classes: of a folder, how many classes its masks have, numbered from 0
        ignore: of a folder, the number in its masks that means no class
        batch_size: images per training step
        mirror: mirror training images at random
        test_share: of a folder, the share of the images (the last ones) that is kept for testing
        train_limit: use only the first so many training images
        test_limit: use only the first so many test images
    """

    family: str = "scenes"
    size: tuple[int, ...] = (32, 32)
    channels: int = 3
    classes: int | None = None
    ignore: int = IGNORED
    batch_size: int = 16
    mirror: bool = True
    test_share: float = 0.2
    train_limit: int | None = None
    test_limit: int | None = None

    def __post_init__(self) -> None:
        if not self.folder and self.family not in NAMES:
            remedy = nearest(self.family, (*NAMES, "folder:PATH"))
            fail("data.family", "a family of images with masks", describe(self.family), remedy, ConfigError)
        for side in check_sizes("data.size", self.size, 2):
            whole("data.size", side, DIGIT if self.family == "mnist" else 8, 2048)
        if self.channels not in (1, 3):
            fail("data.channels", "1 (grey) or 3 (colour)", self.channels)
        self._check_classes()
        whole("data.batch_size", self.batch_size, 1, 65_536)
        check_number("data.test_share", self.test_share, 0.0, 1.0)
        for name in ("train_limit", "test_limit"):
            if getattr(self, name) is not None:
                check_integer(f"data.{name}", getattr(self, name), 1)

    def _check_classes(self) -> None:
        """A folder says how many classes it has, and a family of ours knows."""
        if self.folder and self.classes is None:
            remedy = "Say how many classes its masks have, for example --data.classes 21."
            fail("data.classes", "a number for a folder", "none", remedy, ConfigError)
        if not self.folder and self.classes is not None:
            fail("data.classes", f"none for {self.family}", f"{self.classes}", error=ConfigError)
        if self.classes is not None:
            whole("data.classes", self.classes, 2, 255)
        whole("data.ignore", self.ignore, 0, 255)
        if self.classes is not None and self.ignore < self.classes:
            fail("data.ignore", f"a number that is no class, from {self.classes}", f"{self.ignore}", error=ConfigError)

    @property
    def folder(self) -> bool:
        """Whether it is a folder of one's own."""
        return self.family.startswith("folder:")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return tuple(f"class {i}" for i in range(self.classes)) if self.classes else NAMES[self.family]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: channels, height, width."""
        return self.channels, self.size[0], self.size[1]


@dataclass(frozen=True, eq=False)
class Segmented:
    """Images (N, C, H, W) and masks (N, H, W), both uint8, for training and testing."""

    train: Tensor
    train_masks: Tensor
    test: Tensor
    test_masks: Tensor


def load_segmented(config: SegmentDataConfig, *, data_root: Path | None = None) -> Segmented:
    """The family that the configuration names.

    Errors: InputError where the data are missing or damaged, or a side has no image.
    """
    if config.family in ("scenes", "mnist"):
        return _rendered(config, data_root)
    if config.family == "cityscapes":
        train, test, classes = cityscapes_pairs(data_root)
        ignored = None
    else:
        train, test = _divided(folder_pairs(Path(config.family.removeprefix("folder:"))), config.test_share)
        classes, ignored = {i: i for i in range(len(config.names))}, config.ignore

    # Decoding is what takes long: only what is used is read.
    parts = train[: config.train_limit], test[: config.test_limit]
    read = [read_pairs(part, config.shape, classes, ignored=ignored) for part in parts]
    for kind, (_, masks) in zip(("training", "test"), read, strict=True):
        if not bool((masks != IGNORED).any()):
            came = f"{len(masks)} {kind} masks without any"
            fail("data.family", "masks in which some pixel has a class", came, error=InputError)
    return Segmented(*read[0], *read[1])


def _divided(pairs: list[Pair], test_share: float) -> tuple[list[Pair], list[Pair]]:
    """The pairs for training, and the last ones, at least that share of them, for testing."""
    kept = len(pairs) - math.ceil(test_share * len(pairs))
    if not 0 < kept < len(pairs):
        came = f"{kept} and {len(pairs) - kept} of {len(pairs)}"
        remedy = "Change data.test_share, or add pictures."
        fail("data.family", "pictures for training and for testing", came, remedy, InputError)
    return pairs[:kept], pairs[kept:]


def _rendered(config: SegmentDataConfig, data_root: Path | None) -> Segmented:
    """Scenes of shapes, or of digits, which are larger, so that there are at most two of them."""
    if config.family == "scenes":
        drawers, objects = [shape_at, shape_at], OBJECTS
    else:
        drawers, objects = [digits_at(*images) for images in _digits(data_root)], 2

    limits = config.train_limit, config.test_limit
    counts = [n if limit is None else min(n, limit) for n, limit in zip(RENDERED, limits, strict=True)]
    # Training and test scenes have random numbers of their own, named by the purpose.
    train, test = (
        render(n, config.shape, purpose, draw=draw, objects=objects)
        for n, purpose, draw in zip(counts, ("train", "test"), drawers, strict=True)
    )
    return Segmented(*train, *test)


def _digits(data_root: Path | None) -> list[tuple[Tensor, Tensor]]:
    """Images (N, 1, 28, 28) and labels (N,) of MNIST, for training and testing."""
    try:
        digits = load_images(DataConfig("mnist", DIGIT, 1), data_root=data_root)
    except InputError as error:
        raise InputError(str(error).replace(OFFLINE, "or use the scenes, which are rendered.")) from error
    assert digits.train_labels is not None and digits.test_labels is not None
    return [(digits.train, digits.train_labels), (digits.test, digits.test_labels)]


def image_labels(masks: Tensor, classes: int) -> Tensor:
    """The class of each image (B,): that which covers most of its mask (B, H, W), class 0 only where nothing else is
    there; the first of equals; :data:`IGNORED` where no pixel has a class.
    """
    counts = torch.stack([(masks == k).flatten(1).sum(1) for k in range(classes)], 1).double()
    counts[:, 0].clamp_(max=0.5)
    return torch.where(counts.sum(1) > 0, counts.argmax(1), IGNORED)


def segmented_batch(
    data: Segmented, config: SegmentDataConfig, *, seed: int, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, C, H, W), masks (B, H, W) and labels (B,) of one training step, a pure function of (seed, step)."""
    chosen = batch_indices(len(data.train), config.batch_size, seed=seed, step=step)[rows(config.batch_size)]
    images, masks = data.train[chosen], data.train_masks[chosen]
    if config.mirror:
        source = generator(seed, "mirror", step)
        flip = drawn(lambda n: torch.rand(n, generator=source), len(chosen)) < 0.5
        images = torch.where(flip[:, None, None, None], images.flip(3), images)
        masks = torch.where(flip[:, None, None], masks.flip(2), masks)
    return images.float() / 255.0, masks.long(), image_labels(masks, len(config.names))
