"""The folder of a training: one training at a time, and nothing of anybody else's is touched."""

from __future__ import annotations

import inspect
import json
import re
import threading
from pathlib import Path

import pytest

import toy
from jiio import JiioError
from jiio.outputs.lock import InUseError, locked
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.interrupt import TrainingInterrupted
from jiio.tasks.frame.place import is_own_log
from jiio.tasks.frame.registry import TABLE, look_up
from loop_cases import assert_same_training, config_of, dies, interrupted, presses, run, stopped


class DrawingToy(toy.ToyTask):
    """Writes two pictures at the end, one of which it has not announced."""

    PICTURES = ("samples.png",)

    def pictures(self, model):
        return {"samples.png": b"ours", "surprise.png": b"ours too"}


@pytest.fixture(autouse=True)
def with_toy(monkeypatch, tmp_path):
    monkeypatch.setitem(toy.TABLE["task"], "toy", "toy:ToyTask")
    monkeypatch.chdir(tmp_path)


def contents(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def drawn(config, **options):
    return run(config, task=DrawingToy(config), **options)


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_training_is_refused_before_it_writes_anything(resume):
    run(config_of("whole"))
    refused, seen = [], []

    def second() -> None:
        before = contents("a")
        try:
            run(config_of("a", keep=5), resume=resume)
        except InUseError as error:
            refused.append(str(error))
        seen.append(contents("a") == before)

    def from_another_thread() -> None:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    with stopped(toy.ToyTask, 17, from_another_thread):
        run(config_of("a"))
    assert len(refused) == 1 and refused[0].startswith("output: expected a folder that nobody else writes into, got a,")
    assert seen == [True]
    assert_same_training("whole", "a")


def test_a_training_lets_go_however_it_ends():
    with pytest.raises(KeyboardInterrupt), stopped(toy.ToyTask, 3, dies):
        run(config_of("a"))
    with pytest.raises(TrainingInterrupted):
        interrupted(config_of("a"), 7, resume=True)
    run(config_of("a"), resume=True)
    with locked(Path("a"), "output"):
        pass
    assert not list(Path("a").glob(".*"))


def test_a_refused_training_leaves_the_folder_as_it_was():
    Path("a").mkdir()
    for name in (".log.jsonl.12-0123abcd.jiio-part", ".draft.part", "weights.safetensors", "notes.txt"):
        Path("a", name).write_bytes(b"x")
    before = contents("a")
    for resume in (False, True):
        with pytest.raises(JiioError, match=r"^output: "):
            run(config_of("a"), resume=resume)
        assert contents("a") == before
    with pytest.raises(JiioError, match="start"):
        run(config_of("b", start="nowhere"))
    assert not Path("b").exists()


def test_the_temporary_files_of_other_writers_stay():
    Path("a").mkdir()
    for name in (".figures.json.12-0123abcd.jiio-part", ".other.123.part"):
        Path("a", name).write_bytes(b"being written")
    run(config_of("a"))
    assert sorted(path.name for path in Path("a").glob(".*")) == [
        ".figures.json.12-0123abcd.jiio-part",
        ".other.123.part",
    ]


OURS = [{"step": i, "loss": 0.5, "gradient_norm": 1.0, "rate": 0.1, "brightness": 0.2} for i in range(3)]
LINES = "".join(json.dumps(line) + "\n" for line in OURS)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        *("mine", '{"precious": 1}\n{"step": "x"}\nanything\n', '{"step": 0}\n', "\n", "[1]\n", "[" * 9999 + "\n"),
        *(LINES + "mine\n", LINES + "mine", LINES + LINES, LINES.partition("\n")[2], "\0"),
    ],
)
def test_a_log_of_somebody_else_is_never_emptied(text, resume):
    Path("a").mkdir()
    Path("a/log.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"^output: .*a/log\.jsonl.*another --output"):
        run(config_of("a"), resume=resume)
    assert contents("a") == {"a/log.jsonl": text.encode()}


@pytest.mark.parametrize("text", ["", '{"st', LINES, LINES + '{"step": 3, "lo', LINES + '{"step": 3, "loss": 0.5'])
def test_a_log_that_a_kill_left_before_the_first_checkpoint_is_the_trainings_own(text):
    run(config_of("whole"))
    Path("a").mkdir()
    Path("a/log.jsonl").write_text(text)
    assert is_own_log(Path("a/log.jsonl"))
    run(config_of("a"), resume=True)
    assert_same_training("whole", "a")


def test_a_log_that_is_no_file_is_refused():
    Path("a/log.jsonl").mkdir(parents=True)
    with pytest.raises(InputError, match=r"log\.jsonl"):
        run(config_of("a"))
    Path("b").mkdir()
    Path("mine").write_text("")
    Path("b/log.jsonl").symlink_to("../mine")
    with pytest.raises(InputError, match=r"log\.jsonl"):
        run(config_of("b"))


@pytest.mark.parametrize("resume", [False, True])
def test_a_picture_of_somebody_else_ends_the_training_before_it_begins(resume):
    Path("a").mkdir()
    Path("a/samples.png").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"^output: .*a/samples\.png"):
        drawn(config_of("a"), resume=resume)
    assert contents("a") == {"a/samples.png": b"mine"}


