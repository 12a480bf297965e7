"""One writer a folder: other processes and threads are refused, and a holder that dies lets go."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jiio import JiioError
from jiio.outputs import lock
from jiio.outputs.lock import NAME, InUseError, LockError, locked

HOLD = """
import sys, time
from pathlib import Path
from jiio.outputs.lock import locked

with locked(Path(sys.argv[1]), "output"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(folder: Path, seconds: float) -> subprocess.Popen:
    """Another process that holds the folder; returns when it does."""
    words = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def refused(folder: Path) -> bool:
    try:
        with locked(folder, "output"):
            return False
    except InUseError:
        return True


def test_a_second_holder_is_told_which_folder_and_what_to_do(tmp_path):
    folder = tmp_path / "run"
    with locked(folder, "output"):
        before = sorted(os.listdir(folder))
        with (
            pytest.raises(
                InUseError, match=re.escape(f"output: expected a folder that nobody else writes into, got {folder}")
            ) as said,
            locked(folder, "output"),
        ):
            pass
        assert "another folder" in str(said.value) and isinstance(said.value, JiioError)
        assert sorted(os.listdir(folder)) == before == [NAME]
        assert refused(folder / ".." / "run")  # by another name
    assert not refused(folder)


def test_nothing_is_left_of_a_lock_that_nobody_wrote_under(tmp_path):
    with locked(tmp_path / "a" / "b", "output"):
        pass
    assert list(tmp_path.iterdir()) == []

    with locked(tmp_path / "a" / "b", "output"):
        (tmp_path / "a" / "b" / "figures").write_text("1")
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["figures"]


def test_an_error_inside_lets_go(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked(tmp_path, "output"):
        raise KeyboardInterrupt
    assert not refused(tmp_path)


def test_another_process_is_refused_and_a_killed_holder_lets_go(tmp_path):
    process = holder(tmp_path, 60)
    assert refused(tmp_path)
    assert NAME in os.listdir(tmp_path)
    process.kill()
    process.communicate()
    assert not refused(tmp_path)
    assert os.listdir(tmp_path) == []


def test_threads_of_one_process_are_refused(tmp_path):
    answers = []
    with locked(tmp_path, "output"):
        thread = threading.Thread(target=lambda: answers.append(refused(tmp_path)))
        thread.start()
        thread.join()
    assert answers == [True]


def test_threads_are_refused_where_flock_is_a_lock_of_the_process(tmp_path, monkeypatch):
    """As on NFS, where the second thread would get the lock, and drop the first one's by closing its file."""
    monkeypatch.setattr(lock, "_lock", lambda handle: None)
    with locked(tmp_path, "output"):
        assert refused(tmp_path)
    assert not refused(tmp_path)


TAKE_TURNS = """
import sys, threading, time
from pathlib import Path
from jiio.outputs.lock import InUseError, locked

folder, turns = Path(sys.argv[1]), []

def take():
    ends = time.monotonic() + 1.5
    while time.monotonic() < ends:
        try:
            with locked(folder, "output"):
                (folder / "inside").open("x").close()
                turns.append(1)
                (folder / "inside").unlink()
        except InUseError:
            pass

print("ready", flush=True)
sys.stdin.read()
threads = [threading.Thread(target=take) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(turns))
"""


def test_never_two_at_once_although_file_and_folder_vanish_each_time(tmp_path):
    """Two threads in each of three processes; whoever meets another one inside dies of FileExistsError, and says so."""
    folder = tmp_path / "above" / "run"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", TAKE_TURNS, str(folder)], **pipes) for _ in range(3)]
    assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * 3
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    answers = [process.communicate() for process in processes]
    assert [errors for _, errors in answers] == ["", "", ""]
    assert sum(int(turns) for turns, _ in answers) > 30
    assert not folder.exists() or os.listdir(folder) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads
def test_a_child_by_fork_neither_holds_nor_frees_the_lock(tmp_path):
    folder = tmp_path / "run"
    with locked(folder, "output"):
        child = os.fork()
        if child == 0:
            os._exit(10 + refused(folder))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 11
        assert refused(folder)


HOLD_AND_FORK = """
import os, sys, time
from pathlib import Path
from jiio.outputs.lock import locked

with locked(Path(sys.argv[1]), "output"):
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)  # it has let go of what it inherited by now
    time.sleep(60)
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_holder_lets_go_although_its_child_lives(tmp_path):
    words = [sys.executable, "-W", "ignore", "-c", HOLD_AND_FORK, str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert refused(tmp_path)
        process.kill()
        process.wait()
        assert not refused(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_a_file_of_that_name_with_something_inside_stays(tmp_path):
    (tmp_path / NAME).write_text("mine")
    with locked(tmp_path, "output"):
        assert refused(tmp_path)
    assert (tmp_path / NAME).read_text() == "mine"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_a_sentence(tmp_path, monkeypatch, number):
    def cannot(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock, "_lock", cannot)
    words = f"^output: .*{tmp_path}/run .{os.strerror(number)}.*Name one"
    with pytest.raises(LockError, match=words) as said, locked(tmp_path / "run", "output"):
        pass
    assert isinstance(said.value, JiioError)


@pytest.mark.parametrize("kind", ["a file", "under a file", "link to nowhere", "lock is a folder", "lock is a link"])
def test_a_place_that_is_no_folder_is_a_sentence_and_stays(tmp_path, kind):
    place = tmp_path / "place"
    if kind in ("a file", "under a file"):
        place.write_text("mine")
        place = place / "deeper" if kind == "under a file" else place
    elif kind == "link to nowhere":
        place.symlink_to(tmp_path / "nowhere")
    elif kind == "lock is a folder":
        (place / NAME).mkdir(parents=True)
    else:
        place.mkdir()
        (place / NAME).symlink_to(tmp_path / "other")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(LockError, match="output: expected a folder"), locked(place, "output"):
        pass
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
