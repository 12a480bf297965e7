"""A family of images by its name, as float32 tensors (N, C, H, W) in [0, 1] at the size that is asked for."""

from __future__ import annotations

from pathlib import Path

from .batches import resized
from .config import FOLDER, DataConfig, offered
from .galleries import PHOTOS, load_pictures
from .patches import draw_patches
from .sources import AbstractFamily, Folder, ImageSet, Raw


def load_images(config: DataConfig, *, data_root: Path | None = None) -> ImageSet:
    """The family that the configuration names, at its size and number of channels.

    Errors: InputError where the data are missing or damaged.
    """
    train, test, train_labels, test_labels = find_family(config.family).load(config, data_root)
    a, b = config.train_limit, config.test_limit  # None keeps all
    return ImageSet(
        resized(train[:a], config.size, config.channels),
        resized(test[:b], config.size, config.channels),
        None if train_labels is None else train_labels[:a],
        None if test_labels is None else test_labels[:b],
    )


def find_family(name: str, argument: str = "data.family") -> AbstractFamily:
    """What ``folder:PATH``, a name that the rooms offer, or ``package.module:Name`` stands for.

    Errors: ConfigError.
    """
    if name.startswith(FOLDER):
        return Folder(Path(name.removeprefix(FOLDER)))
    return offered(argument, name, kind="family")


class Patches(AbstractFamily):
    """Squares cut from the photographs that scikit-image ships; the test ones from a photograph of their own."""

    def load(self, config: DataConfig, data_root: Path | None) -> Raw:
        pictures = load_pictures("photos", config.channels)
        held = PHOTOS[config.channels].index("chelsea")
        sets = [[p for i, p in enumerate(pictures) if (i == held) is kept] for kept in (False, True)]
        shape = {"channels": config.channels, "size": config.size, "seed": 0}
        train, test = (draw_patches([s], batch=n, step=0, **shape) for s, n in zip(sets, (6000, 500), strict=True))
        return Raw(train, test)
