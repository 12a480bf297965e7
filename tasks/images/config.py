"""Which images a training or an evaluation reads, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jiio.checks import check_integer, check_number, describe, fail
from jiio.tasks.frame.config import whole
from jiio.tasks.frame.load import ConfigError, nearest
from jiio.tasks.frame.registry import TABLE, look_up

FOLDER = "folder:"  # what stands before the path of a folder of one's own


def check_source(argument: str, name: str, *, kind: str, what: str) -> None:
    """What images may come from: ``folder:PATH``, a name that the rooms offer, or ``package.module:Name``.

    argument, what: the key and what it should be, for messages. kind: of the choices, ``family`` or ``gallery``.

    Errors: ConfigError. Whether a folder is there is found out when it is read.
    """
    if name.startswith(FOLDER) or name in TABLE[kind]:
        return
    if ":" in name:  # a class of somebody else's: it is made here, so that what is wrong with it is said at once
        offered(argument, name, kind=kind)
    else:
        fail(argument, what, describe(name), nearest(name, (*TABLE[kind], f"{FOLDER}PATH")), ConfigError)


def offered(argument: str, name: str, *, kind: str) -> Any:
    """An object of the class that a name or ``package.module:Name`` stands for; it takes no options.

    Errors: ConfigError.
    """
    cls = look_up(kind, name, argument)
    try:
        return cls()
    except TypeError as error:
        raise ConfigError(f"{argument}: {name} cannot be built without options, {error}.") from error


@dataclass(frozen=True)
class DataConfig:
    """Images.

    Args:
        family: such as faces (offline) or mnist, see docs/parts.md; folder:PATH; or one's own, package.module:Name
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
        check_source("data.family", self.family, kind="family", what="a family of images")
        whole("data.size", self.size, 8, 512)
        check_number("data.test_share", self.test_share, 0.0, 1.0)
        if self.channels not in (1, 3):
            fail("data.channels", "1 (grey) or 3 (colour)", self.channels)

        # A shift by the whole image would leave nothing but its edge.
        whole("data.batch_size", self.batch_size, 1, 65_536)
        if check_integer("data.shift", self.shift, 0) >= self.size:
            fail("data.shift", f"fewer pixels than data.size = {self.size}", self.shift)
        for name in ("train_limit", "test_limit"):
            if getattr(self, name) is not None:
                check_integer(f"data.{name}", getattr(self, name), 1)
