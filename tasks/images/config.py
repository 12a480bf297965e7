"""Which images a training or an evaluation reads, and how."""

from __future__ import annotations

from dataclasses import dataclass

from jiio.checks import check_integer, check_number, describe, fail
from jiio.tasks.frame.config import whole
from jiio.tasks.frame.load import ConfigError, nearest

FAMILIES = ("faces", "celeba", "mnist", "cifar10", "patches")


@dataclass(frozen=True)
class DataConfig:
    """Images.

    Args:
        family: faces, celeba, mnist, cifar10, patches (of photographs, offline), or folder:PATH
        size: height and width in pixels after resizing
        channels: 1 (grey) or 3 (colour)
        batch_size: images per training step
        mirror: mirror training images at random
        shift: shift training images by up to so many pixels
        test_share: of a folder, the share of the images (the last ones) that is kept for testing
        train_limit: use only the first so many training images
        test_limit: use only the first so many test images
    """

    family: str = "faces"
    size: int = 24
    channels: int = 1
    batch_size: int = 16
    mirror: bool = True
    shift: int = 1
    test_share: float = 0.2
    train_limit: int | None = None
    test_limit: int | None = None

    def __post_init__(self) -> None:
        if not self.family.startswith("folder:") and self.family not in FAMILIES:
            remedy = nearest(self.family, (*FAMILIES, "folder:PATH"))
            fail("data.family", "a family of images", describe(self.family), remedy, ConfigError)
        whole("data.size", self.size, 8, 512)
        check_number("data.test_share", self.test_share, 0.0, 1.0)
        if self.channels not in (1, 3):
            fail("data.channels", "1 (grey) or 3 (colour)", self.channels)
        whole("data.batch_size", self.batch_size, 1, 65_536)
        if check_integer("data.shift", self.shift, 0) >= self.size:
            fail("data.shift", f"fewer pixels than data.size = {self.size}", self.shift)
        for name in ("train_limit", "test_limit"):
            if getattr(self, name) is not None:
                check_integer(f"data.{name}", getattr(self, name), 1)
