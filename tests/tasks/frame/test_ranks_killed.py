"""Ranks that are killed, asked to stop, or not alone in their folder: what goes on ends in the same bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jiio.tasks.frame.checkpoint import load
from rank_cases import Started, begin, environment, said, write_recipe

pytestmark = pytest.mark.slow
BOUND = 300.0  # seconds in which whoever is left has to end, on a busy machine; half of what a rank would wait


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[[int], Path]:
    """The folder of a training by so many ranks, which nobody has disturbed."""
    done: dict[int, Path] = {}

    def trained(count: int) -> Path:
        if count not in done:
            folder = tmp_path_factory.mktemp("whole")
            with restoring(folder, count) as started:
                assert started.finish(300) == [0] * count, said(folder)
            done[count] = folder
        return done[count]

    return trained


def restoring(folder: Path, count: int) -> Started:
    """A training that saves often, or goes on with one."""
    if not (folder / "restore.yaml").exists():
        write_recipe("restore", folder, 40, every=4)
    return begin(count, ["train", "restore.yaml", "--output", "run", "--resume"], folder)


def until(folder: Path, lines: int, started: Started) -> None:
    """Until the log has so many lines, or a rank has ended."""
    log = folder / "run" / "log.jsonl"
    while all(p.poll() is None for p in started) and (not log.exists() or log.read_bytes().count(b"\n") < lines):
        time.sleep(0.002)


def assert_same(folder: Path, other: Path) -> None:
    """Weights, optimiser state, average and log are equal bit for bit."""
    for name in ("weights.safetensors", "step-00000040.safetensors"):
        a, b = load(folder / "run" / name), load(other / "run" / name)
        assert a.tensors.keys() == b.tensors.keys()
        assert all(t.equal(b.tensors[key]) for key, t in a.tensors.items())
    assert (folder / "run/log.jsonl").read_bytes() == (other / "run/log.jsonl").read_bytes()


@pytest.mark.parametrize("count", [2, 4])
def test_any_rank_may_be_killed_at_any_moment(count: int, tmp_path: Path, whole: Callable[[int], Path]) -> None:
    cut = tmp_path
    chance, lines, waited = random.Random(count), 0, []
    for victim in (0, count - 1, chance.randrange(count)):
        with restoring(cut, count) as started:
            lines += chance.randrange(3, 9)
            until(cut, lines, started)
            time.sleep(0.05 * chance.random())
            started[victim].send_signal(signal.SIGKILL)
            begun = time.monotonic()
            codes = started.finish(BOUND)
            waited.append(round(time.monotonic() - begun, 1))
        assert codes[victim] == -signal.SIGKILL and all(codes), codes
        for rank in set(range(count)) - {victim}:
            assert codes[rank] == 2 and "another process of this run has ended" in said(cut, rank), said(cut, rank)
            assert "Traceback" not in said(cut, rank)

    print("seconds until all had ended", waited)
    with restoring(cut, count) as started:
        assert started.finish(300) == [0] * count, said(cut)
    assert_same(whole(count), cut)


def test_one_signal_to_one_rank_saves_and_stops_all(tmp_path: Path, whole: Callable[[int], Path]) -> None:
    cut = tmp_path
    with restoring(cut, 2) as started:
        until(cut, 10, started)
        started[1].send_signal(signal.SIGTERM)
        assert started.finish(BOUND) == [143, 143]
    assert "Interrupted after step" in said(cut, 0)
    done = len((cut / "run/log.jsonl").read_text().splitlines())
    assert load(cut / "run").step == done < 40
    with restoring(cut, 2) as started:
        assert started.finish(300) == [0, 0], said(cut)
    assert_same(whole(2), cut)


def test_a_folder_belongs_to_one_training(tmp_path: Path) -> None:
    write_recipe("restore", tmp_path, 100_000, every=4)  # it is not through before the others have asked
    second = tmp_path / "second"
    second.mkdir()
    words = ["train", str(tmp_path / "restore.yaml"), "--output", str(tmp_path / "run"), "--resume"]
    with begin(2, words, tmp_path) as first:
        until(tmp_path, 2, first)
        for count in (1, 2):
            with begin(count, words, second) as other:
                assert other.finish(BOUND) == [2] * count
            assert "which is in use. Wait until it is done" in said(second, 0)
            assert count == 1 or "rank 0 could not begin" in said(second, 1)
        assert all(process.poll() is None for process in first)


def launched(folder: Path, *words: str) -> subprocess.Popen[str]:
    """As a person types it, with everything that torchrun itself does."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with (folder / "said.txt").open("w") as file:
        return subprocess.Popen([*launch, *words], cwd=folder, env=environment(), stdout=file, stderr=file, text=True)


def test_the_launcher_of_torch_begins_again_where_one_has_died(tmp_path: Path, whole: Callable[[int], Path]) -> None:
    """--max-restarts and --resume together: the weights of a training that nobody killed."""
    cut = tmp_path
    write_recipe("restore", cut, 40, every=4)

    words = ["-m", "jiio", "train", "restore.yaml", "--output", "run", "--resume"]
    with launched(cut, "--max-restarts", "1", *words) as process:
        try:
            until(cut, 10, Started([process]))
            kill_a_child_of(process.pid)
            assert process.wait(300) == 0, (cut / "said.txt").read_text()
        finally:
            process.kill()
    assert "another process of this run has ended" in (cut / "said.txt").read_text()
    assert load(cut / "run").versions["ranks"] == 2
    assert_same(whole(2), cut)


def kill_a_child_of(parent: int) -> None:
    """The last one that it has started."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=True)
    os.kill(max(int(word) for word in found.stdout.split() if alive(int(word))), signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether there is such a process: the one that listed them is not there any more."""
    return Path(f"/proc/{pid}").exists()
