"""Episodes for learning to learn: N classes, K labelled images of each to adapt to, and others to be measured on.

Classes of training and of testing are disjoint. An episode is a pure function of (seed, purpose, number).
"""

from __future__ import annotations

import functools
import importlib
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio.checks import check_number, describe, fail
from jiio.outputs.seeds import generator
from jiio.tasks.frame.config import whole
from jiio.tasks.frame.files import InputError, read_image, reason
from jiio.tasks.frame.load import ConfigError, nearest
from jiio.tasks.images.batches import fit
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.families import load_images
from jiio.tasks.images.sources import IMAGE_SUFFIXES, find_data

from .glyphs import glyphs

SETS = ("glyphs", "omniglot", "mnist", "cifar10")


@dataclass(frozen=True)
class EpisodeConfig:
    """Episodes.

    Args:
        family: glyphs (offline), omniglot, mnist, cifar10, or folder:PATH with a folder inside for each class
        size: height and width in pixels after resizing
        channels: 1 (grey) or 3 (colour)
        ways: classes in a training episode
        shots: labelled images of each class to adapt to
        queries: images of each class to be measured on
        batch_size: episodes per training step
        turn: in training, a class turned by a quarter, a half and three quarters counts as three more classes
        test_share: where a set has no test classes of its own, the share of the classes (the last ones) that is kept
    """

    family: str = "glyphs"
    size: int = 28
    channels: int = 1
    ways: int = 5
    shots: int = 1
    queries: int = 5
    batch_size: int = 8
    turn: bool = True
    test_share: float = 0.3

    def __post_init__(self) -> None:
        if not self.family.startswith("folder:") and self.family not in SETS:
            remedy = nearest(self.family, (*SETS, "folder:PATH"))
            fail("data.family", "a labelled set of images", describe(self.family), remedy, ConfigError)
        whole("data.size", self.size, 8, 256)
        if self.channels not in (1, 3):
            fail("data.channels", "1 (grey) or 3 (colour)", self.channels)
        whole("data.ways", self.ways, 2, 1000)
        whole("data.shots", self.shots, 1, 1000)
        whole("data.queries", self.queries, 1, 1000)
        whole("data.batch_size", self.batch_size, 1, 65_536)
        check_number("data.test_share", self.test_share, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Classes:
    """Images by class. images: (N, C, H, W) float32 in [0, 1]. members: for every class, which images are of it."""

    images: Tensor
    members: list[Tensor]

    @classmethod
    def of(cls, images: Tensor, labels: Tensor) -> Classes:
        """From a label (N,) for every image."""
        order = labels.argsort(stable=True)
        counts = labels.unique(return_counts=True)[1].tolist()
        return cls(images, list(order.split(counts)))

    def check(self, ways: int, images: int, argument: str) -> None:
        """Raise where episodes of so many classes, with so many images of each, cannot be drawn."""
        if len(self.members) < ways:
            fail(argument, f"at least {ways} classes", f"{len(self.members)}", "Lower the number of ways.", InputError)
        least = min(len(m) for m in self.members)
        if least < images:
            remedy = "Lower shots or queries."
            fail(argument, f"at least {images} images of every class", f"one with {least}", remedy, InputError)

    def draw(
        self, tasks: int, *, ways: int, shots: int, queries: int, source: torch.Generator, turn: bool = False
    ) -> Episodes:
        """Episodes with distinct classes and distinct images."""
        each = shots + queries
        chosen = []
        for _ in range(tasks):
            for kind in torch.randperm(len(self.members), generator=source)[:ways].tolist():
                among = self.members[kind]
                images = self.images[among[torch.randperm(len(among), generator=source)[:each]]]
                quarter = int(torch.randint(4, (), generator=source)) if turn else 0
                chosen.append(images.rot90(quarter, (2, 3)))
        images = torch.stack(chosen).unflatten(0, (tasks, ways))  # (B, ways, each, C, H, W)
        return Episodes(images[:, :, :shots].flatten(1, 2), images[:, :, shots:].flatten(1, 2), ways)


@dataclass(frozen=True, eq=False)
class Episodes:
    """A batch of tasks.

    support: (B, ways * shots, C, H, W), class by class. query: (B, ways * queries, C, H, W), likewise.
    """

    support: Tensor
    query: Tensor
    ways: int

    def labels(self, images: Tensor) -> Tensor:
        """(M,) the class of each image of ``support`` or ``query``, from 0."""
        return torch.arange(self.ways, device=images.device).repeat_interleave(images.shape[1] // self.ways)

    def to(self, device: torch.device | str) -> Episodes:
        return Episodes(self.support.to(device), self.query.to(device), self.ways)


def load_classes(config: EpisodeConfig, *, data_root: Path | None = None) -> tuple[Classes, Classes]:
    """The training and the test classes of the set that the configuration names.

    Errors: InputError where the data are missing or damaged.
    """
    if config.family == "glyphs":
        train, train_labels, test, test_labels = glyphs()
        parts = (train, train_labels), (test, test_labels)
    elif config.family == "omniglot":
        parts = tuple(_omniglot(part, data_root) for part in ("background", "evaluation"))  # type: ignore[assignment]
    elif config.family.startswith("folder:"):
        parts = _split(*_folder(Path(config.family.removeprefix("folder:")), config), config.test_share)
    else:  # the same classes in training and test images: the last ones are kept for testing
        size = 28 if config.family == "mnist" else 32
        data = DataConfig(family=config.family, size=size, channels=config.channels)
        found = load_images(data, data_root=data_root)
        assert found.train_labels is not None
        parts = _split(found.train, found.train_labels, max(config.test_share, 0.5))
    (train, train_labels), (test, test_labels) = parts
    return (
        Classes.of(fit(train, config.size, config.channels), train_labels),
        Classes.of(fit(test, config.size, config.channels), test_labels),
    )


def _split(images: Tensor, labels: Tensor, share: float) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    kinds = int(labels.max()) + 1
    kept = labels < kinds - round(share * kinds)
    return (images[kept], labels[kept]), (images[~kept], labels[~kept])


def _folder(folder: Path, config: EpisodeConfig) -> tuple[Tensor, Tensor]:
    """One class for each folder inside, in the order of their names."""
    if not folder.is_dir():
        came = f"{folder}, which is not a folder"
        fail("data.family", "folder:PATH with a folder for each class", came, error=InputError)
    images, labels = [], []
    kinds = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    for label, kind in enumerate(kinds):
        for path in sorted(p for p in kind.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
            pixels = torch.from_numpy(read_image("data.family", path, channels=config.channels)).permute(2, 0, 1)[None]
            images.append(fit(pixels, config.size, config.channels))
            labels.append(label)
    if not images:
        remedy = "Put the images of each class into a folder of their own."
        fail("data.family", "folders with images inside", f"{folder} without any", remedy, InputError)
    return torch.cat(images), torch.tensor(labels)


@functools.lru_cache(maxsize=2)
def _omniglot(part: str, data_root: Path | None) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 28, 28) with ink 1, and labels (N,): packed under the data root, else by torchvision."""
    import numpy as np

    named = data_root or (Path(os.environ["JIIO_DATA"]) if os.environ.get("JIIO_DATA") else None)
    packed = None if named is None else named / "omniglot" / f"images_{part}.npz"
    if packed is None or not packed.exists():
        return _torchvision_omniglot(part, data_root)
    try:
        with packed.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            bits, labels = file["bits"], torch.from_numpy(file["label"].astype(np.int64))
        ink = torch.from_numpy(np.unpackbits(bits, axis=1, count=105 * 105)).view(-1, 1, 105, 105)
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"data.family: {packed} is not a whole Omniglot file ({reason(error)}).") from error
    return _shrink(ink), labels


def _torchvision_omniglot(part: str, data_root: Path | None) -> tuple[Tensor, Tensor]:
    """As torchvision keeps it, fetched where it is not there yet."""
    folder = find_data(data_root, "", "the Omniglot images (torchvision fetches them into this folder)")
    try:
        # By name: the extra may be missing where types are checked.
        sets, functional = (importlib.import_module(f"torchvision.{n}") for n in ("datasets", "transforms.functional"))
    except ImportError as error:
        words = "data.family: Omniglot is not in the data folder, and torchvision, which could fetch it, is missing."
        raise InputError(f"{words} Install jiio[vision], or use the glyphs, which need nothing.") from error
    try:
        found = sets.Omniglot(str(folder), background=part == "background", download=True)
        pairs = [(255 - functional.pil_to_tensor(image), label) for image, label in found]
    except (OSError, RuntimeError) as error:
        words = f"data.family: torchvision could not fetch Omniglot into {folder} ({reason(error)})."
        raise InputError(f"{words} Fetch it where there is a network, or use the glyphs, which need none.") from error
    ink = torch.stack([image for image, _ in pairs]) > 127
    return _shrink(ink), torch.tensor([label for _, label in pairs])


def _shrink(ink: Tensor) -> Tensor:
    """(N, 1, 105, 105) of 0 and 1 -> (N, 1, 28, 28) in [0, 1], each pixel the mean over its area."""
    parts = [F.adaptive_avg_pool2d(part.float(), 28) for part in ink.split(2000)]
    return (1.5 * torch.cat(parts)).clamp_max(1.0)  # thin strokes: an area is never full of ink


def episodes(
    classes: Classes, config: EpisodeConfig, *, seed: int, purpose: str, number: int, tasks: int, turn: bool
) -> Episodes:
    """The episodes of one step."""
    source = generator(seed, "episodes", purpose, number)
    return classes.draw(tasks, ways=config.ways, shots=config.shots, queries=config.queries, source=source, turn=turn)
