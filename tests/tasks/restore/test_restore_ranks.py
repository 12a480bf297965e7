"""``jiio restore`` on a folder by several processes: each picture once, one list of all at the end."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from jiio.tasks.cli import main
from jiio.tasks.frame.post import Post
from jiio.tasks.frame.ranks import Ranks
from jiio.tasks.restore import load as loading
from jiio.tasks.restore.photos import run
from restore_cases import photo, toy, write


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "load_restorer", toy)
    monkeypatch.chdir(tmp_path)


def by(index: int, count: int, before: list, monkeypatch, *words: str) -> int:
    """One of the ranks, with what the others have told before it; the exit code."""

    class OneOfThem(Ranks):
        def gathered(self, value):
            before.append(value)
            return list(before)

    @contextlib.contextmanager
    def joined(device: str, patience):
        assert device == "cpu" and patience.days >= 1  # pictures differ in size
        yield OneOfThem(Post(index, count))

    monkeypatch.setattr(run, "joined", joined)
    return main(["restore", *words])


def test_pictures_are_divided_and_the_list_is_one(monkeypatch, capsys):
    for name in ("photos/a.png", "photos/c.png", "photos/d.png", "photos/e.png"):
        photo(name, height=24, width=24)
    write("photos/b.png", "no picture")
    write("photos/notes.txt", "left alone")
    told, said, codes = [], {}, {}
    for index in (2, 1, 0):  # the first one last, so that it hears what the others did
        codes[index] = by(index, 3, told, monkeypatch, "photos", "--sigma", "20")
        said[index] = capsys.readouterr()

    def done(index: int) -> list[str]:
        return [line.split(":")[0] for line in said[index].out.splitlines()]

    assert done(2) == ["photos/c.png"] and done(1) == ["photos/e.png"]
    assert done(0) == ["photos/a.png", "photos/d.png", "left out", "4 of 5 pictures restored by 3 processes"]
    assert "photos/b.png" in said[1].err and len(said[1].err.splitlines()) == 1
    assert sorted(p.name for p in Path("photos-restored").iterdir()) == ["a.png", "c.png", "d.png", "e.png"]
    assert codes == {2: 0, 1: 0, 0: 2}
    assert said[0].err.splitlines()[-1] == "jiio: pictures: 1 of 5 could not be restored (photos/b.png)."


def test_a_single_picture_is_the_work_of_one(monkeypatch, capsys):
    photo("a.png", height=24, width=24)
    for name, word in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, word)
    assert main(["restore", "a.png", "--sigma", "20"]) == 0
    assert capsys.readouterr().out == "" and not Path("a-restored.png").exists()
