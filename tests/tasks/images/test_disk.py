"""Pictures of one's own, in folders inside folders, read when they are needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jiio.tasks.frame.files import InputError
from jiio.tasks.images import disk
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.disk import OnDisk, on_disk
from jiio.tasks.images.families import load_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures in three folders, each of one grey, and what is not to be found."""
    for i, place in enumerate(["a/x", "a/y", "b", "a/x", "b", "b/c/d", "a", "b", "a/y", "b/c/d"]):
        path = tmp_path / "pics" / place / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30), 10 * i + 10, np.uint8)).save(path)
    hidden = tmp_path / "pics" / ".cache" / "h.png"
    hidden.parent.mkdir()
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(hidden)
    (tmp_path / "pics" / "notes.txt").write_text("no picture")
    return tmp_path / "pics"


def test_it_is_what_reading_everything_at_once_gives(folder):
    config = DataConfig(family=f"folder:{folder}", size=8, test_share=0.3)
    lazy, whole = on_disk(folder, config), load_images(config)
    assert len(lazy.train) == 7 and len(lazy.test) == 3
    assert torch.equal(lazy.train[:], whole.train) and torch.equal(lazy.test[:], whole.test)
    places = torch.tensor([5, 0, 5])
    assert torch.equal(lazy.train[places], whole.train[places])
    torch.testing.assert_close(lazy.train.mean(0), whole.train.mean(0))
    assert torch.equal(lazy.train.subset(places)[1:], whole.train[places][1:])  # type: ignore[attr-defined]


def test_no_more_is_held_than_there_is_room_for(folder, monkeypatch):
    monkeypatch.setattr(disk, "CACHE", 3 * 4 * 8 * 8)
    paths = sorted(folder.rglob("a/**/*.png"))
    images = OnDisk(paths, 8, 1)
    expected = images[:]
    assert len(images.read) == 3 and len(images) == 5
    assert torch.equal(images[torch.arange(5)], expected)


def test_a_picture_that_is_gone_is_one_sentence(folder):
    lazy = on_disk(folder, DataConfig(family=f"folder:{folder}", size=8))
    lazy.train.paths[3].unlink()  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"\.png"):
        lazy.train[:]


def test_a_folder_of_something_else_is_found_out_at_once(tmp_path):
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(InputError):
        on_disk(tmp_path, DataConfig(family=f"folder:{tmp_path}", size=8))
    with pytest.raises(InputError, match="a folder with pictures"):
        on_disk(tmp_path / "nothing", DataConfig(family="faces")) if (tmp_path / "nothing").mkdir() is None else None
