"""Whole files, whoever writes beside: threads of one process, which share its number, and readers all the while."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from jiio.outputs import atomic
from jiio.outputs.atomic import PART, remove_parts, write_whole


def test_two_writers_with_one_process_number_never_show_half_a_file(tmp_path):
    """Every read sees one of the two contents, never none, never a mixture; and nobody's rename fails."""
    path, size = tmp_path / "file", 300_000
    contents = [bytes([letter]) * size for letter in b"ab"]
    write_whole(path, contents[0])
    ends, errors, seen = time.monotonic() + 1.5, [], set()

    def writer(data: bytes) -> None:
        try:
            while time.monotonic() < ends:
                write_whole(path, data)
        except OSError as error:
            errors.append(error)

    def reader() -> None:
        while time.monotonic() < ends:
            seen.add(path.read_bytes())

    writers = [threading.Thread(target=writer, args=(data,)) for data in (*contents, *contents)]
    threads = [*writers, threading.Thread(target=reader)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert seen <= set(contents) and len(seen) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_no_two_temporary_names_of_one_process_are_equal(tmp_path, monkeypatch):
    """The names that the writer gives, whatever the number of the process (in containers all have the same)."""
    names = []
    monkeypatch.setattr(os, "getpid", lambda: 7)
    monkeypatch.setattr(os, "replace", lambda part, path: names.append(Path(part).name))
    for _ in range(200):
        write_whole(tmp_path / "file", b"x")
        (tmp_path / names[-1]).unlink()
    assert len(set(names)) == 200 and all(PART.fullmatch(name) for name in names)


def test_a_temporary_name_that_is_taken_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda count: "0" * 2 * count)
    taken = tmp_path / f".file.{os.getpid()}-00000000.jiio-part"
    taken.write_bytes(b"another writer's")
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "file", b"x")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    write_whole(tmp_path / "file", b"old")
    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "file", b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"old"}


def test_only_ours_and_only_those_asked_for_are_removed(tmp_path):
    ours = [".log.jsonl.12-0123abcd.jiio-part", ".step-00000005.safetensors.1-ffffffff.jiio-part"]
    others = [
        *(".thesis.part", ".other.123.part", "x.12-0123abcd.jiio-part", ".a.jiio-part", ".a.12-0123ABCD.jiio-part"),
        *(".a.12-0123abcd.jiio-part.bak", ".a.-0123abcd.jiio-part", "file"),
    ]
    figures = ".figures.json.12-0123abcd.jiio-part"  # an evaluation at work in the folder of a training
    for name in (*ours, *others, figures):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".folder.12-0123abcd.jiio-part").mkdir()

    remove_parts(tmp_path, "log.jsonl", "step-*.safetensors")
    assert {p.name for p in tmp_path.iterdir()} == {*others, figures, ".folder.12-0123abcd.jiio-part"}
    remove_parts(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {*others, ".folder.12-0123abcd.jiio-part"}
