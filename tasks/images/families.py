"""Image families as float32 tensors (N, C, H, W) in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .batches import fit
from .config import FAMILIES, DataConfig
from .patches import PHOTOS, draw_patches, load_pictures
from .sources import ImageSet, Raw, load_celeba, load_cifar10, load_faces, load_folder, load_mnist


def load_images(config: DataConfig, *, data_root: Path | None = None) -> ImageSet:
    """The family that the configuration names, at its size and number of channels.

    Errors: InputError where the data are missing or damaged.
    """
    if config.family.startswith("folder:"):
        raw = load_folder(Path(config.family.removeprefix("folder:")), config)
    else:
        loaders: dict[str, Callable[[DataConfig, Path | None], Raw]] = {
            "faces": load_faces,
            "celeba": load_celeba,
            "mnist": load_mnist,
            "cifar10": load_cifar10,
            "patches": load_patches,
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


def load_patches(config: DataConfig, data_root: Path | None) -> Raw:
    """Squares cut from the photographs that scikit-image ships; the test ones from a photograph of their own."""
    pictures = load_pictures("photos", config.channels)
    held = PHOTOS[config.channels].index("chelsea")
    sets = [[p for i, p in enumerate(pictures) if (i == held) is kept] for kept in (False, True)]
    shape = {"channels": config.channels, "size": config.size, "seed": 0}
    train, test = (draw_patches([s], batch=n, step=0, **shape) for s, n in zip(sets, (6000, 500), strict=True))
    return train, test, None, None
