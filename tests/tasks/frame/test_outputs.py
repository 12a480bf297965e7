"""What a command may write over: never what it was given, by whatever name, and else only where it is told so."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from jiio.checks import JiioError
from jiio.tasks.frame import outputs as places
from jiio.tasks.frame.outputs import OutputError, Outputs, of_checkpoint, real, write_new, write_together


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("set/deep/a.png", "w.safetensors", "other"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("old")
    Path("link").symlink_to("w.safetensors")
    Path("twice").hardlink_to("w.safetensors")
    Path("pic").hardlink_to("set/deep/a.png")
    Path("way").symlink_to("set")
    Path("loop").symlink_to("loop")
    return tmp_path


GIVEN = (Path("w.safetensors"), Path("set"))
NAMES = ["w.safetensors", "./set/../w.safetensors", "link", "twice", "set/deep/a.png", "way/deep/a.png", "pic"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_given_is_never_replaced(name, overwrite):
    with pytest.raises(JiioError, match=r"--json: expected another file than those given.*never overwritten"):
        Outputs(GIVEN, overwrite).file("--json", Path(name), lambda path: True)


@pytest.mark.parametrize("name", ["other", "loop"])
def test_other_files_are_replaced_where_it_is_asked_for(name):
    with pytest.raises(JiioError, match=rf"--json: expected a new file, got {name}, which exists. Pass --overwrite"):
        Outputs(GIVEN).file("--json", Path(name))
    assert Outputs(GIVEN, True).file("--json", Path(name)) == Path(name)
    assert Outputs(GIVEN).file("--json", Path(name), lambda path: True) == Path(name)
    assert Outputs(GIVEN).file("--json", Path("new/deep")) == Path("new/deep")


def test_a_folder_for_files_of_names_that_are_known():
    Path("site").mkdir()
    Path("site/index.html").write_text("mine")
    assert Outputs().folder("--output", Path("site"), ["a.png"]) == Path("site")
    with pytest.raises(JiioError, match=r"site/index\.html, which exists"):
        Outputs().folder("--output", Path("site"), ["a.png", "index.html"])
    Outputs().folder("--output", Path("site"), ["index.html"], ours=True)


def test_a_folder_for_files_of_names_that_are_not():
    assert Outputs(GIVEN).empty("--pictures", Path("new")) == Path("new")
    for overwrite in (False, True):
        with pytest.raises(JiioError, match="than that of what is given"):
            Outputs(GIVEN, overwrite).empty("--pictures", Path("."))
    Path("full").mkdir()
    Path("full/a").touch()
    with pytest.raises(JiioError, match="expected an empty folder"):
        Outputs(GIVEN).empty("--pictures", Path("full"))
    Outputs(GIVEN, True).empty("--pictures", Path("full"))


def test_the_files_of_a_training():
    Path("run").mkdir()
    for name in ("weights.safetensors", "log.jsonl", "samples.png"):
        Path("run", name).touch()
    assert {path.name for path in of_checkpoint(Path("run"))} == {"weights.safetensors", "log.jsonl"}
    assert of_checkpoint(Path("w.safetensors")) == (Path("w.safetensors"),)


def test_a_circle_of_links_is_a_path_like_any_other():
    assert real(Path("loop")).name == "loop"


def test_of_many_that_write_one_new_file_one_succeeds():
    start, done, failed = threading.Barrier(8), [], []

    def write(number: int) -> None:
        start.wait()
        try:
            write_new("--output", Path("same"), str(number).encode() * 1000, replace=False)
            done.append(number)
        except OutputError as error:
            failed.append(str(error))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1 and Path("same").read_text() == str(done[0]) * 1000
    assert len(failed) == 7 and all("appeared in the meantime" in text for text in failed)
    assert not list(Path().glob(".same*"))


def test_a_file_system_without_links(monkeypatch):
    def none(*arguments: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    write_new("--output", Path("fresh"), b"new", replace=False)
    assert Path("fresh").read_bytes() == b"new"
    with pytest.raises(OutputError, match="appeared in the meantime"):
        write_new("--output", Path("fresh"), b"newer", replace=False)
    assert Path("fresh").read_bytes() == b"new" and not list(Path().glob(".fresh*"))


def test_files_are_written_together_or_not_at_all(monkeypatch):
    write_together("--output", Path("fit"), {"a": b"1", "b": b"1"})
    whole = places.write_whole

    def full(path: Path, data: bytes) -> None:
        if path.name == "b":
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, data)

    monkeypatch.setattr(places, "write_whole", full)
    for folder in ("fit", "new"):
        with pytest.raises(OutputError, match=f"{folder} cannot be written to \\(No space left on device"):
            write_together("--output", Path(folder), {"a": b"2", "b": b"2"})
    assert {path.name: path.read_bytes() for path in Path("fit").iterdir()} == {"a": b"1", "b": b"1"}
    assert not Path("new").exists()
