"""Families and galleries as choices: every name, a class of one's own, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jiio import tasks
from jiio.checks import JiioError
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.guards import InputError
from jiio.tasks.frame.load import ConfigError, build
from jiio.tasks.frame.registry import TABLE, fetch
from jiio.tasks.generate.task import GenerateConfig
from jiio.tasks.images.config import DataConfig, check_source
from jiio.tasks.images.families import find_family, load_images
from jiio.tasks.images.galleries import AbstractGallery, load_pictures
from jiio.tasks.images.sources import AbstractFamily, Folder
from jiio.tasks.meta.episodes import EpisodeConfig, load_classes

OFFLINE = ("faces", "patches", "glyphs")
OWN = """
import torch
from jiio.tasks.images.galleries import AbstractGallery
from jiio.tasks.images.sources import AbstractFamily, Raw


class Stripes(AbstractFamily):
    labelled = True

    def load(self, config, data_root):
        images = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 1, 8, 8) / 12
        return Raw(images, images[:3], torch.arange(12) // 2, torch.arange(3) // 2)


class Bare(AbstractFamily):
    def load(self, config, data_root):
        return Raw(torch.zeros(4, 3, 8, 8), torch.zeros(2, 3, 8, 8))


class Needy(Stripes):
    def __init__(self, size):
        self.size = size


class Walls(AbstractGallery):
    def load(self, channels, data_root):
        return [torch.full((channels, 20, 30), 7, dtype=torch.uint8)]


class Stranger:
    pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an importable module with families of its own."""
    (tmp_path / "own_families.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_families", raising=False)
    return "own_families"


@pytest.mark.parametrize("name", TABLE["family"])
def test_every_family_says_truly_whether_it_has_labels(name: str, request: pytest.FixtureRequest) -> None:
    root = None if name in OFFLINE else request.getfixturevalue("data_root")
    family = find_family(name)
    try:
        raw = family.load(DataConfig(name, size=16), root)
    except InputError as error:  # the data of CIFAR-10 come in two packings, of which mostly one is there
        assert name not in OFFLINE
        pytest.skip(str(error))
    assert isinstance(family, AbstractFamily) and len(raw.train) and len(raw.test)
    assert family.labelled == (raw.train_labels is not None) == (raw.test_labels is not None)
    if raw.train_labels is not None:
        assert len(raw.train_labels) == len(raw.train)
    assert family.labelled or not family.apart


@pytest.mark.parametrize("name", TABLE["gallery"])
def test_every_gallery_gives_bytes(name: str, request: pytest.FixtureRequest) -> None:
    root = None if name == "photos" else request.getfixturevalue("data_root")
    assert issubclass(fetch(TABLE["gallery"][name]), AbstractGallery)
    pictures = load_pictures(name, 1, data_root=root)
    assert pictures[0].dtype == torch.uint8 and pictures[0].shape[0] == 1


def test_sets_for_learning_to_learn_are_families_like_any_other() -> None:
    images = load_images(DataConfig("glyphs", size=20, channels=3, train_limit=9, test_limit=4))
    assert images.train.shape == (9, 3, 20, 20) and images.test.shape == (4, 3, 20, 20)


@pytest.mark.parametrize("by", ["path", "room"])
def test_a_family_of_ones_own(by: str, own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its import path, or by a name that an installed room offers."""
    name = f"{own}:Stripes"
    if by == "room":
        monkeypatch.setitem(TABLE["family"], "stripes", name)
        name = "stripes"
    images = load_images(DataConfig(name, size=16, channels=3, train_limit=5))
    assert images.train.shape == (5, 3, 16, 16) and images.train_labels is not None
    assert images.train[:, 0, 0, 0].tolist() == pytest.approx([i / 12 for i in range(5)])
    train, test = load_classes(EpisodeConfig(name, size=8, test_share=0.1))  # six classes; half of them kept at least
    assert len(train.members) == len(test.members) == 3


def test_a_training_on_a_family_of_ones_own_resumes_and_a_stranger_is_asked(own: str, tmp_path: Path) -> None:
    """A resume names the family itself; who merely opens the checkpoint has named nothing, and nothing is imported."""
    cell = {"name": "Dense", "options": {"features": 6}}
    values = {"task": "generate", "output": str(tmp_path / "run"), "steps": 2, "checkpoint_every": 1}
    values |= {"data": {"family": f"{own}:Stripes", "size": 8, "batch_size": 2}, "model": {"cell": cell, "latent": 2}}
    tasks.train(build(GenerateConfig, values))
    for path in (tmp_path / "run").iterdir():  # as if it had been interrupted after its first step
        if path.name not in ("step-00000001.safetensors", "log.jsonl"):
            path.unlink()
    assert load(tmp_path / "run", allow=[own]).step == 1
    assert tasks.train(build(GenerateConfig, values), resume=True).step == 2
    config = load(tmp_path / "run", allow=[own]).config
    assert isinstance(config, GenerateConfig) and config.data.family == f"{own}:Stripes"
    with pytest.raises(JiioError, match=rf"{own}:Stripes.*--allow"):
        load(tmp_path / "run")


def test_a_gallery_of_ones_own(own: str) -> None:
    check_source("data.families", f"{own}:Walls", kind="gallery", what="a gallery")
    assert load_pictures(f"{own}:Walls", 3)[0].shape == (3, 20, 30)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Stripe", "Stripe"),
        ("Stranger", "AbstractFamily"),
        ("Walls", "AbstractFamily"),
        ("Needy", "cannot be built without options"),
    ],
)
def test_a_class_that_is_no_family_is_refused_at_once(name: str, words: str, own: str) -> None:
    for config in (DataConfig, EpisodeConfig):
        with pytest.raises(ConfigError, match=words) as error:
            config(f"{own}:{name}")
        assert str(error.value).startswith("data.family") and "\n" not in str(error.value)


def test_a_module_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"data\.family.*no_such_package"):
        DataConfig("no_such_package.module:Name")


def test_episodes_want_labels(own: str) -> None:
    for name in (f"{own}:Bare", "celeba", "patches"):
        with pytest.raises(ConfigError, match=r"data\.family: expected a labelled set of images"):
            EpisodeConfig(name)
    with pytest.raises(ConfigError, match="Valid: cifar10, cifar10-full, folder:PATH, glyphs, mnist, omniglot, usps"):
        EpisodeConfig("nothing like any")


def test_a_folder_comes_before_an_import_path(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    for i in range(5):
        Image.fromarray(np.full((12, 12), 40 * i, np.uint8)).save(folder / f"{i}.png")
    assert find_family(f"folder:{folder}") == Folder(folder)
    assert len(load_images(DataConfig(f"folder:{folder}", size=8)).train) == 4
    assert len(load_pictures(f"folder:{folder}", 1)) == 5
    with pytest.raises(JiioError, match="not a folder"):
        load_images(DataConfig("folder:os.path:join"))
