"""Episodes for learning to learn: N classes, K labelled images of each to adapt to, and others to be measured on.

Here: their settings, where the classes come from (a family of images, or a folder of folders), and how episodes are
drawn from them. Classes of training and of testing are disjoint. An episode is a pure function of (seed, purpose,
number).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from jiio.checks import check_number, describe, fail
from jiio.outputs.seeds import generator
from jiio.outputs.shares import rows
from jiio.tasks.frame.config import whole
from jiio.tasks.frame.files import InputError, read_image
from jiio.tasks.frame.load import ConfigError, nearest
from jiio.tasks.frame.registry import TABLE, fetch
from jiio.tasks.images.batches import resized
from jiio.tasks.images.config import FOLDER, DataConfig, check_source
from jiio.tasks.images.families import find_family
from jiio.tasks.images.formats import suffixes
from jiio.tasks.images.sources import Raw

Parts = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]  # images (N, C, H, W), labels (N,): to train, to test


@dataclass(frozen=True)
class EpisodeConfig:
    """Episodes.

    Args:
        family: with labels, such as glyphs (offline) or omniglot, see docs/meta.md; folder:PATH with a folder for each
            class; or package.module:Name of one's own
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
        check_labelled("data.family", self.family)
        whole("data.size", self.size, 8, 256)
        if self.channels not in (1, 3):
            fail("data.channels", "1 (grey) or 3 (colour)", self.channels)

        # What an episode holds; the upper bounds catch a slip of the hand.
        whole("data.ways", self.ways, 2, 1000)
        whole("data.shots", self.shots, 1, 1000)
        whole("data.queries", self.queries, 1, 1000)
        whole("data.batch_size", self.batch_size, 1, 65_536)
        check_number("data.test_share", self.test_share, 0.0, 1.0)


def check_labelled(argument: str, name: str) -> None:
    """A family whose images have labels, or a folder of folders.

    Errors: ConfigError.
    """
    what = "a labelled set of images"
    if name.startswith(FOLDER):
        return
    if name not in TABLE["family"] and ":" not in name:
        labelled = [known for known, path in TABLE["family"].items() if fetch(path).labelled]
        fail(argument, what, describe(name), nearest(name, (*labelled, f"{FOLDER}PATH")), ConfigError)
    check_source(argument, name, kind="family", what=what)
    if not find_family(name, argument).labelled:
        fail(argument, what, f"{name!r}, which has no labels", error=ConfigError)


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

    def of(self, tasks: slice) -> Episodes:
        """Some of the tasks."""
        return Episodes(self.support[tasks], self.query[tasks], self.ways)

    def to(self, device: torch.device | str) -> Episodes:
        return Episodes(self.support.to(device), self.query.to(device), self.ways)


def load_classes(config: EpisodeConfig, *, data_root: Path | None = None) -> tuple[Classes, Classes]:
    """The training and the test classes of the set that the configuration names.

    Errors: InputError where the data are missing or damaged.
    """
    if config.family.startswith(FOLDER):
        (train, train_labels), (test, test_labels) = of_folder(Path(config.family.removeprefix(FOLDER)), config)
    else:
        (train, train_labels), (test, test_labels) = of_family(config, data_root)
    return (
        Classes.of(resized(train, config.size, config.channels), train_labels),
        Classes.of(resized(test, config.size, config.channels), test_labels),
    )


def of_family(config: EpisodeConfig, data_root: Path | None) -> Parts:
    """The family's own two parts where their classes are apart; else its training images, the last classes kept."""
    family = find_family(config.family)
    found: Raw = family.load(DataConfig(config.family, config.size, config.channels), data_root)
    assert found.train_labels is not None and found.test_labels is not None
    if family.apart:
        return (found.train, found.train_labels), (found.test, found.test_labels)

    # Such sets have few classes, ten as a rule: fewer than half of them would be too few for a test.
    return by_class(found.train, found.train_labels, max(config.test_share, 0.5))


def by_class(images: Tensor, labels: Tensor, share: float) -> Parts:
    """Split so that a share of the classes, the last ones, is there to test on."""
    kinds = int(labels.max()) + 1
    kept = labels < kinds - round(share * kinds)
    return (images[kept], labels[kept]), (images[~kept], labels[~kept])


def of_folder(folder: Path, config: EpisodeConfig) -> Parts:
    """One class for each folder inside, in the order of their names; the last ones to test on."""
    if not folder.is_dir():
        came = f"{folder}, which is not a folder"
        fail("data.family", "folder:PATH with a folder for each class", came, error=InputError)

    # Resized one by one: whole photographs of many classes would not fit into memory.
    images, labels = [], []
    kinds = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    for label, kind in enumerate(kinds):
        for path in sorted(p for p in kind.iterdir() if p.suffix.lower() in suffixes()):
            pixels = torch.from_numpy(read_image("data.family", path, channels=config.channels)).permute(2, 0, 1)[None]
            images.append(resized(pixels, config.size, config.channels))
            labels.append(label)

    if not images:
        remedy = "Put the images of each class into a folder of their own."
        fail("data.family", "folders with images inside", f"{folder} without any", remedy, InputError)
    return by_class(torch.cat(images), torch.tensor(labels), config.test_share)


def episodes(
    classes: Classes, config: EpisodeConfig, *, seed: int, purpose: str, number: int, tasks: int, turn: bool
) -> Episodes:
    """The episodes of one step."""
    source = generator(seed, "episodes", purpose, number)
    drawn = classes.draw(tasks, ways=config.ways, shots=config.shots, queries=config.queries, source=source, turn=turn)
    return drawn.of(rows(tasks))
