"""Ctrl-C and kill -9 at any moment: a training resumes to the same bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import toy
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.interrupt import TrainingInterrupted
from loop_cases import assert_same_training, config_of, interrupted, run


@pytest.fixture(autouse=True)
def with_toy(monkeypatch, tmp_path):
    monkeypatch.setitem(toy.TABLE["task"], "toy", "toy:ToyTask")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("at", [0, 6, 38])
def test_ctrl_c_leaves_a_checkpoint_and_resume_is_exact(at):
    run(config_of("whole"))
    config = config_of("cut")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingInterrupted, match=f"after step {at + 1} of 40.*Press play") as stop:
        interrupted(config, at, resume_hint="Press play.")
    assert stop.value.code == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert load(Path("cut")).step == at + 1
    run(config, resume=True)
    assert_same_training("whole", "cut")


def test_a_second_ctrl_c_stops_at_once_and_loses_nothing():
    run(config_of("whole"))
    config = config_of("cut")
    with pytest.raises(TrainingInterrupted, match="at once"):
        interrupted(config, 17, 2)
    assert load(Path("cut")).step == 15
    run(config, resume=True)
    assert_same_training("whole", "cut")


def test_ctrl_c_in_the_last_step_ends_the_training_well():
    config = config_of("a")
    assert interrupted(config, 39).step == 40


def start(*arguments: str) -> subprocess.Popen:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(root / "tests" / "toy.py"), *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_lines(path: Path, count: int, process: subprocess.Popen) -> None:
    """Until the log holds so many lines, or the process has ended."""
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < count):
        time.sleep(0.001)


def kill_again_and_again(times: int, chance: random.Random) -> int:
    """Train in a process that is killed (kill -9) at random moments; returns how often that cut it off."""
    log, cuts, lines = Path("cut/log.jsonl"), 0, 0
    for _ in range(times):
        process = start("train", "toy.yaml", "--output", "cut", "--resume")
        # Anywhere between two steps of the rest, at any moment of a step, a log line or a checkpoint.
        lines = min(39, lines + chance.randrange(1, 8))
        wait_for_lines(log, lines, process)
        time.sleep(chance.random() * 0.02)
        process.kill()
        process.communicate()
        cuts += process.returncode == -signal.SIGKILL
        assert process.returncode in (-signal.SIGKILL, 0)
    return cuts


def test_kill_9_and_resume_is_exact():
    run(config_of("whole"))
    assert kill_again_and_again(1, random.Random(0)) == 1
    run(config_of("cut"), resume=True)
    assert_same_training("whole", "cut")


@pytest.mark.slow
@pytest.mark.parametrize("text", [toy.YAML, toy.RESTORE], ids=["toy", "restore"])
def test_kill_9_ten_times_and_resume_is_exact(text, monkeypatch):
    monkeypatch.setattr(toy, "YAML", text)
    run(config_of("whole"))
    seed = random.randrange(10**6)
    print(f"moments of the kills: seed {seed}")
    assert kill_again_and_again(10, random.Random(seed)) >= 5
    process = start("train", "toy.yaml", "--output", "cut", "--resume")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert_same_training("whole", "cut")


def test_ctrl_c_on_the_command_line():
    run(config_of("whole"))
    process = start("train", "toy.yaml", "--output", "cut")
    wait_for_lines(Path("cut/log.jsonl"), 3, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].endswith("Continue by: jiio train toy.yaml --output cut --resume")
    run(config_of("cut"), resume=True)
    assert_same_training("whole", "cut")