def test_a_picture_that_came_while_the_training_was_interrupted_is_not_its_own():
    with pytest.raises(TrainingInterrupted), stopped(toy.ToyTask, 12, presses):
        drawn(config_of("a"))
    Path("a/samples.png").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"a/samples\.png"):
        drawn(config_of("a"), resume=True)
    assert Path("a/samples.png").read_bytes() == b"mine"


def test_a_picture_that_was_not_announced_is_not_written_over_either():
    Path("a").mkdir()
    Path("a/surprise.png").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"a/surprise\.png"):
        drawn(config_of("a"))
    assert Path("a/surprise.png").read_bytes() == b"mine"
    assert load(Path("a/weights.safetensors")).step == 40  # nothing of the training is lost


def test_its_own_pictures_are_drawn_again():
    drawn(config_of("a"))
    Path("a/surprise.png").unlink()  # as a kill between two pictures leaves it
    Path("a/samples.png").write_bytes(b"older")
    drawn(config_of("a"), resume=True)
    assert Path("a/samples.png").read_bytes() == b"ours" and Path("a/surprise.png").read_bytes() == b"ours too"


def test_other_files_beside_are_welcome():
    Path("a").mkdir()
    for name in ("config.yaml", "notes.txt", "photo.png"):
        Path("a", name).write_bytes(b"mine")
    drawn(config_of("a"))
    assert all(Path("a", name).read_bytes() == b"mine" for name in ("config.yaml", "notes.txt", "photo.png"))


def test_a_damaged_checkpoint_that_was_passed_over_goes_with_the_next_one():
    with pytest.raises(TrainingInterrupted):
        interrupted(config_of("a"), 22)
    Path("a/step-00000023.safetensors").write_bytes(b"")
    with pytest.raises(TrainingInterrupted):
        interrupted(config_of("a", checkpoint_every=100), 20, resume=True)
    assert [p.name for p in sorted(Path("a").glob("step-*"))] == [
        "step-00000020.safetensors",
        "step-00000021.safetensors",
    ]
    run(config_of("whole"))
    run(config_of("a"), resume=True)
    assert_same_training("whole", "a")


def test_a_training_writes_the_same_bytes_again(monkeypatch, tmp_path):
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        run(config_of("a"))
    names = {path.name for path in (tmp_path / "one/a").iterdir()}
    assert "weights.safetensors" in names and "step-00000040.safetensors" in names
    assert all((tmp_path / "one/a" / n).read_bytes() == (tmp_path / "two/a" / n).read_bytes() for n in names)


@pytest.mark.parametrize("name", sorted(name for name in TABLE["task"] if name != "toy"))
def test_every_task_announces_its_pictures(name):
    task = look_up("task", name, "task")
    written = re.findall(r"\"([\w-]+\.[a-z]{2,4})\"", inspect.getsource(task.pictures))
    assert tuple(written) == task.PICTURES
